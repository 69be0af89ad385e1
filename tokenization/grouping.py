"""Which events of a user are simultaneous: one set, and not a sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tokenization.clock import Floats
from tokenization.events import Events, Indices
from tokenization.ordering import Longs, dense


@dataclass(frozen=True)
class Groups:
    """g groups of u users, ordered by user (in the order of their ids), then time.

    users: [u] ids. of_event: [n] each event's group. user: [g] each group's user. time: [g] when it takes
        effect.
    ordinal: [g] 0, 1, 2.. within the user. previous: [g] time of the user's group before, NaN for the first.
    from_end: [g] 0 for the user's last group, 1 for the one before it.
    """

    users: pa.Array
    of_event: Longs
    user: Longs
    time: Floats
    ordinal: Indices
    previous: Floats
    from_end: Indices


def group(events: Events) -> Groups:
    """Put events into groups.

    Events with one declared group id take effect together, when the last of them does; events of one user
    that take effect at one time are one group, declared or not. So every group has one time, and no two of a
    user's
    share it: the groups before a group are exactly those that were complete by then.
    """
    users, user = events.users.rank()
    times, moment = dense(_effective_times(events).view(np.int64))
    moments = times.view(np.float64)
    order = np.argsort(moments)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    keys, of_event = dense(user.astype(np.int64) * max(len(order), 1) + place[moment])
    by_key = np.argsort(keys)
    rank = np.empty(len(by_key), np.int64)
    rank[by_key] = np.arange(len(by_key))
    of_user, at = np.divmod(keys[by_key], max(len(order), 1))
    return _numbered(users, rank[of_event], of_user, moments[order][at])


def _numbered(users: pa.Array, of_event: Longs, user: Longs, time: Floats) -> Groups:
    sizes = np.bincount(user, minlength=len(users))
    first = np.cumsum(sizes) - sizes
    ordinal = np.arange(len(user)) - first[user]
    previous = np.where(ordinal > 0, np.roll(time, 1), np.nan)
    from_end = sizes[user] - 1 - ordinal
    return Groups(users, of_event, user, time, ordinal.astype(np.int32), previous, from_end.astype(np.int32))


def _effective_times(events: Events) -> Floats:
    times = events.times + 0.0  # -0.0 and 0.0 are one time
    if events.groups is None or len(times) == 0:
        return times
    declared = np.flatnonzero(~events.groups.missing)
    width = max(len(events.groups.values), 1)
    _, member = dense(events.users.index[declared].astype(np.int64) * width + events.groups.index[declared])
    last = np.full(int(member.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(last, member, times[declared])
    times[declared] = last[member]
    return times
