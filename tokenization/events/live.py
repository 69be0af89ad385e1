"""One user's last events as plain Python values → events, without the detour over a table.

Only rows in which nothing is odd are read here; whatever else somebody sends goes through `cleaning.clean`, which
gives the same events, and says what is wrong with a row. Nothing is decided twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from operator import itemgetter
from types import NoneType

import numpy as np
import pyarrow as pa

from tokenization.arrays import Codes, Floats, Mask
from tokenization.events import clock
from tokenization.events.cleaning import A_DAY, SECONDS, clean, dropped, entities_of, of_day_level, read_facets, refuse
from tokenization.events.events import Events
from tokenization.ids import Ids
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import FacetRule, Kind
from tokenization.sources.tables import from_rows, read_events

Rows = Sequence[Mapping[str, object]]
Column = Sequence[object]
Finder = Callable[[Column], Ids | None]
"""A column's values [n] over the ids of a vocabulary; None where it can't tell."""
_NOTHING = pa.array([], pa.string())
"""What a column without any value is to `clean`, which reads it from an array of nulls."""
_WHOLE = pa.int64()
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_BEGIN = _BEGIN.replace(tzinfo=None)
A_FEW = 1024
"""Rows of a table that is read value by value."""
_ODD = re.compile(r"[\x00-\x1f\x7f]")
_LONG = 256
"""Characters; a longer id may be too long in bytes, which `clean` counts."""


class _Odd(Exception):
    """Something that only `clean` can judge."""


def events_of(rows: Rows, schema: EventSchema, known: Mapping[str, Finder]) -> Events:
    """Rows as mappings of column → value; what is left out is absent, and what the schema drops is left out.

    Args:
        known: by facet what finds values that a vocabulary has at once, and most have it.

    Raises:
        SourceError: a key that is no column, values that no column can hold together, or a row that makes no sense.
    """
    if rows:
        with suppress(_Odd, TypeError, ValueError, OverflowError, pa.ArrowException):
            return _plain(_columns(rows, schema.columns), schema, known)
    return refuse(clean(from_rows(rows, schema), schema))


def events_of_table(table: pa.Table, schema: EventSchema, known: Mapping[str, Finder]) -> Events:
    """The same of a small table; columns that the schema does not name are fine.

    Raises:
        SourceError: a column is missing, or a row makes no sense.
    """
    names = table.column_names
    if table.num_rows and all(names.count(name) == 1 for name in schema.columns):
        with suppress(_Odd, TypeError, ValueError, OverflowError, pa.ArrowException):
            return _plain({name: table.column(name).to_pylist() for name in schema.columns}, schema, known)
    return refuse(clean(read_events(table, schema), schema))


def _plain(columns: Mapping[str, Column], schema: EventSchema, known: Mapping[str, Finder]) -> Events:
    if schema.event_id:
        raise _Odd
    users = _ids(columns[schema.user])
    ids = {name: _ids(columns[rule.column]) for name, rule in schema.entities.items()}
    day_level = np.zeros(len(users.index), np.bool_)
    if schema.action:
        ids = {"action": _codable("action", columns[schema.action.column], schema.action.aliases, known), **ids}
        if schema.action.day_level:
            day_level = of_day_level(ids["action"], schema.action.day_level)
    times = _times(columns[schema.clock], schema, day_level)
    declared = _ids(columns[schema.group]) if schema.group else None
    measured: dict[str, FacetRule] = {}
    rest: dict[str, FacetRule] = {}
    for name, rule in schema.facets.items():
        match rule.kind:
            case Kind.CATEGORY | Kind.ID:
                ids[name] = _codable(name, columns[rule.column], rule.aliases, known)
            case Kind.NUMBER | Kind.DURATION:
                measured[name] = rule
            case _:
                rest[name] = rule
    numbers = dict(zip(measured, _numbers([columns[rule.column] for rule in measured.values()]), strict=True))
    for name, rule in measured.items():
        if rule.kind is Kind.DURATION:
            numbers[name] = _positive(numbers[name] * SECONDS[rule.unit])
    events = Events(users, times, declared, ids, numbers, pause=schema.longest_pause)
    if rest:
        events = _with(events, rest, columns, schema.time.zone if schema.time else "UTC")
    about = sum(len(ids[name].values) > 0 for name in schema.entities)
    if None in columns[schema.user] or (about > 1 and (entities_of(schema, events) > 1).any()):
        raise _Odd
    out = dropped(schema, events)
    return events.take(~np.logical_or.reduce(list(out.values()))) if out else events


def _codable(name: str, values: Column, aliases: Mapping[str, str], known: Mapping[str, Finder]) -> Ids:
    """What is only ever asked for its codes. Ids that are renamed are in no vocabulary."""
    found = known[name](values) if name in known and not aliases else None
    return _ids(values).renamed(aliases) if found is None else found


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
        (times,) = _numbers([values])
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
    begin = _BEGIN if values[0].tzinfo else _NAIVE_BEGIN  # type: ignore[attr-defined]
    # Those with and those without a zone have no difference: a TypeError.
    return np.array([(value - begin).total_seconds() for value in values])  # type: ignore[operator]


def _ids(values: Column) -> Ids:
    """Distinct whole numbers, or distinct texts, in the order of first sight."""
    if values.count(values[0]) == len(values):  # one user's rows have a column or two like this
        return Ids(_NOTHING if values[0] is None else _distinct(values[:1]), _index_of_one(values))
    distinct = dict.fromkeys(values)
    distinct.pop(None, None)
    place: dict[object, int] = {value: number for number, value in enumerate(distinct)}
    place[None] = -1
    return Ids(_distinct(list(distinct)), np.array(itemgetter(*values)(place), np.int32))


def _index_of_one(values: Column) -> Codes:
    return np.full(len(values), -1 if values[0] is None else 0, np.int32)


def _distinct(values: Column) -> pa.Array:
    """Ids that differ, all whole numbers or all text."""
    kinds = set(map(type, values))
    if kinds == {str}:
        texts: list[str] = list(values)  # type: ignore[arg-type]
        if not all(texts) or max(map(len, texts)) > _LONG or _ODD.search("".join(texts)):
            raise _Odd
        return pa.array(texts, pa.string())
    if kinds - {int}:
        raise _Odd
    numbers = np.array(values, np.int64)
    return pa.Array.from_buffers(_WHOLE, len(numbers), [None, pa.py_buffer(numbers)])


def _numbers(columns: Sequence[Column]) -> list[Floats]:
    """The columns as floats, NaN where there is no value; all in one go, since each call to NumPy has its price."""
    kinds = set(map(type, chain.from_iterable(columns)))
    if kinds - {int, float, NoneType}:
        raise _Odd
    numbers = np.array(columns, np.float64)  # None becomes NaN
    absent = sum(values.count(None) for values in columns) if NoneType in kinds else 0
    if np.count_nonzero(np.isfinite(numbers)) + absent < numbers.size:
        raise _Odd
    return list(numbers)


def _positive(numbers: Floats) -> Floats:
    if (numbers < 0).any():
        raise _Odd
    return numbers
