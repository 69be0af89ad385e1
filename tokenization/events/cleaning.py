"""Rows of an event table → events; rows that make no sense → quarantine, each with its reason; nothing in silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Codes, Floats, Longs, Mask
from tokenization.errors import SourceError
from tokenization.events import clock
from tokenization.events.columns import bags_of_lists, bags_of_texts, numbers_of, vectors_of
from tokenization.events.events import Bags, Events
from tokenization.events.keys import keys_of
from tokenization.ids import Ids, one_chunk
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import FacetRule, Kind
from tokenization.sources.columns import require
from tokenization.sources.texts import UNREAD

LONGEST_ID = 1024
"""Bytes. Whatever is longer is no id but a payload that went astray."""
_WORTH_THREADS = 100_000
"""Rows: of 1.5 million, threads look ids up in .7 of the time, of 50,000 in the same, of 50 in four times as much."""
A_DAY = 86_400.0
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_CONTROL = r"[\x00-\x1f\x7f]"
_TOLD = ("reason", "as_written")
"""Columns of the quarantine; the log's own of these names stand there with a _ behind."""


Known = Callable[[Longs], Mask]
"""Tells which keys [n] of event ids were there before."""


@dataclass(frozen=True, eq=False)
class Keys:
    """Event ids of k rows that have one, as 8 bytes each (`keys.keys_of`). rows: [k] which rows. values: [k]."""

    rows: Longs
    values: Longs


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What became of a table's rows: n sound events, quarantined rows (text, with a column `reason`; where some rows of
    the log can't be read, with a column `as_written`), rows dropped by rule. rows: [n] which row each
    event was. keys: of the event ids of those that are sound."""

    events: Events
    quarantined: pa.Table
    dropped: Mapping[str, int]
    rows: Longs
    keys: Keys


def clean(table: pa.Table, schema: EventSchema, now: float | None = None, known: Known | None = None) -> Cleaned:
    """Sort sound events from rows that make no sense, and leave out what the schema drops.

    Args:
        table: with at least the columns of `schema`.
        now: seconds since 1970 UTC, by default this moment; a stamp more than a day later is refused.
        known: tells which keys of event ids were there before this table.

    Raises:
        SourceError: a column is missing, or its type can't hold what the schema says.
    """
    require(table.column_names, schema.columns, "the event table")
    if UNREAD in table.column_names:
        return _clean_read(table, schema, now, known)
    columns = {name: one_chunk(table.column(name)) for name in schema.columns}
    events = _events(columns, schema)
    event_ids = Ids.of(columns[schema.event_id], schema.event_id) if schema.event_id else None
    faults = list(_faults(schema, columns, events, event_ids, time.time() if now is None else now))
    reason = np.zeros(len(events), np.int32)
    for number, (_, rows) in reversed(list(enumerate(faults, start=1))):
        if rows.any():
            reason[rows] = number
    keys = Keys(np.zeros(0, np.int64), np.zeros(0, np.int64))
    if event_ids is not None:  # of a row that makes no sense, the one that corrects it is no repetition
        sound = np.flatnonzero((reason == 0) & ~event_ids.missing)
        again = _repeated(events.users.take(sound), event_ids.take(sound))
        key = keys_of(events.users.take(sound), event_ids.take(sound))
        again |= np.False_ if known is None else known(key)
        faults.append((f"{schema.event_id} is there twice", np.zeros(0, np.bool_)))
        reason[sound[again]] = len(faults)
        keys = Keys(sound[~again], key[~again])
    bad = np.flatnonzero(reason)
    drop = dropped(schema, events)
    keep = reason == 0
    counts: dict[str, int] = {}
    for name, rows in drop.items():
        if count := int(np.count_nonzero(rows & keep)):
            counts[name] = count
        keep &= ~rows
    told = [faults[number - 1][0] for number in reason[bad]]
    kept = events if keep.all() else events.take(keep)
    return Cleaned(kept, quarantine(table, schema, bad, told), counts, np.flatnonzero(keep), keys)


def _clean_read(table: pa.Table, schema: EventSchema, now: float | None, known: Known | None) -> Cleaned:
    """The same of a table with rows that can't be read, which are quarantined first."""
    read = table[UNREAD].is_null()
    found = clean(table.filter(read).drop_columns([UNREAD]), schema, now, known)
    lost = table.filter(table[UNREAD].is_valid())
    told = lost[UNREAD].combine_chunks()
    refused = quarantine(lost, schema, np.arange(lost.num_rows), told.field("reason").to_pylist())
    refused = refused.append_column("as_written", told.field("text"))
    quarantined = pa.concat_tables([found.quarantined, refused], promote_options="default")
    place = np.flatnonzero(read.to_numpy())
    keys = replace(found.keys, rows=place[found.keys.rows])
    return replace(found, quarantined=quarantined, rows=place[found.rows], keys=keys)


