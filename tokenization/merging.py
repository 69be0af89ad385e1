"""Several events, one token: lines of one group with the same action and the same entity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenization.clock import Floats
from tokenization.ordering import Longs, argsort, dense, packed
from tokenization.vocabulary import ABSENT, UNKNOWN, Codes


@dataclass(frozen=True)
class Merged:
    """t tokens out of n events.

    rows: [t] one event of each token, for all that its events share. events: [t] how many it holds.
    codes, numbers: [t] by facet.
    """

    rows: Longs
    events: Codes
    codes: Mapping[str, Codes]
    numbers: Mapping[str, Floats]


def keep_all(codes: Mapping[str, Codes], numbers: Mapping[str, Floats], count: int) -> Merged:
    """Every event its own token."""
    return Merged(np.arange(count), np.ones(count, np.int32), codes, numbers)


def merge(key: tuple[NDArray[Any], ...], codes: Mapping[str, Codes], numbers: Mapping[str, Floats]) -> Merged:
    """Events with equal keys become one token.

    Args:
        key: non-negative integers [n] that must all agree, such as group, entity, action.
        codes: [n] by facet. Of several the smallest is kept, which is the value seen first in the log; a
            known value goes before an unknown, and that before an absent one.
        numbers: [n] by facet, NaN = absent. They are summed; the sum of none is absent.

    Returns:
        Tokens in any order. The order of the events has no influence, not even on the last bit of
        a sum.
    """
    one = packed(key)
    if one is not None and len(dense(one)[0]) == len(one):
        return keep_all(codes, numbers, len(one))
    order = argsort(key)
    fresh = np.ones(len(order), np.bool_)
    if len(order):
        fresh[1:] = np.logical_or.reduce([column[order][1:] != column[order][:-1] for column in key])
    starts = np.flatnonzero(fresh)
    token = np.cumsum(fresh) - 1
    sizes = np.diff(np.append(starts, len(order)))
    return Merged(
        order[starts],
        sizes.astype(np.int32),
        {name: _first_known(column[order], starts) for name, column in codes.items()},
        {name: _sums(column[order], token, starts, sizes) for name, column in numbers.items()},
    )


def _first_known(codes: Codes, starts: Longs) -> Codes:
    big = np.iinfo(np.int32).max
    preference = np.where(codes == ABSENT, big, np.where(codes == UNKNOWN, big - 1, codes))
    best = np.minimum.reduceat(preference, starts)
    return np.where(best == big, ABSENT, np.where(best == big - 1, UNKNOWN, best)).astype(np.int32)


def _sums(values: Floats, token: Longs, starts: Longs, sizes: Longs) -> Floats:
    """Sums by token. Floats don't add associatively, so the members of each sum are put in order first."""
    out = values[starts]
    several = sizes[token] > 1
    if not several.any():
        return out
    members, number = token[several], values[several]
    order = np.lexsort((number, members))
    members, number = members[order], number[order]
    first = np.flatnonzero(np.diff(members, prepend=-1))
    sums = np.add.reduceat(np.nan_to_num(number), first)
    none = np.logical_and.reduceat(np.isnan(number), first)
    out[members[first]] = np.where(none, np.nan, sums)
    return out
