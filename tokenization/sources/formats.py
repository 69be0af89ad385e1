"""Files of one format each, read in batches that fit into memory whatever the file.

A table says what types its columns have, and how many rows there are, before it is read: Parquet, Arrow and Lance
know; of CSV and JSON lines, where only the values tell, it takes a look through the file.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from tokenization.errors import SourceError, nearest
from tokenization.ids import WHOLE_NUMBER
from tokenization.sources.files import File

BATCH = 131_072
"""Rows of a batch, at most."""
_BLOCK = 8 << 20
"""Bytes of text that are parsed at a time."""
_PAGES = 1 << 20
"""Bytes of a column of Parquet that are read at a time."""

Types = dict[str, pa.DataType]


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
        """Of the columns asked for; null where a column holds nothing."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some of these columns, in the order of the rows; of CSV and JSON, types may be any that hold the values."""


def require(given: Iterable[str], needed: Iterable[str], where: str) -> None:
    """Each needed column is given, and once.

    Raises:
        SourceError: one is not, naming the nearest that is.
    """
    names = list(given)
    for name in needed:
        if name not in names:
            raise SourceError(f"{where} has no column {name!r}; {nearest(name, names)}")
        if names.count(name) > 1:
            raise SourceError(f"{where} has column {name!r} {names.count(name)} times; rename all but one")


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
        with _reading(self.file):
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
        with _reading(self.file):
            yield from self.read(self.file, list(columns))


@dataclass(frozen=True)
class Text:
    """A file of text, whose types are known when all of it was seen. `keep`: what was parsed for that is not parsed
    again."""

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
        with _reading(self.file):
            for batch in self.read(self.file, list(self.columns)):
                for name in batch.column_names:
                    kinds.setdefault(name, set()).add(_told_by(batch.column(name)))
                rows += batch.num_rows
                if self.keep:
                    self.kept.append(batch)
        if rows:
            require(kinds, self.columns, self.name)
        return {name: _joint(kinds.get(name, {pa.null()})) for name in self.columns}, rows

    @property
    def rows(self) -> int:
        return self._seen[1]

    @property
    def types(self) -> Types:
        return self._seen[0]

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        with _reading(self.file):
            for batch in self.kept or self.read(self.file, list(columns)):
                absent = pa.nulls(batch.num_rows)
                yield pa.table({n: batch.column(n) if n in batch.column_names else absent for n in columns})


@contextmanager
def _reading(file: File) -> Iterator[None]:
    """Whatever goes wrong inside is told as one sentence that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise SourceError(f"{file.name} can't be read as {file.format}: {said}") from error


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
    if file.format in _TEXTS:
        return Text(file, columns, _TEXTS[file.format], keep)
    look, read = _TYPED[file.format]
    return Typed(file, columns, look, read)


def unified(kinds: Iterable[pa.DataType]) -> pa.DataType | None:
    """The type that holds values of all these types, None where only text does."""
    fields = [pa.schema([("", kind)]) for kind in sorted(kinds, key=str)]
    try:
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowTypeError:
        return None


def _joint(kinds: Iterable[pa.DataType]) -> pa.DataType:
    kind = unified(kinds)
    return pa.string() if kind is None else kind


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


def _csv(file: File, columns: list[str]) -> Iterator[pa.Table]:
    # Left to guess, a CSV reader makes 7 of the id "007" and nothing of the country "NA".
    with _opened(file) as source, pyarrow.csv.open_csv(source) as header:
        require(header.schema.names, columns, file.name)
    blocks = pyarrow.csv.ReadOptions(block_size=_BLOCK)
    options = pyarrow.csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
    )
    with _opened(file) as source, pyarrow.csv.open_csv(source, read_options=blocks, convert_options=options) as rows:
        for batch in rows:
            yield pa.table(batch)


def _opened(file: File) -> Any:
    return file.system.open_input_stream(file.path)  # what ends in .gz is unpacked on the way


def _json(file: File, columns: list[str]) -> Iterator[pa.Table]:
    times: set[str] = set()
    line = 1
    with _opened(file) as source:
        for block in _whole_lines(source):
            yield _parsed(block, times, line)
            line += block.count(b"\n")
    if line == 1:
        raise ValueError("it is empty")


def _whole_lines(source: IO[bytes]) -> Iterator[bytes]:
    rest: list[bytes] = []
    while chunk := source.read(_BLOCK):
        whole, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield b"".join((*rest, whole, newline))
            rest = []
        rest.append(tail)
    if any(rest):
        yield b"".join(rest)


def _parsed(block: bytes, times: set[str], line: int) -> pa.Table:
    """A block of JSON lines. What looks like a time in one block may be a name in the next, so it stays text."""
    if not block.strip():
        return pa.table({})
    try:
        table = _from_json(block, times)
        found = {field.name for field in table.schema if pa.types.is_timestamp(field.type)}
        if not found:
            return table
        times |= found
        return _from_json(block, times)
    except pa.ArrowInvalid:
        return _by_line(block, line)


def _from_json(block: bytes, texts: set[str]) -> pa.Table:
    told = pa.schema([(name, pa.string()) for name in sorted(texts)])
    return pyarrow.json.read_json(
        pa.BufferReader(block),
        read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=told),
    )


def _by_line(block: bytes, first: int) -> pa.Table:
    """The same where one column holds numbers and text, which Arrow refuses: that column becomes text."""
    rows: list[Mapping[str, object]] = []
    for number, text in enumerate(block.splitlines(), start=first):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no object; write one {{...}} a line")
        rows.append(row)
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[object]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([_told(value) for value in values], pa.string())


def _told(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)


_TYPED: Mapping[str, tuple[Any, Any]] = {
    "parquet": (_look_parquet, _parquet),
    "ipc": (_look_ipc, _ipc),
    "lance": (_look_lance, _lance),
}
_TEXTS: Mapping[str, Callable[[File, list[str]], Iterator[pa.Table]]] = {"csv": _csv, "json": _json}
