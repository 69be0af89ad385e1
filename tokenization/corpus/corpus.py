"""A tokenized log on disk: one row a user, with the tokenizer that made it and what it refused.

    corpus.json  tokens/00000.parquet, 00001.parquet..  open/00000.parquet..  keys/00000.parquet..
    tokenizers/00000/..  quarantine/00000.parquet..

The tokens lie in parts that never change. corpus.json names the parts, and is the one file that is ever replaced: an
append writes a part beside the others, brings it to the disk, and counts when corpus.json is renamed. Whatever it does
not name was left by a crash, and the next append clears it away. A user may have a row in several parts; whoever reads
gets one, its lists put one after another in the order of the parts.

The last groups of a user are open: more of them may come. Their events lie beside the tokens, so that they are
tokenized together with what comes; a part says how many tokens at the end of a row are open, and the user's row in the
next part says these again (`parts.OPEN`). Whoever reads gets each token once, as it was said last.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tokenization.arrays import Longs, Mask
from tokenization.codes.vocabulary import FIRST, Vocabulary
from tokenization.corpus.manifest import FORMAT as FORMAT
from tokenization.corpus.manifest import Manifest, alone, writing
from tokenization.corpus.opened import NOTHING, Onward, known_keys, newest_part, read_keys, read_open, revised
from tokenization.corpus.parts import OPEN, Part, open_part, read_ids
from tokenization.corpus.parts import Format as Format
from tokenization.corpus.revised import RevisedPart
from tokenization.corpus.rows import Place, complete, ends_of, join, place_users, read_as, stream_users
from tokenization.corpus.writing import beside, check_growth, put_in_place, with_part
from tokenization.errors import CorpusError, first_line, nearest
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.facets import FacetKind
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.tokenizer import Tokenizer
from tokenization.tokenizer.translation import translation, under

_BATCH = 1024
"""Users read at a time where all are asked for."""
_ENDS = 8192
"""Users whose histories are read at a time where only their ends are asked for."""
_OPEN = pa.field(OPEN, pa.int32())
_MEASURED = (FacetKind.NUMBER, FacetKind.DURATION, FacetKind.TIMESTAMP)


def write_corpus(
    folder: str | Path,
    tables: Iterable[pa.Table],
    tokenizer: Tokenizer,
    summary: Mapping[str, Any],
    format: Format = "parquet",
    quarantine: pa.Table | None = None,
    onward: Onward = NOTHING,
) -> Corpus:
    """Write token tables as a corpus; one that is there is replaced whole, or not at all.

    Args:
        tables: token tables as `Tokenizer.transform` makes them, with a column `OPEN` if something is open. Best if
            each begins after the end of the one before, in the order of ids: then they are one part, and reading in
            order is reading from the beginning to the end.
        summary: JSON-serialisable figures to keep beside the tokens, read after the last of these.
        format: "parquet", or "lance" (needs the package `pylance`).
        quarantine: rows that were refused, as `cleaning.clean` returns them.
        onward: what is kept for what comes next.

    Raises:
        CorpusError: the folder holds something else, or can't be written.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "corpus.json").exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CorpusError(f"{folder} holds something that is no corpus; name another folder or empty it")
    fresh = beside(folder, "new")
    shutil.rmtree(fresh, ignore_errors=True)
    manifest = Manifest(tokenizer.schema.name, format, (), (), "", (), (), (), summary)
    with writing(folder):
        fresh.mkdir(parents=True)
        manifest = with_part(fresh, manifest, tables, tokenizer, quarantine, onward)
        if not manifest.parts:
            raise CorpusError("there are no tokens to write; give at least one table")
        manifest.write(fresh)
        put_in_place(folder, fresh)
    return Corpus.open(folder)


