"""Tables in.

A table is a path (Parquet, Arrow/Feather, CSV, JSON lines, Lance; a file or a folder of them) or what is in
memory already: Arrow, pandas, polars, anything with the Arrow stream interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet

from tokenization.errors import SourceError, nearest
from tokenization.ids import WHOLE_NUMBER, column_of
from tokenization.rules import ItemsRule, UsersRule
from tokenization.schema import EventSchema

TableLike = object
"""A path, or a table in memory: pyarrow, pandas, polars, or any object with `__arrow_c_stream__`."""

_FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".feather": "ipc",
    ".ipc": "ipc",
    ".csv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".lance": "lance",
}


def read_events(source: TableLike, schema: EventSchema) -> pa.Table:
    """The columns of an event table that `schema` declares.

    Raises:
        SourceError: can't be read, a declared column is missing, or a file has no rows.
    """
    return _table(source, schema.columns, "event")


def read_items(source: TableLike, schema: EventSchema) -> pa.Table:
    """The columns of the items table that `schema.items` declares.

    Raises:
        SourceError: as `read_events`; also where the schema declares no items.
    """
    rule = items_rule(schema)
    return _table(source, tuple(dict.fromkeys((rule.id, *rule.categories, *rule.text))), "item")


def read_users(source: TableLike, schema: EventSchema) -> pa.Table:
    """The columns of the users table that `schema.users` declares.

    Raises:
        SourceError: as `read_events`; also where the schema declares no users.
    """
    rule = users_rule(schema)
    return _table(source, tuple(dict.fromkeys((rule.id, *rule.categories, *rule.numbers))), "user")


def users_rule(schema: EventSchema) -> UsersRule:
    """What the schema says of the users table.

    Raises:
        SourceError: it says nothing.
    """
    if schema.users is None:
        raise SourceError(f"schema {schema.name!r} declares no users; add a `users:` section, or give no users")
    return schema.users


def items_rule(schema: EventSchema) -> ItemsRule:
    """What the schema says of the items table.

    Raises:
        SourceError: it says nothing.
    """
    if schema.items is None:
        raise SourceError(f"schema {schema.name!r} declares no items; add an `items:` section, or give no items")
    return schema.items


def from_rows(rows: Sequence[Mapping[str, object]], schema: EventSchema) -> pa.Table:
    """Events written as mappings of column → value, for instance one user's newest; what is left out is
    absent.

    Raises:
        SourceError: a key that is no column of the schema, or values that no column can hold together.
    """
    known = set(schema.columns)
    for row in rows:
        for key in row:
            if key not in known:
                raise SourceError(f"no column of schema {schema.name!r} is called {key!r}; {nearest(key, known)}")
    return pa.table({name: column_of([row.get(name) for row in rows], name) for name in schema.columns})


def _table(source: TableLike, columns: tuple[str, ...], what: str) -> pa.Table:
    if not isinstance(source, str | Path):
        table = _in_memory(source)
        require(table.column_names, columns, f"the {what} table")
        return table.select(list(columns))
    table = _read(Path(source), columns)
    if table.num_rows == 0:
        raise SourceError(f"{source} has no rows; give a table with at least one {what}")
    return table


def _in_memory(source: object) -> pa.Table:
    if isinstance(source, pa.Table):
        return source
    try:
        return pa.table(source)
    except (TypeError, ValueError, pa.ArrowException):
        kind = type(source).__name__
        raise SourceError(f"a {kind} is no table; give a path, or a pyarrow, pandas or polars table") from None


def require(given: Iterable[str], needed: Iterable[str], where: str) -> None:
    names = list(given)
    for name in needed:
        if name not in names:
            raise SourceError(f"{where} has no column {name!r}; {nearest(name, names)}")
        if names.count(name) > 1:
            raise SourceError(f"{where} has column {name!r} {names.count(name)} times; rename all but one")


def _read(path: Path, columns: tuple[str, ...]) -> pa.Table:
    files = _files(path)
    tables = [_read_file(file, columns) for file in files]
    return pa.table({name: _joined([t.column(name) for t in tables], name, path) for name in columns})


def _joined(parts: list[pa.ChunkedArray], name: str, path: Path) -> pa.ChunkedArray:
    """One column out of several files; where their types differ, as the type that holds them all, or as text."""
    fields = [pa.schema([(name, part.type)]) for part in parts]
    try:
        kind = pa.unify_schemas(fields, promote_options="permissive").field(name).type
    except pa.ArrowTypeError:
        kind = pa.string()
    try:
        return pa.chunked_array([chunk for part in parts for chunk in part.cast(kind).chunks], kind)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        kinds = " and ".join(dict.fromkeys(str(part.type) for part in parts))
        raise SourceError(f"{path}: its files hold {name!r} as {kinds}; write one type everywhere") from error


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise SourceError(f"{path} doesn't exist; give a file or folder of Parquet, Arrow, CSV, JSON lines or Lance")
    if path.is_file() or _format(path) == "lance":
        return [path]
    files = sorted(p for p in path.rglob("*") if _format(p) and not p.name.startswith((".", "_")) and p.is_file())
    if not files:
        raise SourceError(f"{path} is a folder without a file named {', '.join(_FORMATS)}; give another")
    return files


def _format(path: Path) -> str | None:
    suffixes = [suffix for suffix in path.suffixes[-2:] if suffix != ".gz"]
    return _FORMATS.get(suffixes[-1].lower()) if suffixes else None


def _read_file(path: Path, columns: tuple[str, ...]) -> pa.Table:
    kind = _format(path)
    if kind is None:
        raise SourceError(f"{path}: the name must end in one of {', '.join(_FORMATS)} so that its format is known")
    try:
        return _READERS[kind](path, columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{path} can't be read as {kind}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _read_parquet(path: Path, columns: tuple[str, ...]) -> pa.Table:
    with pyarrow.parquet.ParquetFile(path) as file:
        require(file.schema_arrow.names, columns, str(path))
        return file.read(columns=list(columns))


def _read_ipc(path: Path, columns: tuple[str, ...]) -> pa.Table:
    table = pyarrow.feather.read_table(path)
    require(table.column_names, columns, str(path))
    return table.select(list(columns))


def _read_csv(path: Path, columns: tuple[str, ...]) -> pa.Table:
    # Left to guess, a CSV reader makes 7 of the id "007" and nothing of the country "NA".
    with pyarrow.csv.open_csv(path) as reader:
        require(reader.schema.names, columns, str(path))
    options = pyarrow.csv.ConvertOptions(
        include_columns=list(columns),
        column_types=dict.fromkeys(columns, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
    )
    table = pyarrow.csv.read_csv(path, convert_options=options)
    return pa.table({name: _whole_numbers(table.column(name)) for name in columns})


def _whole_numbers(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as int64 where all of it is whole numbers that would be written the same again."""
    whole = pc.all(pc.match_substring_regex(text, WHOLE_NUMBER), min_count=1).as_py()
    return text.cast(pa.int64()) if whole else text


def _read_json(path: Path, columns: tuple[str, ...]) -> pa.Table:
    table = pyarrow.json.read_json(path)
    require(table.column_names, columns, str(path))
    return table.select(list(columns))


def _read_lance(path: Path, columns: tuple[str, ...]) -> pa.Table:
    import lance

    dataset = lance.dataset(str(path))
    require(dataset.schema.names, columns, str(path))
    return dataset.to_table(columns=list(columns))


_READERS: Mapping[str, Callable[[Path, tuple[str, ...]], pa.Table]] = {
    "parquet": _read_parquet,
    "ipc": _read_ipc,
    "csv": _read_csv,
    "json": _read_json,
    "lance": _read_lance,
}
