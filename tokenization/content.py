"""What is known about items: categories as codes, text as vectors, how often and since when they were seen."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
from numpy.typing import NDArray

from tokenization.arrays import Codes, Floats, Integers, Longs
from tokenization.counting import Seen
from tokenization.errors import SourceError, UserfmError, VocabularyError
from tokenization.ids import Ids, as_type, one_chunk
from tokenization.rules import ItemsRule
from tokenization.vocabulary import FIRST, Vocabulary

Vectors = NDArray[np.float32]
WIDTH = 256
_CHUNK = 4096


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
class ItemTable:
    """What is known about each candidate: row i is the candidate with code i, rows 0 and 1 are reserved.

    ids: the candidates' vocabulary [V - 2]. First those seen before the split, then the others of the items
    table in the order of their ids. categories: [V] codes by column. vocabularies: of these codes. text: [V].
    text_of: [V] row of `distinct_vectors` [d, 256 or 0], since many items share a text.
    """

    ids: Vocabulary
    categories: Mapping[str, Codes]
    vocabularies: Mapping[str, Vocabulary]
    text: pa.Array
    text_of: Codes
    distinct_vectors: Vectors

    def __len__(self) -> int:
        """V, the number of codes."""
        return self.ids.size

    @property
    def category_sizes(self) -> dict[str, int]:
        """Number of codes of each category, with 0 and 1."""
        return {name: vocabulary.size for name, vocabulary in self.vocabularies.items()}

    @cached_property
    def vectors(self) -> Vectors:
        """[V, 256] text vectors, or [V, 0] where no text was declared."""
        return self.distinct_vectors[self.text_of]

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
    ) -> ItemTable:
        """Join the candidates seen before the split with the items table; items not seen go after them, by
        id.

        Raises:
            SourceError: an item without an id, one id twice, or an id or text of a type that can't be one.
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
        text = one_chunk(_joined(table, columns.text)).take(known).fill_null("")
        distinct = Ids.of(text, "text")
        vectors = np.zeros((len(distinct.values), 0), np.float32)
        if columns.text:
            vectors = TextEncoder().encode(distinct.values.to_pylist(), progress)
        return cls(ids, codes, vocabularies, text, distinct.index, vectors)

    def save(self, folder: Path) -> None:
        """Write items.arrow, text_vectors.arrow and a vocabulary a category into an existing folder."""
        flat = pa.array(self.distinct_vectors.reshape(-1))
        width = self.distinct_vectors.shape[1]
        vectors = pa.FixedSizeListArray.from_arrays(flat, width) if width else pa.nulls(len(self.distinct_vectors))
        columns = {f"category.{name}": codes for name, codes in self.categories.items()}
        table = pa.table({"text": self.text, "text_of": self.text_of, **columns})
        pyarrow.feather.write_feather(table, folder / "items.arrow", compression="zstd")
        pyarrow.feather.write_feather(
            pa.table({"vector": vectors}), folder / "text_vectors.arrow", compression="uncompressed"
        )
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
            vectors = pyarrow.feather.read_table(folder / "text_vectors.arrow")["vector"].combine_chunks()
        except (OSError, KeyError, pa.ArrowException) as error:
            raise VocabularyError(f"{folder} holds no item table: {str(error).splitlines()[0]}") from error
        names = [name.removeprefix("category.") for name in table.column_names[2:]]
        flat = np.zeros((len(vectors), 0), np.float32)
        if pa.types.is_fixed_size_list(vectors.type):
            flat = vectors.flatten().to_numpy().reshape(len(vectors), vectors.type.list_size)
        return cls(
            Vocabulary.load(folder / "item_ids.arrow"),
            {name: table.column(f"category.{name}").to_numpy() for name in names},
            {name: Vocabulary.load(folder / f"category.{name}.arrow") for name in names},
            table.column("text").combine_chunks(),
            table.column("text_of").to_numpy(),
            flat,
        )


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


def _joined(table: pa.Table, columns: Sequence[str]) -> pa.ChunkedArray:
    if not columns:
        return pa.chunked_array([pa.array([""] * table.num_rows, pa.string())])
    # Arrow's null_handling="skip" loses rows in which every column is null, so nulls become "" before.
    texts = [_text(table.column(name), name).fill_null("") for name in columns]
    joined = pc.binary_join_element_wise(*texts, " ")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(joined, pattern=r"\s+", replacement=" "))


def _text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise SourceError(f"column {name!r} of the items table holds {column.type}, which is no text") from None
