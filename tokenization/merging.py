"""Several events, one token: lines of one group with the same action and the same entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenization.arrays import Codes, Floats, Integers, Longs
from tokenization.ordering import order_by
from tokenization.vocabulary import ABSENT, UNKNOWN


@dataclass(frozen=True, eq=False)
class Merged:
    """t tokens of n events.

    rows: [t] one event of each token, for all that its events share. events: [t] how many it holds. codes, numbers:
    [t] by facet.
    """

    rows: Longs
    events: Codes
    codes: Mapping[str, Codes]
    numbers: Mapping[str, Floats]


def merge(keys: Sequence[Integers], codes: Mapping[str, Codes], numbers: Mapping[str, Floats]) -> Merged:
    """Events with equal keys become one token.

    Args:
        keys: non-negative integers [n] that must all agree.
        codes: [n] by facet. Of several the smallest is kept, which is the value seen first in the log; a known value
            goes before an unknown one, and that before none.
        numbers: [n] by facet, NaN = absent. They are summed; the sum of none is absent.

    Returns:
        Tokens in the order of their keys. The order of the events has no influence, not even on the last bit of a sum.
    """
    order, fresh = order_by(keys)
    starts = np.flatnonzero(fresh)
    sizes = np.diff(np.append(starts, len(order)))
    several = np.flatnonzero(sizes > 1)
    members = order[np.repeat(sizes > 1, sizes)]
    firsts = np.cumsum(sizes[several]) - sizes[several]
    rows = order[starts]
    merged = Merged(
        rows,
        sizes.astype(np.int32),
        {name: column[rows] for name, column in codes.items()},
        {name: column[rows] for name, column in numbers.items()},
    )
    if len(several):
        for name, column in codes.items():
            merged.codes[name][several] = _first_known(column[members], firsts)
        for name, values in numbers.items():
            merged.numbers[name][several] = _sums(values[members], firsts, sizes[several])
    return merged


def in_order(keys: Sequence[Integers], codes: Mapping[str, Codes], numbers: Mapping[str, Floats]) -> Merged:
    """Every event its own token, in the order of the keys."""
    order, _ = order_by(keys)
    return Merged(
        order,
        np.ones(len(order), np.int32),
        {name: column[order] for name, column in codes.items()},
        {name: values[order] for name, values in numbers.items()},
    )


def settle(merged: Merged, place: Sequence[Integers]) -> Merged:
    """Put tokens that agree in all keys [n] of `place`, and so stand in any order, into the one order that all else
    they hold decides; those that still agree are alike."""
    keys = [key[merged.rows] for key in place]
    same = np.logical_and.reduce([key[1:] == key[:-1] for key in keys])
    if not same.any():
        return merged
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    run = np.cumsum(~np.append(False, same))[tied]
    rest: list[NDArray[Any]] = [*merged.codes.values(), *merged.numbers.values(), merged.events]
    order = np.arange(len(merged.rows))
    order[tied] = tied[np.lexsort((*(column[tied] for column in reversed(rest)), run))]
    return Merged(
        merged.rows[order],
        merged.events[order],
        {name: column[order] for name, column in merged.codes.items()},
        {name: values[order] for name, values in merged.numbers.items()},
    )


def _first_known(codes: Codes, firsts: Longs) -> Codes:
    none, unknown = np.iinfo(np.int32).max, np.iinfo(np.int32).max - 1
    ranked = np.where(codes == ABSENT, none, np.where(codes == UNKNOWN, unknown, codes))
    best = np.minimum.reduceat(ranked, firsts)
    return np.where(best == none, ABSENT, np.where(best == unknown, UNKNOWN, best)).astype(np.int32)


def _sums(values: Floats, firsts: Longs, sizes: Longs) -> Floats:
    """Adding floats is not associative, so the members of each sum are put in order first."""
    token = np.repeat(np.arange(len(firsts)), sizes)
    values = values[np.lexsort((values, token))]
    sums = np.add.reduceat(np.nan_to_num(values), firsts)
    return np.where(np.logical_and.reduceat(np.isnan(values), firsts), np.nan, sums)
