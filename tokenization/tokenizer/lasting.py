"""Groups that last: a request for one is made when it begins, and what its later events say is not known then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Codes, Floats, Integers, Longs, Mask
from tokenization.codes.vocabulary import ABSENT
from tokenization.events.events import Events
from tokenization.events.grouping import Groups
from tokenization.ordering import order_by
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.encoding import distances
from tokenization.tokenizer.facets import LASTED

Coded = tuple[Mapping[str, Codes], Mapping[str, Floats]]
"""[n] codes by column, and numbers by facet."""


def may_last(schema: EventSchema) -> bool:
    """Whether a group of this log can be more than an instant: events join by a declared id, or by merging."""
    merge = schema.merge
    return schema.group is not None or merge.same_item_within is not None or merge.pairs is not None


def of_lasting(events: Events, groups: Groups) -> Mask | None:
    """[n] events of groups that begin before they take effect; None where there are none."""
    lasting = (groups.start < groups.time)[groups.of_event]
    return lasting if lasting.any() else None


def said_at_start(
    schema: EventSchema,
    events: Events,
    groups: Groups,
    lasting: Mask,
    keys: Sequence[Integers] | None,
    coded: Coded,
) -> Coded:
    """Codes and numbers so that the context of a token is what its first event said, and no later one.

    Of tokens of one event nothing changes: which of a group's tokens were there at its beginning is told by `lasted`,
    which is among the numbers from here on: seconds from the event until its group takes effect.

    Args:
        lasting: [n] events of groups that last. keys: [n] that agree where events become one token (`merge_keys`).
        coded: the context facets' columns are named by the facet, or by the facet, a dot and more.
    """
    codes, numbers = coded
    numbers = {**numbers, LASTED: groups.time[groups.of_event] - events.times}
    begun = distances(events, groups.start[groups.of_event])
    numbers |= {name: values for name, values in begun.items() if name in schema.context}
    if keys is None:
        return codes, numbers
    rows = np.flatnonzero(lasting)
    later = np.zeros(len(events), np.bool_)
    later[rows] = events.times[rows] > _earliest([key[rows] for key in keys], events.times[rows])
    if not later.any():
        return codes, numbers

    def of_context(column: str) -> bool:
        return column.partition(".")[0] in schema.context

    return (
        {name: np.where(later, ABSENT, column) if of_context(name) else column for name, column in codes.items()},
        {name: np.where(later, np.nan, values) if of_context(name) else values for name, values in numbers.items()},
    )


def began(times: Floats, lasted: Floats, firsts: Longs) -> tuple[Floats, Mask]:
    """When the group of each token began, and which tokens were there: those that tell the context of its request.

    Args:
        times, lasted: [t] as in `Tokens`. firsts: [g] the first token of each group, in the order of the tokens.

    Returns:
        [t] beginnings, the same for all tokens of a group, on the clock of `times`; and [t] whether a token's first
        event was at the beginning. Where groups are instants the times themselves, and all tokens.
    """
    if not lasted.any():
        return times, np.ones(len(times), np.bool_)
    longest = np.repeat(np.maximum.reduceat(lasted, firsts), np.diff(np.append(firsts, len(times))))
    return times - longest, lasted == longest


def lasted_of(tokens: pa.Table) -> Floats:
    """[t] the column `lasted` of a token table end to end; 0 where it is null, or there is none."""
    if LASTED not in tokens.column_names:
        return np.zeros(pc.sum(pc.list_value_length(tokens["time"])).as_py() or 0)
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in tokens[LASTED].chunks]
    return np.asarray(np.nan_to_num(np.concatenate([np.zeros(0), *values])))


def _earliest(keys: Sequence[Integers], times: Floats) -> Floats:
    """[n] the least of the times of those that agree in all keys."""
    order, fresh = order_by(keys)
    found = np.empty(len(times))
    found[order] = np.minimum.reduceat(times[order], np.flatnonzero(fresh))[np.cumsum(fresh) - 1]
    return found
