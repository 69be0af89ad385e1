"""Rows of an event table → events; rows that make no sense → quarantine, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization import clock
from tokenization.arrays import Floats, Longs, Mask
from tokenization.errors import SourceError
from tokenization.events import Events
from tokenization.ids import Ids, as_type, one_chunk
from tokenization.rules import FacetRule, Kind
from tokenization.schema import EventSchema
from tokenization.sources import require

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def clean(table: pa.Table, schema: EventSchema) -> tuple[Events, pa.Table]:
    """Sort sound events from rows that make no sense.

    Args:
        table: with at least the columns of `schema`.

    Returns:
        The sound events; and the others as a table of strings with one more column, `reason`.

    Raises:
        SourceError: a column is missing, or its type can't hold what the schema says.
    """
    require(table.column_names, schema.columns, "the event table")
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
