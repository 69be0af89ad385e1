"""Files of one format each, read in batches that fit into memory whatever the file.

A table says what types its columns have, and how many rows there are, before it is read: Parquet, Arrow and Lance
know; of CSV and JSON lines, where only the values tell, it takes a look through the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from tokenization.errors import SourceError, first_line
from tokenization.ids import WHOLE_NUMBER
from tokenization.sources.columns import Types, joint, require
from tokenization.sources.files import File
from tokenization.sources.texts import READERS, UNREAD

BATCH = 131_072
"""Rows of a batch, at most."""
_PAGES = 1 << 20
"""Bytes of a column of Parquet that are read at a time."""


class Stored(Protocol):
    """A table that can be read again and again, batch by batch."""

    @property
    def name(self) -> str:
        """As whoever gave it would write it."""

    @property
    def rows(self) -> int:
        """How many there are."""

    @property
    def types(self) -> Types:
        """Of the columns asked for; null where a column holds nothing. Of `UNREAD`, where it has such rows."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some of these columns, in the order of the rows; of CSV and JSON, types may be any that hold the values."""


@dataclass(frozen=True)
class InMemory:
    """A table that is in memory already."""

    table: pa.Table
    name: str

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    @property
    def types(self) -> Types:
        return {column.name: column.type for column in self.table.schema}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        table = self.table.select(list(columns))
        return (table.slice(start, BATCH) for start in range(0, len(table), BATCH))


@dataclass(frozen=True)
class Typed:
    """A file of a format that knows its types: `look` says types of all its columns and the number of rows."""

    file: File
    columns: Sequence[str]
    look: Callable[[File], tuple[pa.Schema, int]]
    read: Callable[[File, list[str]], Iterator[pa.Table]]

    @property
    def name(self) -> str:
        return self.file.name

    @cached_property
    def _seen(self) -> tuple[pa.Schema, int]:
        with reading(self.file):
            schema, rows = self.look(self.file)
        require(schema.names, self.columns, self.name)
        return schema, rows

    @property
    def rows(self) -> int:
        return self._seen[1]

    @property
    def types(self) -> Types:
        return {name: self._seen[0].field(name).type for name in self.columns}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        with reading(self.file):
            yield from self.read(self.file, list(columns))


@dataclass(frozen=True)
class Text:
    """A file of text, whose types are known when all of it was seen. `keep`: what was parsed for that is not parsed
    again. Where some rows can't be read, it has one more column, `UNREAD`, and nothing in the others of these rows."""

    file: File
    columns: Sequence[str]
    read: Callable[[File, list[str]], Iterator[pa.Table]]
    keep: bool
    kept: list[pa.Table] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.file.name

    @cached_property
    def _seen(self) -> tuple[Types, int]:
        kinds: dict[str, set[pa.DataType]] = {}
        rows = 0
        with reading(self.file):
            for batch in self.read(self.file, list(self.columns)):
                for name in batch.column_names:
                    kinds.setdefault(name, set()).add(_told_by(batch.column(name)))
                rows += batch.num_rows
                if self.keep:
                    self.kept.append(batch)
        if kinds.keys() - {UNREAD}:
            require(kinds.keys() - {UNREAD}, self.columns, self.name)
        told = [*self.columns, *([UNREAD] if UNREAD in kinds else [])]
        return {name: joint(kinds.get(name, {pa.null()})) for name in told}, rows

    @property
    def rows(self) -> int:
        return self._seen[1]

    @property
    def types(self) -> Types:
        return self._seen[0]

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        with reading(self.file):
            for batch in self.kept or self.read(self.file, [name for name in columns if name != UNREAD]):
                yield selected(batch, columns)


def selected(batch: pa.Table, columns: Sequence[str]) -> pa.Table:
    """These columns in this order; one that the batch does not have is null."""
    absent = pa.nulls(batch.num_rows)
    return pa.table({name: batch.column(name) if name in batch.column_names else absent for name in columns})


