"""Tables in; rows that make no sense to quarantine, each with its reason.

A table is a path (Parquet, Arrow/Feather, CSV, JSON lines, Lance; a file or a folder of them) or what is in
memory already: Arrow, pandas, polars, anything with the Arrow stream interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet

from tokenization import clock
from tokenization.arrays import Floats, Longs, Mask
from tokenization.errors import SourceError, nearest
from tokenization.events import Events
from tokenization.ids import WHOLE_NUMBER, Ids, as_type, column_of, one_chunk
from tokenization.rules import FacetRule, ItemsRule, Kind
from tokenization.schema import EventSchema

TableLike = object
"""A path, or a table in memory: pyarrow, pandas, polars, or any object with `__arrow_c_stream__`."""

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
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


def clean(table: pa.Table, schema: EventSchema) -> tuple[Events, pa.Table]:
    """Sort sound events from rows that make no sense.

    Args:
        table: with at least the columns of `schema`.

    Returns:
        The sound events; and the others as a table of strings with one more column, `reason`.

    Raises:
        SourceError: a column is missing, or its type can't hold what the schema says.
    """
    _require(table.column_names, schema.columns, "the event table")
    columns = {name: one_chunk(table.column(name)) for name in schema.columns}
    users = Ids.of(columns[schema.user], schema.user)
    ids = {name: Ids.of(columns[column], column) for name, column in _id_columns(schema).items()}
    numbers = {n: numbers_of(columns[r.column]) for n, r in _number_rules(schema)}
    times = _times(columns[schema.clock], schema, ids.get("action"))
    declared = Ids.of(columns[schema.group], schema.group) if schema.group else None
    faults = _faults(schema, columns, users, times, ids, numbers)
    reason = np.zeros(len(times), np.int32)
    for number, (_, rows) in reversed(list(enumerate(faults, start=1))):
        reason[rows] = number
    events = Events(users, times, declared, ids, {n: np.where(np.isfinite(v), v, np.nan) for n, v in numbers.items()})
    bad = np.flatnonzero(reason)
    if len(bad) == 0:
        return events, _quarantine(table, schema, bad, [])
    told = [faults[number - 1][0] for number in reason[bad]]
    return events.take(reason == 0), _quarantine(table, schema, bad, told)


def _faults(
    schema: EventSchema,
    columns: Mapping[str, pa.Array],
    users: Ids,
    times: Floats,
    ids: Mapping[str, Ids],
    numbers: Mapping[str, Floats],
) -> list[tuple[str, Mask]]:
    """Every reason to refuse a row with the rows it holds for; the first that holds is the one told."""
    no_stamp = pc.is_null(columns[schema.clock], nan_is_null=True).to_numpy(zero_copy_only=False)
    entities = sum((~ids[name].missing).astype(np.int8) for name in schema.entities)
    faults: list[tuple[str, Mask]] = [
        (f"{schema.user} is missing", users.missing),
        (f"{schema.clock} is missing", no_stamp),
        (f"{schema.clock} is no time", np.isnan(times)),
        ("more than one entity", np.asarray(entities > 1)),
    ]
    for name, rule in _number_rules(schema):
        given = pc.is_valid(columns[rule.column]).to_numpy(zero_copy_only=False)
        faults.append((f"{rule.column} is no finite number", given & ~np.isfinite(numbers[name])))
    return faults


def _id_columns(schema: EventSchema) -> dict[str, str]:
    """Facet name → column of everything that is encoded by a vocabulary."""
    columns = {"action": schema.action.column} if schema.action else {}
    columns |= {name: rule.column for name, rule in schema.entities.items()}
    for rules in (schema.context, schema.outcome):
        columns |= {name: rule.column for name, rule in rules.items() if rule.kind is Kind.CATEGORY}
    return columns


def _number_rules(schema: EventSchema) -> list[tuple[str, FacetRule]]:
    rules = [*schema.context.items(), *schema.outcome.items()]
    return [(name, rule) for name, rule in rules if rule.kind is Kind.NUMBER]


def _times(column: pa.Array, schema: EventSchema, actions: Ids | None) -> Floats:
    if schema.time is None:
        return numbers_of(column)
    day_level = np.zeros(len(column), np.bool_)
    if schema.action and schema.action.day_level and actions is not None:
        named = as_type(pa.array(schema.action.day_level), actions.values.type)
        members = pc.is_in(actions.values, value_set=named.drop_null()).to_numpy(zero_copy_only=False)
        day_level = np.append(members, False)[actions.index]
    return clock.instants(column, schema.time.unit, schema.time.zone, day_level)


def numbers_of(column: pa.Array) -> Floats:
    """[n] float64; NaN where there is none, and where what is there is no number."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return numbers_of(column.dictionary_decode())
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        sound = pc.match_substring_regex(text, _NUMBER)
        column = pc.if_else(sound, text, pa.scalar(None, pa.string()))
    try:
        floats = column.cast(pa.float64(), safe=False)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise SourceError(f"a column of {kind} can't be read as numbers; declare another kind or cast it") from None
    return np.asarray(pc.fill_null(floats, np.nan).to_numpy(zero_copy_only=False))


def _quarantine(table: pa.Table, schema: EventSchema, rows: Longs, reasons: list[str]) -> pa.Table:
    if len(rows) == 0:
        return pa.table({name: pa.array([], pa.string()) for name in (*schema.columns, "reason")})
    bad = table.select(list(schema.columns)).take(pa.array(rows))
    texts = {name: _as_text(bad.column(name)) for name in bad.column_names}
    return pa.table({**texts, "reason": pa.array(reasons, pa.string())})


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pa.chunked_array([pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())])


def _table(source: TableLike, columns: tuple[str, ...], what: str) -> pa.Table:
    if not isinstance(source, str | Path):
        table = _in_memory(source)
        _require(table.column_names, columns, f"the {what} table")
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


def _require(given: Iterable[str], needed: Iterable[str], where: str) -> None:
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
        _require(file.schema_arrow.names, columns, str(path))
        return file.read(columns=list(columns))


def _read_ipc(path: Path, columns: tuple[str, ...]) -> pa.Table:
    table = pyarrow.feather.read_table(path)
    _require(table.column_names, columns, str(path))
    return table.select(list(columns))


def _read_csv(path: Path, columns: tuple[str, ...]) -> pa.Table:
    # Left to guess, a CSV reader makes 7 of the id "007" and nothing of the country "NA".
    with pyarrow.csv.open_csv(path) as reader:
        _require(reader.schema.names, columns, str(path))
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
    _require(table.column_names, columns, str(path))
    return table.select(list(columns))


def _read_lance(path: Path, columns: tuple[str, ...]) -> pa.Table:
    import lance

    dataset = lance.dataset(str(path))
    _require(dataset.schema.names, columns, str(path))
    return dataset.to_table(columns=list(columns))


_READERS: Mapping[str, Callable[[Path, tuple[str, ...]], pa.Table]] = {
    "parquet": _read_parquet,
    "ipc": _read_ipc,
    "csv": _read_csv,
    "json": _read_json,
    "lance": _read_lance,
}