def _events(columns: Mapping[str, pa.Array], schema: EventSchema) -> Events:
    """All rows as events, whether they make sense or not."""
    named = {name: rule for name, rule in schema.facets.items() if rule.kind in (Kind.CATEGORY, Kind.ID)}
    told = {"action": schema.action.column} if schema.action else {}
    told |= {name: entity.column for name, entity in schema.entities.items()}
    told |= {name: rule.column for name, rule in named.items()}
    group = [schema.group] if schema.group else []
    found = _ids({name: columns[name] for name in (schema.user, *group, *told.values())})
    ids = {name: found[column] for name, column in told.items()}
    if schema.action:
        ids["action"] = ids["action"].renamed(schema.action.aliases)
    for name, rule in named.items():
        ids[name] = ids[name].renamed(rule.aliases)
    times = _times(columns[schema.clock], schema, ids.get("action"))
    rest = {name: rule for name, rule in schema.facets.items() if name not in named}
    facets = read_facets(rest, columns, len(times), schema.time.zone if schema.time else "UTC")
    return replace(
        facets,
        users=found[schema.user],
        times=times,
        declared=found[schema.group] if schema.group else None,
        ids=ids,
        pause=schema.longest_pause,
    )


def _ids(columns: Mapping[str, pa.Array]) -> dict[str, Ids]:
    """Columns of ids, which in a log are most of the work; Arrow looks them up without holding other threads up."""
    if len(next(iter(columns.values()))) < _WORTH_THREADS:
        return {name: Ids.of(column, name) for name, column in columns.items()}
    with ThreadPoolExecutor() as threads:
        return dict(zip(columns, threads.map(Ids.of, columns.values(), columns), strict=True))


def read_facets(rules: Mapping[str, FacetRule], columns: Mapping[str, pa.Array], rows: int, zone: str) -> Events:
    """Declared facets of n rows, of which nothing else is told: whose they are, when, about what.

    Args:
        columns: [n] by column name. zone: of stamps that are a day.

    Raises:
        SourceError: a column's type can't hold what the rule says.
    """
    ids, numbers, stamps, bags, vectors = {}, {}, {}, {}, {}
    for name, rule in rules.items():
        column = columns[rule.column]
        match rule.kind:
            case Kind.CATEGORY | Kind.ID:
                ids[name] = Ids.of(column, rule.column).renamed(rule.aliases)
            case Kind.NUMBER:
                numbers[name] = numbers_of(column)
            case Kind.DURATION:
                numbers[name] = numbers_of(column) * SECONDS[rule.unit]
            case Kind.TIMESTAMP:
                stamps[name] = clock.instants(column, rule.unit, zone, np.zeros(rows, np.bool_))
            case Kind.SET:
                bags[name] = bags_of_lists(column, rule.column)
            case Kind.TEXT:
                bags[name] = bags_of_texts(column, rule.column, rule.most)
            case Kind.VECTOR:
                vectors[name] = vectors_of(column, rule.column)
    nobody = Ids(pa.array([], pa.string()), np.full(rows, -1, np.int32))
    return Events(nobody, np.full(rows, np.nan), None, ids, numbers, stamps, bags, vectors)


def _faults(
    schema: EventSchema, columns: Mapping[str, pa.Array], events: Events, event_ids: Ids | None, now: float
) -> Iterator[tuple[str, Mask]]:
    """Every reason to refuse a row with the rows it holds for; the first that holds is the one told."""
    yield f"{schema.user} is missing", events.users.missing
    yield f"{schema.clock} is missing", _not(pc.is_valid(columns[schema.clock]), columns[schema.clock])
    yield f"{schema.clock} is no time", ~np.isfinite(events.times)
    if schema.time is not None:
        latest = schema.time.latest.timestamp() if schema.time.latest else now + A_DAY
        with np.errstate(invalid="ignore"):
            yield f"{schema.clock} lies in the future", events.times > latest
    yield "more than one entity", entities_of(schema, events) > 1
    named = [*_named(schema, events), *([(str(schema.event_id), event_ids)] if event_ids else [])]
    for name, column in named:
        yield f"{name} is longer than {LONGEST_ID} bytes", column.where(_too_long(column.values))
        yield f"{name} holds control characters", column.where(_control(column.values))
    for name, rule in _rules(schema, Kind.SET):
        bags = events.bags[name]
        yield f"{rule.column} is longer than {LONGEST_ID} bytes", _some(bags, _too_long(bags.members.values))
        yield f"{rule.column} holds control characters", _some(bags, _control(bags.members.values))
    for name, rule in (*_rules(schema, Kind.NUMBER), *_rules(schema, Kind.DURATION)):
        given = pc.is_valid(columns[rule.column]).to_numpy(zero_copy_only=False)
        yield f"{rule.column} is no finite number", given & ~np.isfinite(events.numbers[name])
        if rule.kind is Kind.DURATION:
            with np.errstate(invalid="ignore"):
                yield f"{rule.column} is a negative duration", events.numbers[name] < 0
    for name, rule in _rules(schema, Kind.TIMESTAMP):
        given = pc.is_valid(columns[rule.column]).to_numpy(zero_copy_only=False)
        yield f"{rule.column} is no time", given & np.isnan(events.stamps[name])
    for name, rule in _rules(schema, Kind.VECTOR):
        given = pc.is_valid(columns[rule.column]).to_numpy(zero_copy_only=False)
        yield f"{rule.column} is no vector of finite numbers", given & ~np.isfinite(events.vectors[name]).all(axis=1)


