"""What a corpus keeps of events: their tokens, and of the group that is still open the events themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Codes, Floats, Longs, Mask
from tokenization.corpus.parts import OPEN
from tokenization.events.events import Events
from tokenization.events.grouping import Groups
from tokenization.events.stored import to_table
from tokenization.ids import one_chunk
from tokenization.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Again:
    """What a corpus had of users before more is said of them. users: how many of them had tokens. tokens, events: what
    was open, and is said again. kept: the sums of its numbers, as `tokens.sums` tells."""

    users: int = 0
    tokens: int = 0
    events: int = 0
    kept: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Said:
    """tokens: a token table with the column `OPEN`. open: the events of the open tokens, as `events.stored` has them,
    user after user. again: what of it was said before."""

    tokens: pa.Table
    open: pa.Table
    again: Again


def say(tokenizer: Tokenizer, events: Events, users: pa.Table | None = None, after: pa.Table | None = None) -> Said:
    """The tokens of events, and what of them is open; the arguments are those of `Tokenizer.transform`."""
    tokens = tokenizer.transform(events, users, after)
    sizes, rows = still_open(tokens, events)
    return Said(tokens.append_column(OPEN, pa.array(sizes)), to_table(events.take(rows)), Again())


def still_open(tokens: pa.Table, events: Events) -> tuple[Codes, Longs]:
    """What later events may change, however the log is cut: the last groups of each user, from the first open one on.

    Open is the newest group: more may be at its very time. So is a declared group until its longest pause is over: when
    it goes on, it takes effect later, and the groups that it passes are counted anew. What merges with an open group
    may turn out not to, and what overlaps with one may turn out to be next to another: that is open too. So all that
    is closed was over before anything open began, and stays as it is. (By position, without a pause that is declared,
    a declared group is closed as soon as another began after it.)

    Args:
        tokens: of these events, a row each user.

    Returns:
        [u] how many tokens at the end of each row are open; and the numbers of their events, user after user.
    """
    groups = events.groups
    if not len(groups.time):
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    sizes = np.bincount(groups.user, minlength=len(groups.users))
    begins = np.cumsum(sizes) - sizes
    newest = begins + sizes - 1
    wanted = np.zeros(len(groups.time), np.bool_)
    if events.declared is not None and np.isfinite(events.pause):
        wanted[groups.of_event[~events.declared.missing]] = True
        wanted &= groups.time >= (groups.time[newest] - events.pause)[groups.user]
    wanted[newest] = True
    number = np.arange(len(wanted))
    first = np.minimum.reduceat(np.where(wanted, number, len(wanted)), begins)
    border = _is_over(groups, _closes(groups, tokens))
    border[begins] = True
    first = np.maximum.accumulate(np.where(border, number, 0))[first]
    rows = np.flatnonzero(groups.of_event >= first[groups.user[groups.of_event]])
    rows = rows[np.argsort(groups.user[groups.of_event[rows]], kind="stable")]
    return _tokens_from(tokens, groups.time[first]), rows


def _is_over(groups: Groups, closes: Mask) -> Mask:
    """[g] groups such that all before were over when this one and all after it began, and none merges with them.

    Args:
        closes: [g] groups that are the last of those that are one token.
    """
    starts, rank = np.unique(groups.start, return_inverse=True)
    earliest = np.minimum.accumulate((groups.user * len(starts) + rank)[::-1])[::-1] - groups.user * len(starts)
    over = np.zeros(len(closes), np.bool_)
    over[1:] = closes[:-1] & (groups.time[:-1] < starts[earliest[1:]])
    return over


def _closes(groups: Groups, tokens: pa.Table) -> Mask:
    """[g] groups with which no later one was joined: those whose time is that of a token."""
    group = one_chunk(tokens.column("group"))
    borders = np.diff(group.flatten().to_numpy(), prepend=-1) != 0
    borders[group.offsets.to_numpy()[:-1] - group.offsets[0].as_py()] = True  # each user has a token
    if np.count_nonzero(borders) == len(groups.time):
        return np.ones(len(groups.time), np.bool_)
    times = np.unique(groups.time)
    lists = one_chunk(tokens.column("time"))
    user = np.repeat(np.arange(len(lists)), pc.list_value_length(lists).to_numpy())
    told = user * len(times) + np.searchsorted(times, lists.flatten().to_numpy())
    keys = groups.user * len(times) + np.searchsorted(times, groups.time)
    # Both ascend, so each group is looked up among the tokens without sorting again.
    return np.asarray(told[np.minimum(np.searchsorted(told, keys), len(told) - 1)] == keys)


def _tokens_from(tokens: pa.Table, begin: Floats) -> Codes:
    """[u] how many tokens of each row are at its time [u] or later."""
    lists = one_chunk(tokens.column("time"))
    sizes = pc.list_value_length(lists).to_numpy()
    later = np.append(0, np.cumsum(lists.flatten().to_numpy() >= np.repeat(begin, sizes)))
    ends = np.cumsum(sizes)
    return np.asarray(later[ends] - later[ends - sizes], np.int32)