def append_corpus(
    folder: str | Path,
    tables: Iterable[pa.Table],
    tokenizer: Tokenizer,
    summary: Mapping[str, Any],
    quarantine: pa.Table | None = None,
    source: str = "",
    onward: Onward = NOTHING,
    behind: Manifest | None = None,
) -> Corpus:
    """Add later tokens of users, known or new, as a part of its own; no file that is there is written again.

    Args:
        tables: token tables as `Tokenizer.transform(events, after=corpus.ends(..))` makes them of the new events
            together with `corpus.open_events(..)` of the same users, with a column `OPEN` if something is open.
        tokenizer: the corpus's own, or one whose vocabularies it begins.
        summary: figures of the whole corpus, in place of those that are there.
        quarantine: rows that were refused, to be kept beside those that are there.
        source: digest of the input; what was appended once is refused, so that no event counts twice.
        onward: as in `write_corpus`.
        behind: what the corpus was when the tokens were made; None where nobody else appends.

    Raises:
        CorpusError: no corpus, one that another process is appending to or has appended to since, a tokenizer that
            gives other codes, or an input that was appended before.
    """
    folder = Corpus.open(folder).folder
    with alone(folder), writing(folder):
        corpus = Corpus.open(folder)
        if source and source in corpus.manifest.appended:
            raise CorpusError(f"{folder} has this input already: it was appended before")
        if behind is not None and behind != corpus.manifest:
            raise CorpusError(f"{folder} was changed while these tokens were made; append again")
        check_growth(folder, corpus.tokenizer, tokenizer)
        corpus.manifest.clear(folder)
        appended = (*corpus.manifest.appended, source) if source else corpus.manifest.appended
        manifest = replace(corpus.manifest, summary=summary, appended=appended)
        tables = (table for table in tables if table.num_rows)
        same = tokenizer.state == corpus.tokenizer.state and tokenizer.schema == corpus.tokenizer.schema
        with_part(folder, manifest, tables, None if same else tokenizer, quarantine, onward).write(folder)
    return Corpus.open(folder)


def compact(folder: str | Path, schema: EventSchema | None = None) -> Corpus:
    """Write all parts as one, so that reading is as fast as after one `write_corpus`; the old ones go.

    A process that holds the corpus open finds its files gone, and opens it again.

    Args:
        schema: a later revision of the corpus's, under which it is from then on.

    Raises:
        CorpusError: no corpus, or one that another process is appending to.
        SchemaError: `schema` is no later revision.
    """
    folder = Corpus.open(folder).folder
    with alone(folder), writing(folder):
        corpus = Corpus.open(folder)
        corpus.manifest.clear(folder)
        read = corpus if schema is None or schema == corpus.tokenizer.schema else corpus.under(schema)
        if len(corpus.parts) > 1 or read is not corpus:
            tokenizer, there = None if read is corpus else read.tokenizer, len(corpus.parts)
            onward = Onward(read._opened(), read_keys(folder / path for path in corpus.manifest.keys))
            manifest = with_part(folder, corpus.manifest, read._everything(), tokenizer, None, onward)
            manifest = replace(manifest, parts=manifest.parts[there:], open=manifest.open[there:])
            manifest = replace(manifest, keys=manifest.keys[len(corpus.manifest.keys) :])
            manifest.write(folder)
            manifest.clear(folder)
    return Corpus.open(folder)