@contextmanager
def reading(file: File) -> Iterator[None]:
    """Whatever goes wrong inside is told as one sentence that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{file.name} can't be read as {file.format}: {first_line(error)}") from error


@dataclass(frozen=True)
class Known:
    """A table whose types and rows were found before, maybe by another process."""

    part: Stored
    types: Types
    rows: int

    @property
    def name(self) -> str:
        return self.part.name

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        return self.part.batches(columns)


def open_file(file: File, columns: Sequence[str], keep: bool) -> Stored:
    """One file, to be read for these columns. `keep`: see `Text`."""
    if file.format in READERS:
        return Text(file, columns, READERS[file.format], keep)
    look, read = _TYPED[file.format]
    return Typed(file, columns, look, read)


def _told_by(column: pa.ChunkedArray) -> pa.DataType:
    """What a batch says about the type of a column of text: whole numbers where all are, and would be written the
    same again."""
    if column.null_count == len(column):
        return pa.null()
    if not pa.types.is_string(column.type):
        return column.type
    whole = pc.all(pc.match_substring_regex(column, WHOLE_NUMBER)).as_py()
    return pa.int64() if whole else column.type


def _look_parquet(file: File) -> tuple[pa.Schema, int]:
    with pyarrow.parquet.ParquetFile(file.path, filesystem=file.system) as opened:
        return opened.schema_arrow, opened.metadata.num_rows


def _parquet(file: File, columns: list[str]) -> Iterator[pa.Table]:
    # From a disk, page by page; from afar a row group at once, since every request costs time.
    ahead: dict[str, Any] = {"pre_buffer": False, "buffer_size": _PAGES} if file.is_local else {"pre_buffer": True}
    with pyarrow.parquet.ParquetFile(file.path, filesystem=file.system, **ahead) as opened:
        for batch in opened.iter_batches(BATCH, columns=columns):
            yield pa.table(batch)


def _ipc_reader(file: File, options: pa.ipc.IpcReadOptions) -> pa.ipc.RecordBatchFileReader:
    source = pa.memory_map(file.path) if file.is_local else file.system.open_input_file(file.path)
    return pa.ipc.open_file(source, options=options)


def _is_stream(file: File) -> bool:
    """Arrow writes files and streams, both often named .arrow."""
    with file.system.open_input_stream(file.path, compression=None) as source:
        return bool(source.read(4) == b"\xff\xff\xff\xff")


def _look_ipc(file: File) -> tuple[pa.Schema, int]:
    if _is_stream(file):
        with pa.ipc.open_stream(file.system.open_input_stream(file.path)) as stream:
            return stream.schema, sum(batch.num_rows for batch in stream)
    with _ipc_reader(file, pa.ipc.IpcReadOptions(included_fields=[0])) as counted:
        rows = sum(counted.get_batch(i).num_rows for i in range(counted.num_record_batches))
    with _ipc_reader(file, pa.ipc.IpcReadOptions()) as opened:
        return opened.schema, rows


def _ipc(file: File, columns: list[str]) -> Iterator[pa.Table]:
    names = _look_names(file)
    options = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns])
    if _is_stream(file):
        with pa.ipc.open_stream(file.system.open_input_stream(file.path), options=options) as stream:
            for batch in stream:
                yield from InMemory(pa.table(batch), file.name).batches(columns)
        return
    with _ipc_reader(file, options) as opened:
        for number in range(opened.num_record_batches):
            yield from InMemory(pa.table(opened.get_batch(number)), file.name).batches(columns)


def _look_names(file: File) -> list[str]:
    opener = pa.ipc.open_stream if _is_stream(file) else pa.ipc.open_file
    with file.system.open_input_file(file.path) as source, opener(source) as opened:
        return list(opened.schema.names)


def _dataset(file: File) -> Any:
    import lance

    return lance.dataset(file.path if file.is_local else file.name)


def _look_lance(file: File) -> tuple[pa.Schema, int]:
    dataset = _dataset(file)
    return dataset.schema, dataset.count_rows()


def _lance(file: File, columns: list[str]) -> Iterator[pa.Table]:
    for batch in _dataset(file).to_batches(columns=columns, batch_size=BATCH):
        yield pa.table(batch)


_TYPED: Mapping[str, tuple[Any, Any]] = {
    "parquet": (_look_parquet, _parquet),
    "ipc": (_look_ipc, _ipc),
    "lance": (_look_lance, _lance),
}
