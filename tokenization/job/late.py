"""Events that come after later ones of their user were tokenized: tokens that are there never change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Floats, Mask
from tokenization.events.events import Events
from tokenization.ids import as_type, one_chunk

_AN_INSTANT = 1e-6
"""Seconds; times are exact to the microsecond."""


def late(events: Events, after: pa.Table) -> Mask:
    """[n] events whose group would take effect no later than the last closed one that their user has.

    So would one at the very time of that group, which is complete. What comes after it is not late, though it be
    earlier than what other groups hold: those are open.

    Args:
        events: new ones, together with those of the groups that are open, which are never late.
        after: how far the users had come, as `Corpus.ends` tells; users without a row, or without a closed group, have
            no late events.
    """
    groups = events.groups
    return np.asarray((groups.time <= _last(events, after)[groups.user])[groups.of_event])


def put_off(events: Events, after: pa.Table) -> Events:
    """The same events, the late ones with the newest: they take effect when they became known.

    That is the time of the newest event of their user among these, which the open ones are of; where all are late, an
    instant after the last group that the user has.

    Args:
        after: as in `late`.
    """
    is_late = late(events, after)
    if not is_late.any():
        return events
    groups = events.groups
    newest = _last(events, after) + _AN_INSTANT
    np.maximum.at(newest, groups.user, groups.time)
    return replace(events, times=np.where(is_late, newest[groups.user][groups.of_event], events.times))


def _last(events: Events, after: pa.Table) -> Floats:
    """[u] time of the last group that each user has, -inf where there is none."""
    users = events.groups.users
    if not len(users) or not after.num_rows:
        return np.full(len(users), -np.inf)
    row = pc.index_in(users, value_set=as_type(one_chunk(after["user_id"]), users.type)).fill_null(-1).to_numpy()
    last = one_chunk(after["last"]).fill_null(-np.inf).to_numpy(zero_copy_only=False)
    return np.asarray(np.append(last, -np.inf)[row])
