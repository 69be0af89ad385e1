"""Which events of a user are simultaneous: one set, and not a sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tokenization.arrays import Codes, Floats, Integers, Longs, Mask
from tokenization.ids import Ids, as_type, one_chunk
from tokenization.ordering import begins

_FEW = 1024


@dataclass(frozen=True, eq=False)
class Groups:
    """g groups of u users, ordered by user (in the order of their ids), then time.

    users: [u] ids. of_event: [n] the group of each event. user: [g] whose. time: [g] when the group takes effect, which
    is when its last event does. start: [g] when its first event did. ordinal: [g] 0, 1, 2.. within the user. previous:
    [g] time of the user's group before, NaN for the first; it may have been open when this one began, see
    `complete_before`. first: [g] time of the user's first group. from_end: [g] 0 for a user's last group, 1 for the one
    before it.
    """

    users: pa.Array
    of_event: Longs
    user: Longs
    time: Floats
    start: Floats
    ordinal: Codes
    previous: Floats
    first: Floats
    from_end: Codes


def group(users: Ids, times: Floats, declared: Ids | None, pause: float = np.inf) -> Groups:
    """Put n events into groups.

    Events with one declared group id take effect together, when the last of them does; events of one user that take
    effect at one time are one group, declared or not. So every group has one time, and no two of a user's share it:
    the groups before a group are exactly those that were complete by then. A declared group is over when none of it
    happened for longer than `pause`, and what comes of it later is another: so nobody has to wait for ever to know
    that it is complete.
    """
    names, user = users.rank()
    moments, moment = _sorted_distinct(_effective(users, times, declared, pause))
    if len(names) == 1:  # whose every moment is a group
        of_event, of_user, time = moment, np.zeros(len(moments), np.int64), moments
    else:
        keys, of_event = _sorted_distinct(user.astype(np.int64) * max(len(moments), 1) + moment)
        of_user, at = np.divmod(keys, max(len(moments), 1))
        time = moments[at]
    start = time
    if declared is not None:
        start = time.copy()
        np.minimum.at(start, of_event, times)
    return _numbered(names, of_event, of_user, time, start)


def join(groups: Groups, continues: Mask) -> Groups:
    """Groups of which some continue the one before: these are one group, that takes effect with the last of them.

    Args:
        continues: [g]; never marked for a user's first group.
    """
    fresh = ~continues
    joined = np.cumsum(fresh) - 1
    last = np.append(fresh[1:], True)[: len(fresh)]
    user, time, start = groups.user[fresh], groups.time[last], groups.start[fresh]
    return _numbered(groups.users, joined[groups.of_event], user, time, start)


def resume(groups: Groups, after: pa.Table) -> Groups:
    """The same groups counted on from where their users had come.

    Args:
        after: columns user_id, first and last (times of the user's first and last group before these), groups (their
            number); users without a row, or without such a group, begin here.
    """
    after = after.filter(pc.greater(after["groups"], 0))
    row = pc.index_in(groups.users, value_set=as_type(one_chunk(after["user_id"]), groups.users.type))
    known = pc.is_valid(row).to_numpy(zero_copy_only=False)[groups.user]
    row = pc.fill_null(row, 0).to_numpy()[groups.user]
    if not known.any():
        return groups
    first, last, count = (after[name].to_numpy() for name in ("first", "last", "groups"))
    return replace(
        groups,
        ordinal=np.where(known, groups.ordinal + count[row], groups.ordinal).astype(np.int32),
        previous=np.where(known & (groups.ordinal == 0), last[row], groups.previous),
        first=np.where(known, first[row], groups.first),
    )


def complete_before(groups: Groups) -> Floats:
    """[g] time of the user's last group that was complete strictly before each began; NaN where there was none.

    It is the group before, unless that one was still open: groups overlap where declared ids do. Of groups before those
    that are counted on from (`resume`) only the last is known, so where that one was open still, it is NaN too.
    """
    asked = np.flatnonzero(groups.previous >= groups.start)
    found = groups.previous
    if len(asked):
        found, user, start = found.copy(), groups.user[asked], groups.start[asked]
        last = _before((groups.user, groups.time), (user, start), inclusive=False) - 1
        first = np.searchsorted(groups.user, user)
        earlier = groups.previous[first]
        found[asked] = np.where(last >= first, groups.time[last], np.where(earlier < start, earlier, np.nan))
    return found


def uninterrupted(groups: Groups) -> Mask:
    """[g] no other group of the user began after the one before took effect, and by the time that this one did."""
    if not (groups.start < groups.time).any():
        return np.ones(len(groups.time), np.bool_)
    begins = groups.user, groups.start
    by_now = _before(begins, (groups.user, groups.time), inclusive=True)
    return np.asarray(by_now - _before(begins, (groups.user, groups.previous), inclusive=True) <= 1)


def _before(moments: tuple[Longs, Floats], asked: tuple[Longs, Floats], inclusive: bool) -> Longs:
    """How many of m moments of users lie before each of those asked for, by user, then time; NaN is after all.

    Args:
        inclusive: whether one at the very time asked for counts too.
    """
    count, more = len(moments[0]), len(asked[0])
    user, time = np.append(moments[0], asked[0]), np.append(moments[1], asked[1])
    later = np.append(np.full(count, 0 if inclusive else 1), np.full(more, 1 if inclusive else 0))
    order = np.lexsort((later, time, user))
    found = np.empty(len(order), np.int64)
    found[order] = np.cumsum(order < count)
    return found[count:]


def _numbered(users: pa.Array, of_event: Longs, of_user: Longs, time: Floats, start: Floats) -> Groups:
    sizes = np.bincount(of_user, minlength=len(users))
    begin = (sizes.cumsum() - sizes)[of_user]
    ordinal = np.arange(len(of_user)) - begin
    previous = np.full(len(time), np.nan)
    previous[1:] = time[:-1]
    previous[ordinal == 0] = np.nan
    return Groups(
        users,
        of_event,
        of_user,
        time,
        start,
        ordinal.astype(np.int32),
        previous,
        time[begin],
        (sizes[of_user] - 1 - ordinal).astype(np.int32),
    )


def _effective(users: Ids, times: Floats, declared: Ids | None, pause: float) -> Floats:
    times = times + 0.0  # a copy; and -0.0 and 0.0 become one time
    if declared is None:
        return times
    rows = np.flatnonzero(~declared.missing)
    member = declared.index[rows]
    if len(users.values) > 1:
        _, member = _distinct(users.index[rows].astype(np.int64) * max(len(declared.values), 1) + member)
    begun, last = times[rows], _last(member, times[rows])
    early = last[member] - begun > pause
    if early.any():  # of the others, nothing is so long before the end that a pause might lie in between
        long = np.zeros(len(last), np.bool_)
        long[member[early]] = True
        member = _parted(member, begun, np.flatnonzero(long[member]), pause)
        last = _last(member, begun)
    times[rows] = last[member]
    return times


def _last(member: Integers, times: Floats) -> Floats:
    """When each declared group was over."""
    last = np.full(int(member.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(last, member, times)
    return last


def _parted(member: Integers, times: Floats, rows: Longs, pause: float) -> Integers:
    """The declared group of each row, where a longer pause parts those of some rows into several."""
    order = rows[np.lexsort((times[rows], member[rows]))]
    fresh = begins(member[order])
    fresh[1:] |= np.diff(times[order]) > pause
    parted = member.astype(np.int64)
    parted[order] = int(member.max()) + np.cumsum(fresh)
    return parted


def _sorted_distinct(keys: NDArray[Any]) -> tuple[NDArray[Any], Longs]:
    """Distinct keys in order, and [n] the place of each."""
    distinct, seen = _distinct(keys)
    if len(keys) <= _FEW:
        return distinct, seen.astype(np.int64)
    order = np.argsort(distinct)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return distinct[order], place[seen]


def _distinct(keys: NDArray[Any]) -> tuple[NDArray[Any], Codes]:
    """Distinct keys and [n] the place of each: in order where there are few, else by hashing, in any."""
    if len(keys) <= _FEW:
        order = np.argsort(keys)
        ordered = keys[order]
        fresh = begins(ordered)
        place = np.empty(len(keys), np.int32)
        place[order] = np.cumsum(fresh) - 1
        return ordered[fresh], place
    encoded = pc.dictionary_encode(pa.array(keys))
    return encoded.dictionary.to_numpy(zero_copy_only=False), encoded.indices.to_numpy(zero_copy_only=False)