@dataclass(frozen=True, eq=False)
class Corpus:
    """A tokenized log. folder: where it lies. manifest: what corpus.json said. revised: the later revision it is read
    under, if any."""

    folder: Path
    manifest: Manifest
    revised: EventSchema | None = None

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """Open a corpus; tokens and tokenizer are read when asked for.

        Raises:
            CorpusError: no such folder, no corpus, or one of a newer version.
        """
        folder = Path(folder)
        if not folder.exists() and beside(folder, "old").exists():
            folder = beside(folder, "old")  # a replacement was cut off between its two renames
        return cls(folder, Manifest.read(folder))

    @property
    def format(self) -> Format:
        """Of its tokens."""
        return self.manifest.format

    @property
    def summary(self) -> Mapping[str, Any]:
        """What tokenizing said."""
        return self.manifest.summary

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The files of the tokens, the oldest first."""
        parts = tuple(open_part(self.folder / path) for path in self.manifest.parts)
        told = translation(self._written, self.tokenizer) if self.revised else None
        return parts if told is None else tuple(RevisedPart(part, told) for part in parts)

    def under(self, schema: EventSchema) -> Corpus:
        """The same tokens read under a later revision; nothing is written. SchemaError: as `evolution.changes` says."""
        under(self._written, schema)
        return replace(self, revised=schema)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made these tokens; of several the newest, which reads the tokens of all."""
        return self._written if self.revised is None else under(self._written, self.revised)

    @cached_property
    def _written(self) -> Tokenizer:
        return Tokenizer.load(self.folder / self.manifest.tokenizer)

    @property
    def split(self) -> Split:
        """Where training data ends."""
        return self.tokenizer.split

    @property
    def quarantine(self) -> pa.Table:
        """Rows of the log that were refused, as text, with a column `reason`."""
        with self._reading():
            tables = [pq.read_table(self.folder / path) for path in self.manifest.quarantine]
            return pa.concat_tables(tables, promote_options="default")

    @property
    def user_ids(self) -> pa.Array:
        """[u] all users, in the order of the rows, which is that of the ids."""
        return self._places[0]

    def tokens(self, columns: list[str] | None = None) -> pa.Table:
        """All rows, as `Tokenizer.transform` describes them; of the columns named, where some are."""
        return pa.concat_tables([self._schema(columns).empty_table(), *self.scan(columns=columns)])

    def users(self, ids: pa.Array, columns: list[str] | None = None) -> pa.Table:
        """The rows of the users asked for, in that order; users without a row are left out."""
        users, place = self._find(ids)
        schema = self._schema(columns)
        return self._rows(users, self._joinable(schema)).select(schema.names).take(pa.array(place))

    def ends(self, ids: pa.Array) -> pa.Table:
        """What going on with users needs to know of what they did before the groups that are open; users without
        a token are left out.

        However many are asked for, the histories of a few thousand are in memory at a time.

        Returns:
            Columns user_id, first, last, groups and open, as of `rows.ends_of`.
        """
        users, place = self._find(ids)
        schema = self._schema(["user_id", "time", "group"]).append(_OPEN)
        begins = range(0, max(len(users), 1), _ENDS)
        found = pa.concat_tables([ends_of(self._rows(users[begin : begin + _ENDS], schema)) for begin in begins])
        found = found.combine_chunks().take(pa.array(place))
        return found.filter(pc.greater(pc.add(found["groups"], found["open"]), 0)).combine_chunks()

    def open_events(self, ids: pa.Array) -> pa.Table:
        """The events of the open groups of these users, as `events.stored` has them."""
        users, _ = self._find(ids)
        return pa.concat_tables(self._opened(users), promote_options="default")

    def has_keys(self, keys: Longs) -> Mask:
        """[n] whether each of the keys of event ids (`events.keys`) is of an event that the corpus has."""
        distinct, place = np.unique(keys, return_inverse=True)
        found = np.zeros(len(distinct), np.bool_)
        with self._reading():
            for path in self.manifest.keys:
                found |= known_keys(self.folder / path, distinct)
        return found[place]

    def _opened(self, users: Longs | None = None) -> Iterator[pa.Table]:
        """The events of the open groups of some users, or of all, file by file."""
        users = np.arange(len(self.user_ids)) if users is None else users
        newest = newest_part(users, [place.user for place in self._places[1]])
        yield pa.table({})
        for path in filter(None, dict.fromkeys(self.manifest.open)):
            numbers = [number for number, other in enumerate(self.manifest.open) if other == path]
            with self._reading():
                table = read_open(self.folder / path, self.user_ids.take(pa.array(users[np.isin(newest, numbers)])))
            yield table if self.revised is None else revised(table, self._written.schema, self.revised)

    def _find(self, ids: pa.Array) -> tuple[Longs, Longs]:
        """Numbers of the users who have a row, each once and ascending; and where those asked for are among them."""
        codes = self._everyone.encode(ids)
        users, place = np.unique(codes[codes >= FIRST].astype(np.int64) - FIRST, return_inverse=True)
        return users, place

    def _rows(self, users: Longs, schema: pa.Schema) -> pa.Table:
        """One row for each of these users, whose numbers ascend."""
        with self._reading():
            found = [(part, *placed.find(users)) for part, placed in zip(self.parts, self._places[1], strict=True)]
            tables = [complete(part.take(rows, read_as(schema, part.schema)), schema) for part, rows, _ in found]
            return join(tables, [user for _, _, user in found])

    def scan(
        self, rank: int = 0, ranks: int = 1, batch_users: int = _BATCH, columns: list[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of one rank, in the order of ids; those of all ranks are all rows, each once.

        The corpus is read once: only where ranks meet may two read the same row group. Besides the ids, no more is
        held than the rows of a batch and a row group a part.

        Args:
            rank: 0 to `ranks` - 1.
            batch_users: rows of a table at most.
            columns: by default all.
        """
        if not 0 <= rank < ranks or batch_users < 1:
            raise ValueError(f"rank {rank} of {ranks} in batches of {batch_users} users")
        schema = self._schema(columns)
        for table in self._scan(rank, ranks, batch_users, self._joinable(schema)):
            yield table.select(schema.names)

    def _everything(self) -> Iterator[pa.Table]:
        """What compacting writes: all rows with how much of each is open."""
        schema = self._schema(None).append(_OPEN)
        return itertools.chain([schema.empty_table()], self._scan(0, 1, _BATCH, schema))

    def _scan(self, rank: int, ranks: int, batch_users: int, schema: pa.Schema) -> Iterator[pa.Table]:
        places = self._places[1]
        low, high = self._border(rank, ranks), self._border(rank + 1, ranks)
        cuts = np.append(np.arange(low, high, batch_users), high)
        with self._reading():
            streams = [stream_users(part, place, cuts, schema) for part, place in zip(self.parts, places, strict=True)]
            for found in zip(*streams, strict=True):
                yield join([table for table, _ in found], [user for _, user in found])

    def _border(self, rank: int, ranks: int) -> int:
        """The first user of a rank: where a row group of the largest part begins, if that is near an equal share."""
        share = len(self.user_ids) * rank // ranks
        if rank in (0, ranks) or share == 0:
            return share
        part, place = max(zip(self.parts, self._places[1], strict=True), key=lambda pair: pair[0].rows)
        starts = place.user[part.borders]
        near = int(starts[np.argmin(np.abs(starts - share))])
        return near if abs(near - share) * ranks * 8 <= len(self.user_ids) else share

    @cached_property
    def _places(self) -> tuple[pa.Array, tuple[Place, ...]]:
        """All users, and where each part has which."""
        with self._reading():
            return place_users([read_ids(part) for part in self.parts])

    @cached_property
    def _everyone(self) -> Vocabulary:
        """A user's code tells the number."""
        return Vocabulary(self.user_ids, np.zeros(0, np.int64), np.zeros(0))

    @cached_property
    def _fields(self) -> dict[str, pa.Field]:
        """Every column that a part has, those of the newest first."""
        with self._reading():
            fields = {field.name: field for part in reversed(self.parts) for field in part.schema}
        fields.pop(OPEN, None)
        return {**fields, "user_id": pa.field("user_id", self.user_ids.type)}

    def _schema(self, columns: Sequence[str] | None) -> pa.Schema:
        """Of some columns: those that a part has, and the facets of the tokenizer that none has yet."""
        if columns is None:
            return pa.schema(self._fields.values())
        return pa.schema([self._fields.get(name) or self._facet(name) for name in columns])

    def _joinable(self, schema: pa.Schema) -> pa.Schema:
        """The same with what tells how rows of several parts are joined, where there are such."""
        several = len(self.parts) > 1 and any(OPEN in part.schema.names for part in self.parts)
        return schema.append(_OPEN) if several else schema

    def _facet(self, name: str) -> pa.Field:
        told = self.tokenizer
        kinds = {f"user.{attribute}": pa.int32() for attribute in told.users.sizes}
        kinds |= {facet.name: pa.list_(pa.int32()) for facet in told.facets}
        kinds |= {f"{facet.name}.value": pa.list_(pa.float64()) for facet in told.facets if facet.kind in _MEASURED}
        if name not in kinds:
            raise CorpusError(f"{self.folder} has no column {name!r}; {nearest(name, [*self._fields, *kinds])}")
        return pa.field(name, kinds[name])

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            raise CorpusError(f"{self.folder}: its tokens can't be read: {first_line(error)}") from error
