"""What is known about items: categories as codes, text as vectors, how often and since when they were seen."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather

from tokenization.arrays import Codes, Floats, Integers, Longs, Vectors
from tokenization.codes.counting import Seen
from tokenization.codes.vocabulary import FIRST, Vocabulary
from tokenization.errors import SourceError, UserfmError, VocabularyError, first_line
from tokenization.ids import Ids, as_type, one_chunk
from tokenization.items.assignment import SemanticIds
from tokenization.items.modalities import metadata_vectors, unit_vectors
from tokenization.items.sentences import Encoder, SentenceEncoder
from tokenization.schema.rules import METADATA, ItemsRule

WIDTH = 256
_CHUNK = 4096
_MEDIA = "media.arrow"


class TextEncoder:
    """Text → vectors by a static table of word pieces: WordLlama's 32,000 × 256 (MIT).

    The average of a text's pieces, scaled to length 1. The files come with the package `wordllama`; its code,
    and with it the network, is never touched. Text is read in lower case, since product texts shout and the
    pieces don't. Source: https://github.com/dleemiller/WordLlama
    """

    def __init__(self) -> None:
        """Load the table (16 MB).

        Raises:
            UserfmError: the package `wordllama` is not installed.
        """
        found = importlib.util.find_spec("wordllama")
        if found is None or not found.submodule_search_locations:
            raise UserfmError("text vectors need the package wordllama; run: pip install 'userfm[text]'")
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        home = Path(found.submodule_search_locations[0])
        self._table = load_file(home / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
        self._table = self._table.astype(np.float32)
        self._pieces = Tokenizer.from_file(str(home / "tokenizers" / "l2_supercat_tokenizer_config.json"))
        self._pieces.no_padding()
        self._pieces.no_truncation()

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Vectors:
        """[n] texts → [n, 256] of length 1; a text without pieces becomes zeros.

        Args:
            progress: called with (texts done, texts in all).
        """
        # No piece spans two words, so each distinct word is cut into pieces once: of a catalogue's, a few thousand.
        trimmed = pc.utf8_trim_whitespace(pc.utf8_lower(pa.array(texts, pa.string())))
        split = pc.utf8_split_whitespace(trimmed)
        words = pc.dictionary_encode(pc.list_flatten(split))
        of_word = self._sums_of_pieces(words.dictionary.to_pylist())
        word, sizes = words.indices.to_numpy(), pc.list_value_length(split).to_numpy()
        starts = np.cumsum(sizes) - sizes
        out = np.zeros((len(texts), WIDTH), np.float32)
        for begin in range(0, len(texts), _CHUNK):
            end = min(begin + _CHUNK, len(texts))
            sums = _sums(of_word, word, starts[begin:end], sizes[begin:end])
            norms = np.linalg.norm(sums, axis=1, keepdims=True)
            np.divide(sums, norms, out=out[begin:end], where=norms > 0)
            if progress:
                progress(end, len(texts))
        return out

    def _sums_of_pieces(self, words: list[str]) -> Vectors:
        """[w] words → [w, 256]."""
        pieces = [encoding.ids for encoding in self._pieces.encode_batch_fast(words, add_special_tokens=False)]
        sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
        flat = np.fromiter(itertools.chain.from_iterable(pieces), np.int64, int(sizes.sum()))
        return _sums(self._table, flat, np.cumsum(sizes) - sizes, sizes)


def _sums(rows: Vectors, index: Integers, starts: Longs, sizes: Integers) -> Vectors:
    """[n, 256] sums over `rows[index[start : start + size]]`.

    Place by place over all that are so long: far faster than numpy's reduceat, and each sum is taken in one order,
    whatever stands beside it.
    """
    order = np.argsort(-sizes, kind="stable")
    starts = starts[order]
    sums = np.zeros((len(sizes), rows.shape[1]), np.float32)
    for place in range(int(sizes.max(initial=0))):
        longer = int(np.count_nonzero(sizes > place))
        sums[:longer] += rows[index[starts[:longer] + place]]
    out = np.empty_like(sums)
    out[order] = sums
    return out


@dataclass(frozen=True, eq=False)
class TextVectors:
    """The distinct texts [d] of an items table, their vectors [d, w], and which each row has [rows]; the log tells
    nothing of them."""

    texts: pa.Array
    vectors: Vectors
    of_row: Codes

    @classmethod
    def read(
        cls, table: pa.Table, columns: ItemsRule, progress: Callable[[int, int], None] | None = None
    ) -> TextVectors:
        """Read the texts of all rows, by the encoder that the schema names.

        Raises:
            SourceError: a column that holds no text. UserfmError: the encoder is not installed.
        """
        joined = pc.dictionary_encode(_joined(table, columns.text))
        distinct = joined.dictionary
        return cls(distinct, _of_texts(distinct, columns, progress), joined.indices.to_numpy())

    def of(self, rows: Longs) -> tuple[pa.Array, Codes, Vectors]:
        """The texts [n] of rows of the table, "" for -1; and of the distinct ones among these, in the order of first
        sight, which each row has [n], and the vectors [d, w], zeros for ""."""
        place = np.append(self.of_row, np.int32(-1))[rows]
        place[place == pc.index(self.texts, "").as_py()] = -1
        distinct = pc.dictionary_encode(pa.array(place))
        used = distinct.dictionary.to_numpy()
        texts = self.texts.take(pa.array(place, mask=place < 0)).fill_null("")
        return texts, distinct.indices.to_numpy(), _rows(self.vectors, used)


@dataclass(frozen=True, eq=False)
class ItemTable:
    """What is known about each candidate: row i is the candidate with code i, rows 0 and 1 are reserved.

    ids: the candidates' vocabulary [V - 2]. First those seen before the split, then the others of the items
    table in the order of their ids. categories: [V] codes by column. vocabularies: of these codes. text: [V].
    text_of: [V] row of `distinct_vectors` [d, 256 or 0], since many items share a text. media: [V, w] of the metadata
    and of each column of vectors that the user brings, length 1, zeros where an item has none. semantic: codes of all
    of it, where declared.
    """

    ids: Vocabulary
    categories: Mapping[str, Codes]
    vocabularies: Mapping[str, Vocabulary]
    text: pa.Array
    text_of: Codes
    distinct_vectors: Vectors
    media: Mapping[str, Vectors] = field(default_factory=dict)
    semantic: SemanticIds | None = None

    def __len__(self) -> int:
        """V, the number of codes."""
        return self.ids.size

    @property
    def category_sizes(self) -> dict[str, int]:
        """Number of codes of each category, with 0 and 1."""
        return {name: vocabulary.size for name, vocabulary in self.vocabularies.items()}

    @cached_property
    def vectors(self) -> Vectors:
        """[V, w] content vectors: of the text (256 wide, or 0 where none is declared), the metadata, then the media."""
        return _beside(self.distinct_vectors[self.text_of], self.media)

    @property
    def count(self) -> Longs:
        """[V] events before the split."""
        return np.concatenate([np.zeros(FIRST, np.int64), self.ids.counts])

    @property
    def first_seen(self) -> Floats:
        """[V] first event before the split, seconds since 1970 UTC; NaN where there is none."""
        return np.concatenate([np.full(FIRST, np.nan), self.ids.first_seen])

    @classmethod
    def bare(cls, ids: Vocabulary) -> ItemTable:
        """Candidates of which nothing is known but their events."""
        rows = ids.size
        nothing = pa.array([""] * rows, pa.string())
        return cls(ids, {}, {}, nothing, np.zeros(rows, np.int32), np.zeros((1, 0), np.float32))

    @classmethod
    def build(
        cls,
        seen: Vocabulary,
        table: pa.Table,
        columns: ItemsRule,
        progress: Callable[[int, int], None] | None = None,
        texts: TextVectors | None = None,
    ) -> ItemTable:
        """Join the candidates seen before the split with the items table; items not seen go after them, by
        id.

        Args:
            texts: of this table, where somebody has read them already.

        Raises:
            SourceError: an item without an id, one id twice, or an id, a text or a vector of a type that can't be one.
        """
        listed = _listed_ids(table, columns.id, seen)
        ids = seen.grow(listed.take(pc.array_sort_indices(listed)))
        place = pc.index_in(ids.ids, value_set=listed).fill_null(-1).to_numpy()
        row_of = np.concatenate([np.full(FIRST, -1), place])
        known = pa.array(row_of, mask=row_of < 0)
        codes, vocabularies = {}, {}
        for name in columns.categories:
            column = Ids.of(table.column(name).take(known), name)
            vocabularies[name] = Vocabulary.fit(Seen.of(column, np.arange(len(row_of), dtype=np.float64)))
            codes[name] = vocabularies[name].encode_ids(column)
        text, text_of, vectors = (texts or TextVectors.read(table, columns, progress)).of(row_of)
        beside = [METADATA] if columns.metadata else []
        media = {name: _rows(_modality(table, name, columns), row_of) for name in (*beside, *columns.vectors)}
        semantic = None
        if columns.semantic_ids:
            content = _beside(vectors[text_of], media)
            semantic = SemanticIds.fit(columns.semantic_ids, content, FIRST + len(seen))
        return cls(ids, codes, vocabularies, text, text_of, vectors, media, semantic)

    def grow(
        self, table: pa.Table, columns: ItemsRule, progress: Callable[[int, int], None] | None = None
    ) -> ItemTable:
        """With the items of a newer table that are not here yet, after the others, in the order of their ids.

        Nothing is fitted again, and nothing changes of the items that are here, whatever the table says of them.

        Raises:
            SourceError: as `build`.
        """
        listed = _listed_ids(table, columns.id, self.ids)
        ids = self.ids.grow(listed.take(pc.array_sort_indices(listed)))
        place = pc.index_in(ids.ids.slice(len(self.ids)), value_set=listed)
        codes, vocabularies = {}, {}
        for name, vocabulary in self.vocabularies.items():
            column = Ids.of(table.column(name).take(place), name)
            vocabularies[name] = vocabulary.grow(column.decode())
            codes[name] = np.concatenate([self.categories[name], vocabularies[name].encode_ids(column)])
        text = _joined(table, columns.text).take(place).fill_null("")
        distinct = pc.dictionary_encode(text)
        text_of = distinct.indices.to_numpy()
        vectors = _of_texts(distinct.dictionary, columns, progress)
        rows = place.to_numpy()
        media = {n: _modality(table, n, columns, m.shape[1])[rows] for n, m in self.media.items()}
        content = _beside(vectors[text_of], media)
        return ItemTable(
            ids,
            codes,
            vocabularies,
            pa.concat_arrays([self.text, text]),
            np.concatenate([self.text_of, text_of + np.int32(len(self.distinct_vectors))]),
            np.concatenate([self.distinct_vectors, vectors]),
            {name: np.concatenate([self.media[name], matrix]) for name, matrix in media.items()},
            self.semantic.grow(content) if self.semantic else None,
        )

    def save(self, folder: Path) -> None:
        """Write items.arrow, text_vectors.arrow and a vocabulary a category into an existing folder; media.arrow and
        semantic_ids.arrow where there are media and semantic IDs."""
        vectors = _lists(self.distinct_vectors)
        columns = {f"category.{name}": codes for name, codes in self.categories.items()}
        table = pa.table({"text": self.text, "text_of": self.text_of, **columns})
        pyarrow.feather.write_feather(table, folder / "items.arrow", compression="zstd")
        pyarrow.feather.write_feather(
            pa.table({"vector": vectors}), folder / "text_vectors.arrow", compression="uncompressed"
        )
        if self.media:
            lists = {name: _lists(matrix) for name, matrix in self.media.items()}
            pyarrow.feather.write_feather(pa.table(lists), folder / _MEDIA, compression="uncompressed")
        if self.semantic:
            self.semantic.save(folder)
        self.ids.save(folder / "item_ids.arrow")
        for name, vocabulary in self.vocabularies.items():
            vocabulary.save(folder / f"category.{name}.arrow")

    @classmethod
    def load(cls, folder: Path) -> ItemTable:
        """Read what `save` wrote.

        Raises:
            VocabularyError: a file is missing or is not what it should be.
        """
        try:
            table = pyarrow.feather.read_table(folder / "items.arrow").combine_chunks()
            vectors = _matrix(pyarrow.feather.read_table(folder / "text_vectors.arrow")["vector"])
            media = pyarrow.feather.read_table(folder / _MEDIA) if (folder / _MEDIA).exists() else pa.table({})
        except (OSError, KeyError, pa.ArrowException) as error:
            raise VocabularyError(f"{folder} holds no item table: {first_line(error)}") from error
        names = [name.removeprefix("category.") for name in table.column_names[2:]]
        return cls(
            Vocabulary.load(folder / "item_ids.arrow"),
            {name: table.column(f"category.{name}").to_numpy() for name in names},
            {name: Vocabulary.load(folder / f"category.{name}.arrow") for name in names},
            table.column("text").combine_chunks(),
            table.column("text_of").to_numpy(),
            vectors,
            {name: _matrix(media.column(name)) for name in media.column_names},
            SemanticIds.load(folder),
        )


def encoder_of(model: str | None) -> Encoder:
    """What reads item texts: a sentence-transformers model, or WordLlama where none is named.

    Raises:
        UserfmError: its package is not installed, or there is no such model.
    """
    return TextEncoder() if model is None else SentenceEncoder(model)


def _of_texts(texts: pa.Array, columns: ItemsRule, progress: Callable[[int, int], None] | None) -> Vectors:
    if not columns.text:
        return np.zeros((len(texts), 0), np.float32)
    return encoder_of(columns.encoder).encode(texts.to_pylist(), progress)


def _modality(table: pa.Table, name: str, columns: ItemsRule, width: int | None = None) -> Vectors:
    """[rows, w] vectors of all that is no text: the metadata, or a column. width: that they must have, if known."""
    if name == METADATA and columns.metadata:
        return metadata_vectors(table, columns.metadata)
    return unit_vectors(table.column(name), name, width)


def _rows(matrix: Vectors, rows: Integers) -> Vectors:
    """The given rows, zeros for -1."""
    return np.concatenate([matrix, np.zeros_like(matrix[:1])])[rows]


def _beside(text: Vectors, media: Mapping[str, Vectors]) -> Vectors:
    return np.concatenate([text, *media.values()], axis=1) if media else text


def _lists(matrix: Vectors) -> pa.Array:
    width = matrix.shape[1]
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), width) if width else pa.nulls(len(matrix))


def _matrix(lists: pa.ChunkedArray) -> Vectors:
    array = lists.combine_chunks()
    if not pa.types.is_fixed_size_list(array.type):
        return np.zeros((len(array), 0), np.float32)
    flat: Vectors = array.flatten().to_numpy()
    return flat.reshape(len(array), array.type.list_size)


def _listed_ids(table: pa.Table, column: str, seen: Vocabulary) -> pa.Array:
    """[rows] ids of the items table, in the type of those seen in events."""
    listed = Ids.of(table.column(column), column)
    if listed.missing.any():
        row = int(np.flatnonzero(listed.missing)[0])
        raise SourceError(f"row {row} of the items table has no {column}; give every item an id")
    often = np.bincount(listed.index, minlength=len(listed.values))
    if (often > 1).any():
        twice = listed.values[int(np.argmax(often))].as_py()
        raise SourceError(f"the items table has {column} {twice!r} {often.max()} times; keep one row an item")
    given = listed.decode()
    ids = as_type(given, seen.ids.type) if len(seen) else given
    if ids.null_count:
        other = given.filter(pc.is_null(ids))[0].as_py()
        raise SourceError(f"the items table has {column} {other!r}, but in the events it is a number; write one type")
    return ids


def _joined(table: pa.Table, columns: Sequence[str]) -> pa.Array:
    """[rows] one text an item: its columns, with one space between any two words."""
    if not columns:
        return pa.array([""] * table.num_rows, pa.string())
    # Arrow's null_handling="skip" loses rows in which every column is null, so nulls become "" before.
    texts = [_text(table.column(name), name).fill_null("") for name in columns]
    # Many items share a text, so each distinct one is read once.
    joined = pc.dictionary_encode(one_chunk(pc.binary_join_element_wise(*texts, " ")))
    words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(joined.dictionary))
    return pc.binary_join(words, " ").take(joined.indices)


def _text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise SourceError(f"column {name!r} of the items table holds {column.type}, which is no text") from None
