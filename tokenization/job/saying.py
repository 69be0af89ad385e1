"""What a corpus keeps of events: their tokens, and of the group that is still open the events themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from tokenization.arrays import Codes, Floats, Longs, Mask
from tokenization.corpus.parts import OPEN
from tokenization.events.events import Events
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
    """What later events may change, however the log is cut: the newest group of each user, with all that merging joins.

    More may come of its declared group, or at its very time; then it may also turn out that it does not merge. And
    where it is one moment, an event that is at this moment too may be of the declared group that was before it: so
    such a group is open as well. Whatever is earlier is closed (`grouping.group`, `adjacency.continues`).

    Args:
        tokens: of these events, a row each user.

    Returns:
        [u] how many tokens at the end of each row are open; and the numbers of their events, user after user.
    """
    time, back, ends = _last_groups(tokens)
    user = events.groups.user[events.groups.of_event]
    newest = _tokens(back == 0, ends)
    closed = _time_before(time, ends, newest)
    rows = events.times > closed[user]
    if events.declared is not None:
        both = newest + _tokens(back == 1, ends)
        longer = np.zeros(len(ends), np.bool_)
        longer[user[rows & (events.times < time[ends - 1][user])]] = True
        declared = np.zeros(len(ends), np.bool_)
        earlier = _time_before(time, ends, both)
        declared[user[~rows & (events.times > earlier[user]) & ~events.declared.missing]] = True
        reopened = declared & ~longer
        newest = np.where(reopened, both, newest)
        rows = events.times > np.where(reopened, earlier, closed)[user]
    found = np.flatnonzero(rows)
    return newest.astype(np.int32), found[np.argsort(user[found], kind="stable")]


def _last_groups(tokens: pa.Table) -> tuple[Floats, Longs, Longs]:
    """Of t tokens: their times [t], how many groups of the user follow that of each [t]; and where each user's end."""
    lists = one_chunk(tokens.column("group"))
    ends = lists.offsets.to_numpy()[1:] - lists.offsets.to_numpy()[0]
    group = lists.flatten().to_numpy().astype(np.int64)
    sizes = np.diff(ends, prepend=0)
    return one_chunk(tokens.column("time")).flatten().to_numpy(), np.repeat(group[ends - 1], sizes) - group, ends


def _tokens(marked: Mask, ends: Longs) -> Longs:
    """[u] how many of each user's tokens are marked."""
    return np.diff(np.append(0, np.cumsum(marked))[ends], prepend=0)


def _time_before(time: Floats, ends: Longs, tokens: Longs) -> Floats:
    """[u] the time of the token before so many at each user's end, -inf where there is none."""
    begins = np.append(0, ends[:-1])[: len(ends)]
    place = ends - tokens - 1
    return np.where(place >= begins, time[np.maximum(place, 0)], -np.inf)
