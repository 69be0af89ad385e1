"""Which of a user's adjacent groups are one: events about one item that follow one another soon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Longs, Mask
from tokenization.events.events import Events
from tokenization.events.grouping import Groups, uninterrupted
from tokenization.ids import Ids, as_type
from tokenization.merging.pairs import PairTable
from tokenization.schema.event_schema import EventSchema


@dataclass(frozen=True, eq=False)
class ItemClass:
    """The class of each item that has one: ids [d], and classes [d] as text."""

    ids: pa.Array
    classes: pa.Array

    def of(self, items: Ids) -> Ids:
        """[n] the class of each row's item."""
        place = pc.index_in(as_type(items.values, self.ids.type), value_set=self.ids)
        classes = Ids.of(self.classes.take(place), "class")
        return Ids(classes.values, np.append(classes.index, np.int32(-1))[items.index])


@dataclass(frozen=True, eq=False)
class Symbols:
    """s units of a user's life as the table of pairs reads them.

    start: [s] the group that begins each. action, item_class: [s] of each. follows: [s] whether it may join the unit
    before.
    """

    start: Longs
    action: Ids
    item_class: Ids
    follows: Mask


def repeats(schema: EventSchema, events: Events, groups: Groups) -> Mask:
    """[g] groups that repeat the one before: same action, same item, within the declared gap."""
    within = schema.merge.same_item_within
    if within is None:
        return np.zeros(len(groups.time), np.bool_)
    again = follows(schema, events, groups, within)
    if schema.action is not None:
        done = events.ids["action"].index[_event_of(groups)]
        again[1:] &= done[1:] == done[:-1]
    return again


def symbols(schema: EventSchema, events: Events, groups: Groups, repeated: Mask, classes: ItemClass | None) -> Symbols:
    """What the table of pairs reads: a group and those that repeat it are one symbol."""
    assert schema.merge.pairs is not None
    start = np.flatnonzero(~repeated)
    event = _event_of(groups)[start]
    items = events.ids[schema.candidates].take(event)
    none = Ids(pa.array([], pa.string()), np.full(len(start), -1, np.int32))
    may = follows(schema, events, groups, schema.merge.pairs.within)[start]
    return Symbols(start, events.ids["action"].take(event), none if classes is None else classes.of(items), may)


def continues(
    schema: EventSchema, events: Events, groups: Groups, pairs: PairTable | None, classes: ItemClass | None
) -> Mask:
    """[g] groups that are one token with the group before."""
    found = repeats(schema, events, groups)
    if pairs is not None:
        read = symbols(schema, events, groups, found, classes)
        found[read.start[pairs.joins(read.action, read.item_class, read.follows)]] = True
    return found


def follows(schema: EventSchema, events: Events, groups: Groups, within: float) -> Mask:
    """[g] groups of one event about what the user's group before is about, of one event too, and soon after it.

    Nothing else may have begun in between: what was complete when a group began is not continued after that.
    """
    about = _about(schema, events)[_event_of(groups)]
    alone = np.bincount(groups.of_event, minlength=len(about)) == 1
    near = np.nan_to_num(groups.time - groups.previous, nan=np.inf) <= within
    alike = np.zeros(len(about), np.bool_)
    alike[1:] = (about[1:] == about[:-1]) & (about[1:] >= 0) & alone[1:] & alone[:-1]
    return np.asarray(alike & near & uninterrupted(groups))


def _event_of(groups: Groups) -> Longs:
    """[g] an event of each group: the only one, where it has one."""
    event = np.zeros(len(groups.time), np.int64)
    event[groups.of_event] = np.arange(len(groups.of_event))
    return event


def _about(schema: EventSchema, events: Events) -> Longs:
    """[n] a number for the entity of each event, -1 where it has none."""
    about, before = np.full(len(events), -1, np.int64), 0
    for name in schema.entities:
        column = events.ids[name]
        about = np.where(column.missing, about, column.index.astype(np.int64) + before)
        before += len(column.values)
    return about
