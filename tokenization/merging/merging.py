"""Several events, one token: lines of one group with the same action and the same entity, or adjacent events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenization.arrays import Codes, Floats, Integers, Longs
from tokenization.codes.vocabulary import ABSENT, UNKNOWN
from tokenization.ordering import order_by
from tokenization.schema.rules import Combine

Together = tuple[str, ...]
"""Columns of codes that one facet takes."""


@dataclass(frozen=True)
class Merging:
    """How the columns of events that become one token become the columns of the token.

    chosen: facets of which one event's codes are kept. united: sets, of which the union is kept as far as the columns
    reach. combine: what numbers do; the others are summed.
    """

    chosen: tuple[Together, ...] = ()
    united: tuple[Together, ...] = ()
    combine: Mapping[str, Combine] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Merged:
    """t tokens of n events.

    rows: [t] one event of each token, for all that its events share. events: [t] how many it holds. codes: [t] by
    column. numbers: [t] by facet.
    """

    rows: Longs
    events: Codes
    codes: Mapping[str, Codes]
    numbers: Mapping[str, Floats]


def merge(
    keys: Sequence[Integers], codes: Mapping[str, Codes], numbers: Mapping[str, Floats], merging: Merging
) -> Merged:
    """Events with equal keys become one token.

    Args:
        keys: non-negative integers [n] that must all agree.
        codes: [n] by column, or none at all. Of several the smallest is kept, which is the value seen first in the log;
            a known value goes before an unknown one, and that before none.
        numbers: [n] by facet, NaN = absent; the sum of none is absent.

    Returns:
        Tokens in the order of their keys. The order of the events has no influence, not even on the last bit of a sum.
    """
    order, fresh = order_by(keys)
    starts = np.flatnonzero(fresh)
    sizes = np.diff(np.append(starts, len(order)))
    several = np.flatnonzero(sizes > 1)
    rows = order[starts]
    merged = Merged(
        rows,
        sizes.astype(np.int32),
        {name: column[rows] for name, column in codes.items()},
        {name: column[rows] for name, column in numbers.items()},
    )
    if len(several):
        members = order[np.repeat(sizes > 1, sizes)]
        token = np.repeat(np.arange(len(several)), sizes[several])
        for columns in merging.chosen if codes else ():
            _keep(merged.codes, columns, several, _least([codes[name][members] for name in columns], token))
        for columns in merging.united if codes else ():
            _keep(merged.codes, columns, several, _union([codes[name][members] for name in columns], token))
        for name, values in numbers.items():
            how = merging.combine.get(name, Combine.SUM)
            merged.numbers[name][several] = _combined(values[members], token, sizes[several], how)
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
    same = keys[0][1:] == keys[0][:-1]
    for key in keys[1:]:
        same &= key[1:] == key[:-1]
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


def _keep(codes: Mapping[str, Codes], columns: Together, tokens: Longs, kept: Sequence[Codes]) -> None:
    for name, column in zip(columns, kept, strict=True):
        codes[name][tokens] = column


def _least(columns: Sequence[Codes], token: Longs) -> list[Codes]:
    """The columns of one member of each token: of several the least by the first column, then by the next."""
    none, unknown = np.iinfo(np.int32).max, np.iinfo(np.int32).max - 1
    ranked = [np.where(c == ABSENT, none, np.where(c == UNKNOWN, unknown, c)) for c in columns]
    order = np.lexsort((*reversed(ranked), token))
    first = order[np.append(True, np.diff(token[order]) != 0)]
    return [column[first] for column in columns]


def _union(columns: Sequence[Codes], token: Longs) -> list[Codes]:
    """The distinct codes of each token's members, the smallest first, known ones before unknown, then none."""
    none, unknown = np.iinfo(np.int32).max, np.iinfo(np.int32).max - 1
    code = np.stack(columns).ravel()
    pairs = np.stack([np.tile(token, len(columns)), np.where(code == UNKNOWN, unknown, code)], axis=1)
    pairs = np.unique(pairs[code != ABSENT], axis=0)
    count = np.bincount(pairs[:, 0], minlength=int(token[-1]) + 1)
    place = np.arange(len(pairs)) - (np.cumsum(count) - count)[pairs[:, 0]]
    out = np.full((len(columns), len(count)), none)
    held = place < len(columns)
    out[place[held], pairs[held, 0]] = pairs[held, 1]
    return list(np.where(out == none, ABSENT, np.where(out == unknown, UNKNOWN, out)).astype(np.int32))


def _combined(values: Floats, token: Longs, sizes: Longs, how: Combine) -> Floats:
    """Adding floats is not associative, so the members of each sum are put in order first; NaN comes last."""
    values = values[np.lexsort((values, token))]
    firsts = np.cumsum(sizes) - sizes
    given = np.add.reduceat(~np.isnan(values), firsts, dtype=np.int64)
    match how:
        case Combine.MIN:
            return np.asarray(values[firsts])
        case Combine.MAX:
            return np.asarray(values[firsts + np.maximum(given, 1) - 1])
        case Combine.SUM | Combine.MEAN:
            sums = np.add.reduceat(np.nan_to_num(values), firsts)
            sums = np.where(given > 0, sums, np.nan)
            return sums / np.maximum(given, 1) if how is Combine.MEAN else sums
