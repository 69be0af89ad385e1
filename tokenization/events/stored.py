"""Events as a table that is kept, and back: what `clean` found sound is not judged again when it is read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tokenization.arrays import Floats, Vectors
from tokenization.errors import SourceError
from tokenization.events.columns import bags_of_lists, vectors_of
from tokenization.events.events import Bags, Events
from tokenization.ids import Ids, as_type, one_chunk
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import Kind

USER, TIME, GROUP = "user", "time", "group"
_TEXT, _TEXTS, _VECTOR = pa.string(), pa.list_(pa.string()), pa.list_(pa.float32())


def to_table(events: Events) -> pa.Table:
    """n events as n rows, whose columns have one type whatever the log holds: ids are text.

    Returns:
        Columns user, time (seconds since 1970 UTC, or positions), group where the schema declares one, and by kind
        and facet `id.<name>`, `number.<name>`, `stamp.<name>`, `members.<name>` and `vector.<name>`; null = absent.
    """
    columns: dict[str, pa.Array] = {USER: _text(events.users), TIME: pa.array(events.times)}
    if events.declared is not None:
        columns[GROUP] = _text(events.declared)
    columns |= {f"id.{name}": _text(column) for name, column in events.ids.items()}
    for kind, numbers in (("number", events.numbers), ("stamp", events.stamps)):
        columns |= {f"{kind}.{name}": pa.array(values, mask=np.isnan(values)) for name, values in numbers.items()}
    columns |= {f"members.{name}": _lists_of(bags) for name, bags in events.bags.items()}
    columns |= {f"vector.{name}": _lists_of_floats(vectors) for name, vectors in events.vectors.items()}
    return pa.table(columns)


def from_table(table: pa.Table, schema: EventSchema, users: pa.DataType) -> Events:
    """What `to_table` made a table of; a facet of the schema that the table lacks is absent.

    Args:
        users: the type that their ids have.
    """

    def column(name: str, kind: pa.DataType = _TEXT) -> pa.Array:
        return one_chunk(table.column(name)) if name in table.column_names else pa.nulls(table.num_rows, kind)

    def floats(name: str) -> Floats:
        return np.asarray(column(name, pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False))

    def of(*kinds: Kind) -> list[str]:
        return [name for name, rule in schema.facets.items() if rule.kind in kinds]

    named = [*(["action"] if schema.action else []), *schema.entities, *of(Kind.CATEGORY, Kind.ID)]
    return Events(
        Ids.of(as_type(column(USER), users), schema.user),
        floats(TIME),
        Ids.of(column(GROUP), schema.group) if schema.group else None,
        {name: Ids.of(column(f"id.{name}"), name) for name in named},
        {name: floats(f"number.{name}") for name in of(Kind.NUMBER, Kind.DURATION)},
        {name: floats(f"stamp.{name}") for name in of(Kind.TIMESTAMP)},
        {name: bags_of_lists(column(f"members.{name}", _TEXTS), name) for name in of(Kind.SET, Kind.TEXT)},
        {name: vectors_of(column(f"vector.{name}", _VECTOR), name) for name in of(Kind.VECTOR)},
        schema.longest_pause,
    )


def joined(first: Events, second: Events) -> Events:
    """Events of one schema, those of `first` before those of `second`.

    Raises:
        SourceError: a facet has vectors of one length in the one and of another in the other.
    """
    if not len(first):
        return second
    return Events(
        _both(first.users, second.users),
        np.concatenate([first.times, second.times]),
        None if first.declared is None or second.declared is None else _both(first.declared, second.declared),
        {name: _both(column, second.ids[name]) for name, column in first.ids.items()},
        {name: np.concatenate([values, second.numbers[name]]) for name, values in first.numbers.items()},
        {name: np.concatenate([values, second.stamps[name]]) for name, values in first.stamps.items()},
        {name: _both_bags(bags, second.bags[name]) for name, bags in first.bags.items()},
        {name: _both_vectors(name, vectors, second.vectors[name]) for name, vectors in first.vectors.items()},
        second.pause,
    )


def _text(column: Ids) -> pa.Array:
    return column.decode().cast(_TEXT)


def _lists_of(bags: Bags) -> pa.Array:
    row, member = bags.of_rows()
    sizes = np.bincount(row, minlength=len(bags.index))
    offsets = pa.array(np.append(0, np.cumsum(sizes)), pa.int32())
    members = _text(bags.members.take(member))
    return pa.ListArray.from_arrays(offsets, members, type=_TEXTS, mask=pa.array(bags.index < 0))


def _lists_of_floats(vectors: Vectors) -> pa.Array:
    given = np.isfinite(vectors).all(axis=1) & (vectors.shape[1] > 0)
    offsets = pa.array(np.append(0, np.cumsum(given * vectors.shape[1])), pa.int32())
    flat = pa.array(vectors[given].ravel(), pa.float32())
    return pa.ListArray.from_arrays(offsets, flat, type=_VECTOR, mask=pa.array(~given))


def _both(first: Ids, second: Ids) -> Ids:
    if not len(first.values) or not len(second.values):
        return Ids(first.values if len(first.values) else second.values, np.concatenate([first.index, second.index]))
    kind = first.values.type if first.values.type == second.values.type else _TEXT
    told = pa.concat_arrays([first.values.cast(kind), second.values.cast(kind)]).dictionary_encode()
    place = np.append(told.indices.to_numpy(), np.int32(-1))
    later = np.where(second.missing, len(told), second.index + len(first.values))
    return Ids(told.dictionary, place[np.concatenate([np.where(first.missing, len(told), first.index), later])])


def _both_bags(first: Bags, second: Bags) -> Bags:
    later = np.where(second.index < 0, -1, second.index + len(first.offsets) - 1).astype(np.int32)
    offsets = np.concatenate([first.offsets, second.offsets[1:] + first.offsets[-1]])
    return Bags(np.concatenate([first.index, later]), offsets, _both(first.members, second.members))


def _both_vectors(name: str, first: Vectors, second: Vectors) -> Vectors:
    widths = first.shape[1], second.shape[1]
    if widths[0] != widths[1] and min(widths) > 0:
        raise SourceError(
            f"{name!r} holds vectors of length {widths[1]}, where earlier events have {widths[0]}; "
            "give those of the same encoder"
        )
    whole = np.full((len(first) + len(second), max(widths)), np.nan, np.float32)
    whole[: len(first), : widths[0]], whole[len(first) :, : widths[1]] = first, second
    return whole
