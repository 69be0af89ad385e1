"""One user's last events as plain Python values → events, without the detour over a table.

Only rows in which nothing is odd are read here; whatever else somebody sends goes through `cleaning.clean`, which
gives the same events, and says what is wrong with a row. Nothing is decided twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import itemgetter
from types import NoneType

import numpy as np
import pyarrow as pa

from tokenization.arrays import Floats, Mask
from tokenization.events import clock
from tokenization.events.cleaning import A_DAY, SECONDS, clean, dropped, entities_of, of_day_level, read_facets, refuse
from tokenization.events.events import Events
from tokenization.ids import Ids
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import FacetRule, Kind
from tokenization.sources.tables import from_rows, read_events

Rows = Sequence[Mapping[str, object]]
Column = Sequence[object]
_NOTHING = pa.array([], pa.string())
"""What a column without any value is to `clean`, which reads it from an array of nulls."""
_WHOLE = pa.int64()
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
A_FEW = 1024
"""Rows of a table that is read value by value."""
_ODD = re.compile(r"[\x00-\x1f\x7f]")
_LONG = 256
"""Characters; a longer id may be too long in bytes, which `clean` counts."""


class _Odd(Exception):
    """Something that only `clean` can judge."""


def events_of(rows: Rows, schema: EventSchema) -> Events:
    """Rows as mappings of column → value; what is left out is absent, and what the schema drops is left out.

    Raises:
        SourceError: a key that is no column, values that no column can hold together, or a row that makes no sense.
    """
    if rows:
        with suppress(_Odd, TypeError, ValueError, OverflowError, pa.ArrowException):
            return _plain(_columns(rows, schema.columns), schema)
    return refuse(clean(from_rows(rows, schema), schema))


def events_of_table(table: pa.Table, schema: EventSchema) -> Events:
    """The same of a small table; columns that the schema does not name are fine.

    Raises:
        SourceError: a column is missing, or a row makes no sense.
    """
    names = table.column_names
    if table.num_rows and all(names.count(name) == 1 for name in schema.columns):
        with suppress(_Odd, TypeError, ValueError, OverflowError, pa.ArrowException):
            return _plain({name: table.column(name).to_pylist() for name in schema.columns}, schema)
    return refuse(clean(read_events(table, schema), schema))


def _plain(columns: Mapping[str, Column], schema: EventSchema) -> Events:
    if schema.event_id:
        raise _Odd
    users = _ids(columns[schema.user])
    ids = {name: _ids(columns[rule.column]) for name, rule in schema.entities.items()}
    day_level = np.zeros(len(users.index), np.bool_)
    if schema.action:
        ids = {"action": _ids(columns[schema.action.column]).renamed(schema.action.aliases), **ids}
        if schema.action.day_level:
            day_level = of_day_level(ids["action"], schema.action.day_level)
    times = _times(columns[schema.clock], schema, day_level)
    declared = _ids(columns[schema.group]) if schema.group else None
    numbers: dict[str, Floats] = {}
    rest: dict[str, FacetRule] = {}
    for name, rule in schema.facets.items():
        match rule.kind:
            case Kind.CATEGORY | Kind.ID:
                ids[name] = _ids(columns[rule.column]).renamed(rule.aliases)
            case Kind.NUMBER:
                numbers[name] = _numbers(columns[rule.column])
            case Kind.DURATION:
                numbers[name] = _positive(_numbers(columns[rule.column]) * SECONDS[rule.unit])
            case _:
                rest[name] = rule
    events = Events(users, times, declared, ids, numbers)
    if rest:
        events = _with(events, rest, columns, schema.time.zone if schema.time else "UTC")
    if users.missing.any() or (len(schema.entities) > 1 and (entities_of(schema, events) > 1).any()):
        raise _Odd
    out = dropped(schema, events)
    return events.take(~np.logical_or.reduce(list(out.values()))) if out else events


def _columns(rows: Rows, names: Sequence[str]) -> dict[str, Column]:
    if set(map(len, rows)) == {len(names)}:
        with suppress(KeyError):
            return dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))
    if not frozenset(names).issuperset(chain.from_iterable(rows)):
        raise _Odd
    return {name: [row.get(name) for row in rows] for name in names}


def _with(events: Events, rules: Mapping[str, FacetRule], columns: Mapping[str, Column], zone: str) -> Events:
    """The same events with facets that are no single id and no number."""
    arrays = {rule.column: pa.array(columns[rule.column]) for rule in rules.values()}
    read = read_facets(rules, arrays, len(events), zone)
    for name, rule in rules.items():
        given = np.array([value is not None for value in columns[rule.column]])
        found = read.stamps.get(name, np.zeros(len(events)))
        vectors = read.vectors.get(name, np.zeros((len(events), 1), np.float32))
        if (given & ~(np.isfinite(found) & np.isfinite(vectors).all(axis=1))).any():
            raise _Odd
    return replace(events, stamps=read.stamps, bags=read.bags, vectors=read.vectors)


def _times(values: Column, schema: EventSchema, day_level: Mask) -> Floats:
    if schema.time is None:
        times = _numbers(values)
        if np.isnan(times).any():
            raise _Odd
        return times
    plain = None if day_level.any() else _instants(values)
    zone, unit = schema.time.zone, schema.time.unit
    times = clock.instants(pa.array(values), unit, zone, day_level) if plain is None else plain
    latest = schema.time.latest.timestamp() if schema.time.latest else time.time() + A_DAY
    if not (times <= latest).all():  # which NaN is not either
        raise _Odd
    return times


def _instants(values: Column) -> Floats | None:
    """Seconds since 1970 UTC of datetimes that all have a zone, or all have none; None of anything else."""
    if set(map(type, values)) != {datetime}:
        return None
    zones = {value.tzinfo is None for value in values}  # type: ignore[attr-defined]
    if len(zones) > 1:
        return None
    begin = _BEGIN.replace(tzinfo=None) if zones.pop() else _BEGIN
    return np.array([(value - begin) / _SECOND for value in values])  # type: ignore[operator]


def _ids(values: Column) -> Ids:
    """Distinct whole numbers, or distinct texts, in the order of first sight."""
    if values.count(None) == len(values):
        return Ids(_NOTHING, np.full(len(values), -1, np.int32))
    distinct = dict.fromkeys(values)
    distinct.pop(None, None)
    place: dict[object, int] = {value: number for number, value in enumerate(distinct)}
    place[None] = -1
    index = np.fromiter(map(place.__getitem__, values), np.int32, len(values))
    kinds = set(map(type, distinct))
    if kinds == {str}:
        if "" in distinct or any(len(text) > _LONG or _ODD.search(text) for text in distinct):  # type: ignore[arg-type, call-overload]
            raise _Odd
        return Ids(pa.array(list(distinct), pa.string()), index)
    if kinds - {int}:
        raise _Odd
    numbers = np.array(list(distinct), np.int64)
    return Ids(pa.Array.from_buffers(_WHOLE, len(numbers), [None, pa.py_buffer(numbers)]), index)


def _numbers(values: Column) -> Floats:
    kinds = set(map(type, values))
    if kinds - {int, float, NoneType}:
        raise _Odd
    numbers = np.array(values, np.float64)  # None becomes NaN
    if np.count_nonzero(np.isfinite(numbers)) + values.count(None) < len(values):
        raise _Odd
    return numbers


def _positive(numbers: Floats) -> Floats:
    if (numbers < 0).any():
        raise _Odd
    return numbers