def _not(valid: pa.Array, column: pa.Array) -> Mask:
    """Rows without a value; NaN is none."""
    missing = ~valid.to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        missing |= pc.fill_null(pc.is_nan(column), True).to_numpy(zero_copy_only=False)
    return np.asarray(missing)


def entities_of(schema: EventSchema, events: Events) -> Codes:
    """[n] how many entities each event is about."""
    count = np.zeros(len(events), np.int32)
    for name in schema.entities:
        count += events.ids[name].index >= 0
    return count


def _named(schema: EventSchema, events: Events) -> Iterator[tuple[str, Ids]]:
    """Every column of ids, by the name it has in the log."""
    yield schema.user, events.users
    if schema.group and events.declared is not None:
        yield schema.group, events.declared
    for name, column in events.ids.items():
        if name == "action":
            assert schema.action is not None
            yield schema.action.column, column
        else:
            yield (schema.entities.get(name) or schema.facets[name]).column, column


def _some(bags: Bags, odd: Mask) -> Mask:
    """[n] rows of which some member is odd."""
    rows = np.zeros(len(bags.index), np.bool_)
    if odd.any():
        row, member = bags.of_rows()
        rows[row[bags.members.where(odd)[member]]] = True
    return rows


def _too_long(values: pa.Array) -> Mask:
    if not pa.types.is_string(values.type):
        return np.zeros(len(values), np.bool_)
    return np.asarray(pc.binary_length(values).to_numpy(zero_copy_only=False) > LONGEST_ID)


def _control(values: pa.Array) -> Mask:
    if not pa.types.is_string(values.type):
        return np.zeros(len(values), np.bool_)
    return np.asarray(pc.match_substring_regex(values, _CONTROL).to_numpy(zero_copy_only=False))


def _repeated(users: Ids, ids: Ids) -> Mask:
    """Rows whose id an earlier row of the same user has; other users may be in other parts of the log."""
    pairs = users.index.astype(np.int64) * (len(ids.values) + 1) + ids.index
    seen = pc.dictionary_encode(pa.array(pairs))
    first = np.full(len(seen.dictionary), -1)
    rows, place = np.arange(len(pairs)), seen.indices.to_numpy()
    first[place[::-1]] = rows[::-1]
    return np.asarray((first[place] != rows) & ~ids.missing)


def dropped(schema: EventSchema, events: Events) -> dict[str, Mask]:
    """Rows that the schema drops, by the facet and the value that it names."""
    found: dict[str, Mask] = {}
    for name, values in schema.drop.items():
        column = events.ids[name]
        for value in values:
            same = pc.equal(column.values.cast(pa.string()), value).to_numpy(zero_copy_only=False)
            found[f"{name} {value}"] = column.where(np.asarray(same, np.bool_))
    return found


def _rules(schema: EventSchema, kind: Kind) -> list[tuple[str, FacetRule]]:
    return [(name, rule) for name, rule in schema.facets.items() if rule.kind is kind]


def _times(column: pa.Array, schema: EventSchema, actions: Ids | None) -> Floats:
    if schema.time is None:
        return numbers_of(column)
    day_level = np.zeros(len(column), np.bool_)
    if schema.action and schema.action.day_level and actions is not None:
        day_level = of_day_level(actions, schema.action.day_level)
    return clock.instants(column, schema.time.unit, schema.time.zone, day_level)


def of_day_level(actions: Ids, names: Sequence[str]) -> Mask:
    """[n] rows whose action is known to the day only."""
    return actions.where(np.array([str(action) in names for action in actions.values.to_pylist()], np.bool_))


def quarantine(table: pa.Table, schema: EventSchema, rows: Longs, reasons: list[str]) -> pa.Table:
    """Some rows of an event table as text, each with the reason [rows] why it is refused."""
    named = {f"{name}_" if name in _TOLD else name: name for name in schema.columns}
    if len(rows) == 0:
        return pa.table({name: pa.array([], pa.string()) for name in (*named, "reason")})
    bad = table.select(list(schema.columns)).take(pa.array(rows))
    texts = {name: _as_text(bad.column(column)) for name, column in named.items()}
    return pa.table({**texts, "reason": pa.array(reasons, pa.string())})


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pa.chunked_array([pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())])


def refuse(cleaned: Cleaned) -> Events:
    """The events, where every row was sound.

    Raises:
        SourceError: some were not; it tells the first reason.
    """
    if bad := cleaned.quarantined.num_rows:
        why = cleaned.quarantined["reason"][0].as_py()
        raise SourceError(f"{bad} of {bad + len(cleaned.events)} events make no sense, the first: {why}")
    return cleaned.events
