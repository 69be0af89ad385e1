"""Files of text as tables, block by block: CSV and JSON lines.

A line that can't be read ends nothing: it is a row with no value, that tells in the column `UNREAD` what it was.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from tokenization.sources.columns import require
from tokenization.sources.files import File

UNREAD = "\0unread"
"""The column that says of a row that can't be read why (`reason`), what stands there (`text`), and in which `row` of
its file, the first being 1; null of the others.

A file's own column of that name is not read.
"""
LONGEST_TEXT = 1024
"""Characters that are kept of a row that can't be read."""
_KIND = pa.struct([("reason", pa.string()), ("text", pa.string()), ("row", pa.int64())])
_BLOCK = 8 << 20
"""Bytes of text that are parsed at a time."""
_MANY = 100_000
"""Rows that can't be read are told by so many, the rest of them after all others."""
_EXACT = 2.0**53
"""Whole numbers from here on may have lost digits as floats."""


Lost = tuple[str, str, int]
"""Of a row that can't be read: reason, text, row."""


def _unread(rows: list[Lost]) -> pa.Table:
    told = [{"reason": reason, "text": text[:LONGEST_TEXT], "row": row} for reason, text, row in rows]
    return pa.table({UNREAD: pa.array(told, _KIND)})


def csv_rows(file: File, columns: list[str]) -> Iterator[pa.Table]:
    """Some columns of a CSV file, all as text."""
    # Left to guess, a CSV reader makes 7 of the id "007" and nothing of the country "NA".
    with _opened(file) as source, pyarrow.csv.open_csv(source, parse_options=_parsing([])) as header:
        require(header.schema.names, columns, file.name)
    lost: list[Lost] = []
    options = pyarrow.csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
    )
    blocks = pyarrow.csv.ReadOptions(block_size=_BLOCK)
    try:
        with _opened(file) as source, pyarrow.csv.open_csv(source, blocks, _parsing(lost), options) as rows:
            for batch in rows:
                yield pa.table(batch)
                if len(lost) > _MANY:
                    yield _unread(_taken(lost, len(lost)))
    except pa.ArrowInvalid as error:
        if "straddling" not in str(error):
            raise
        raise ValueError(f"a row is longer than {_BLOCK:,} bytes; is a quotation mark not closed?") from error
    while lost:
        yield _unread(_taken(lost, _MANY))


def _parsing(lost: list[Lost]) -> pyarrow.csv.ParseOptions:
    """Rows with more cells than the header, or fewer, go to `lost`. It is Arrow's thread that puts them there."""

    def set_aside(row: pyarrow.csv.InvalidRow) -> str:
        cells = f"{row.actual_columns} cell{'' if row.actual_columns == 1 else 's'}"
        # A quotation mark that nothing closes takes the lines below with it.
        lines = ", over several lines" if "\n" in row.text else ""
        lost.append((f"has {cells}, the header has {row.expected_columns}{lines}", row.text[:LONGEST_TEXT], row.number))
        return "skip"

    return pyarrow.csv.ParseOptions(invalid_row_handler=set_aside, newlines_in_values=True)


def _taken(lost: list[Lost], number: int) -> list[Lost]:
    """The first of them, which are gone from the list; more may be put behind them meanwhile."""
    found = lost[:number]
    del lost[:number]
    return found


def _opened(file: File) -> Any:
    return file.system.open_input_stream(file.path)  # what ends in .gz is unpacked on the way


def json_rows(file: File, columns: list[str]) -> Iterator[pa.Table]:
    """All columns of a file of JSON lines; one may have other types in other blocks."""
    times: set[str] = set()
    rows = 0
    with _opened(file) as source:
        for block in _whole_lines(source):
            yield from _parsed(block, times, rows + 1)
            rows += block.count(b"\n") + (not block.endswith(b"\n"))
    if not rows:
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


def _parsed(block: bytes, times: set[str], first: int) -> Iterator[pa.Table]:
    """A block of JSON lines. first: the number of its first line.

    What looks like a time in one block may be a name in the next, so it stays text.
    """
    if not block.strip():
        return
    try:
        block.decode()  # Arrow does not look whether text in JSON is UTF-8
        table = _from_json(block, times)
        if found := {field.name for field in table.schema if pa.types.is_timestamp(field.type)}:
            times |= found
            table = _from_json(block, times)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        yield from _by_line(block, first)
        return
    if any(_rounded(column) for column in table.columns):
        yield from _by_line(block, first)
    else:
        yield _own(table)


def _own(table: pa.Table) -> pa.Table:
    return table.drop_columns([UNREAD]) if UNREAD in table.column_names else table


def _from_json(block: bytes, texts: set[str]) -> pa.Table:
    told = pa.schema([(name, pa.string()) for name in sorted(texts)])
    return pyarrow.json.read_json(
        pa.BufferReader(block),
        read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=told),
    )


def _rounded(column: pa.ChunkedArray) -> bool:
    """Whether whole numbers may have lost digits, since Arrow makes floats of those that stand beside fractions, and of
    those beyond 64 bits."""
    if pa.types.is_list(column.type):
        return _rounded(pc.list_flatten(column))
    return pa.types.is_float64(column.type) and bool(pc.any(pc.greater_equal(pc.abs(column), _EXACT)).as_py())


def _by_line(block: bytes, first: int) -> Iterator[pa.Table]:
    """The same where Arrow refuses the block: a column with numbers and text becomes text, what is no object a row that
    can't be read."""
    rows: list[Mapping[str, object]] = []
    lost: list[Lost] = []
    for number, line in enumerate(block.split(b"\n"), first):
        if not line.strip():
            continue
        row = _object(line)
        if isinstance(row, str):
            lost.append((row, line[: 4 * LONGEST_TEXT].decode(errors="replace"), number))
        else:
            rows.append(row)
    if rows:
        names = dict.fromkeys(itertools.chain.from_iterable(rows))
        yield _own(pa.table({name: _column([row.get(name) for row in rows]) for name in names}))
    if lost:
        yield _unread(lost)


def _object(line: bytes) -> Mapping[str, object] | str:
    """The object that a line holds, or why there is none."""
    try:
        row = json.loads(line)
        if rb"\ud" in line.lower():
            json.dumps(row, ensure_ascii=False).encode()  # half a surrogate is no letter
    except UnicodeError:
        return "is no UTF-8"
    except json.JSONDecodeError as error:
        return f"is no JSON: {error.msg.removesuffix(' at').lower()}"
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        return "is no JSON: a number is too long"
    except RecursionError:
        return "is no JSON: nested too deeply"
    return row if isinstance(row, dict) else "is no JSON object"


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


READERS: Mapping[str, Callable[[File, list[str]], Iterator[pa.Table]]] = {"csv": csv_rows, "json": json_rows}
"""By format. What a reader tells in several tables are the columns asked for, or `UNREAD`."""
