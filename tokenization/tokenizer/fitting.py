"""Fitting in parts: what is counted of each part before the split, joined exactly.

    moments   of every part, joined → the split (`split.resolve`)
    observe   every part, joined    → the tokenizer (`Tokenizer.of`)

A part holds whole users. However the log is cut into parts, the tokenizer is the same.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tokenization.codes.counting import Moments, Sample, Seen, Tally
from tokenization.errors import SchemaError, SourceError, nearest
from tokenization.events.events import Events
from tokenization.events.grouping import Groups, join
from tokenization.ids import Ids
from tokenization.merging.adjacency import ItemClass, follows, repeats, symbols
from tokenization.merging.pairs import Run, runs_of
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.tables import items_rule
from tokenization.tokenizer.encoding import merge_events, place_of
from tokenization.tokenizer.facets import merging_of
from tokenization.tokenizer.split import Split


@dataclass(frozen=True, eq=False)
class Observed:
    """What a part of the log teaches. events: how many lie before the split. actions: of the whole part, as text.

    seen: ids, members of sets and words of texts before the split, by facet; numbers and vectors likewise. runs: of
    actions on one item, where the schema learns pairs. users: [u] who have an event before the split, where the schema
    tells of users.
    """

    events: int
    actions: frozenset[str]
    seen: Mapping[str, Seen]
    numbers: Mapping[str, Tally]
    vectors: Mapping[str, Sample]
    runs: Counter[Run]
    users: pa.Array

    def __or__(self, other: Observed) -> Observed:
        """Both parts together."""
        return Observed(
            self.events + other.events,
            self.actions | other.actions,
            {name: seen | other.seen[name] for name, seen in self.seen.items()},
            {name: tally | other.numbers[name] for name, tally in self.numbers.items()},
            {name: sample | other.vectors[name] for name, sample in self.vectors.items()},
            self.runs + other.runs,
            _both(self.users, other.users),
        )


def grouped(schema: EventSchema, events: Events) -> Groups:
    """The groups that the split cuts between: those of the log, with declared repeats as one.

    What pairs will join is not known before they are learned. Where a split counts a user's last groups, whatever may
    be joined is one here, so that no event of a group that is held out is fitted on.
    """
    again = repeats(schema, events, events.groups)
    if schema.merge.pairs and schema.split.last_items is not None:
        again |= follows(schema, events, events.groups, schema.merge.pairs.within)
    return join(events.groups, again)


def moments(schema: EventSchema, events: Events) -> Moments:
    """When the events of a part took effect."""
    groups = grouped(schema, events)
    return Moments.of(groups.time[groups.of_event])


def observe(schema: EventSchema, split: Split, events: Events, items: pa.Table | None = None) -> Observed:
    """What a part of whole users teaches; of events at the split and after it, that their action exists.

    Args:
        items: the items table, where there is one; pairs go by its categories.
    """
    groups = grouped(schema, events)
    fitted = split.trains(groups)[groups.of_event]
    before, of_event = events.take(fitted), groups.of_event[fitted]
    times = groups.time[of_event]
    seen = {name: Seen.of(column, times) for name, column in before.ids.items()}
    for name, bags in before.bags.items():
        row, member = bags.of_rows()
        seen[name] = Seen.of(bags.members.take(member), times[row])
    place = place_of(schema, before, of_event, {})
    again = repeats(schema, events, events.groups)
    joined = again | np.append(again[1:], False)[: len(again)]
    merged = merge_events(
        schema, before, place, joined[events.groups.of_event][fitted], {}, before.numbers, merging_of(schema)
    )
    tallies = {name: Tally.of(values) for name, values in merged.numbers.items()}
    vectors = {name: Sample.of(values) for name, values in before.vectors.items()}
    runs = _runs(schema, before, items) if schema.merge.pairs else Counter()
    users = before.users.rank()[0] if schema.users else before.users.values.slice(0, 0)
    return Observed(len(before), _actions(schema, events), seen, tallies, vectors, runs, users)


def check(schema: EventSchema, observed: Observed) -> None:
    """See that what was observed can be fitted on.

    Raises:
        SourceError: no event lies before the split.
        SchemaError: an action known to the day is misspelt, so that it would leak into its day; or no event has an
            action that `feedback` weighs.
    """
    if schema.action is not None:
        # A misspelt action takes effect at the beginning of its day; one that is merely absent is fine.
        free = sorted(observed.actions.difference(schema.action.day_level))
        for name in schema.action.day_level:
            if name not in observed.actions and difflib.get_close_matches(name, free, n=1):
                raise SchemaError(f"action.day_level: no event has the action {name!r}; {nearest(name, free)}")
        for name in schema.feedback:
            if name not in observed.actions:
                raise SchemaError(
                    f"feedback: no event has the action {name!r}; {nearest(name, sorted(observed.actions))}"
                )
    if not observed.events:
        raise SourceError(f"no event of {schema.name!r} lies before the split; move `split` to a later time")


def admit(schema: EventSchema, name: str) -> int:
    """Events that give an id, a value or a word of a facet a code of its own."""
    if name in schema.entities:
        return schema.entities[name].admit
    return schema.facets[name].admitted_from if name in schema.facets else 1


def _both(users: pa.Array, others: pa.Array) -> pa.Array:
    """Users of two parts, who are never the same."""
    if len(users) == 0 or len(others) == 0:
        return users if len(users) else others
    return pa.concat_arrays([users, others.cast(users.type)])


def _runs(schema: EventSchema, before: Events, items: pa.Table | None) -> Counter[Run]:
    groups = before.groups
    read = symbols(schema, before, groups, repeats(schema, before, groups), _classes(schema, items))
    return runs_of(read.action, read.item_class, read.follows)


def _classes(schema: EventSchema, items: pa.Table | None) -> ItemClass | None:
    assert schema.merge.pairs is not None
    if items is None or schema.merge.pairs.by is None:
        return None
    ids = Ids.of(items.column(items_rule(schema).id), "id").decode()
    return ItemClass(ids, Ids.of(items.column(schema.merge.pairs.by), "class").decode().cast(pa.string()))


def _actions(schema: EventSchema, events: Events) -> frozenset[str]:
    if schema.action is None:
        return frozenset()
    column = events.ids["action"]
    return frozenset(column.rank()[0].cast(pa.string()).to_pylist())
