"""Rows of very different length into batches that are full, in an order near enough to random."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from tokenization.arrays import Integers, Longs

_OPEN = 256
"""Batches that still take rows. More would fill them no better, and put rows farther from where the shuffle did."""


def pack(lengths: Integers, budget: int, seed: int | Sequence[int]) -> list[Longs]:
    """Rows in batches of at most `budget` tokens.

    Rows are shuffled, and each goes into the open batch that it fills best: online best fit (Johnson et al., 1974,
    doi:10.1137/0203025). Since the shuffle decides who comes, and the length only which of the batches begun last,
    rows of any length meet in any batch; sorting by length, which fills hardly better, would put like with like.
    Short rows tend to fill up older batches, so these are shuffled in the end. All are filled alike, but for what is
    left over at the end of an epoch: ranks that take a batch each have equal work.

    Args:
        lengths: [n] tokens of each row. A longer one than the budget is alone in a batch that is over it; cut such
            histories first (`windows.cut_windows`).
        budget: tokens, at least 1.
        seed: equal seeds, equal batches.

    Returns:
        Row numbers of each batch, each row in one; the emptiest batch is the last.
    """
    if budget < 1:
        raise ValueError(f"a budget of {budget} tokens holds nothing; give at least 1")
    if not len(lengths):
        return []
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(lengths))
    batch = np.asarray(_best_fit(lengths[order].tolist(), budget), np.int64)
    by_batch = np.argsort(batch, kind="stable")
    batches = np.split(order[by_batch], np.flatnonzero(np.diff(batch[by_batch])) + 1)
    tokens = np.bincount(batch, weights=lengths[order])
    turns = draw.permutation(len(batches))
    emptiest = tokens[turns] == tokens.min()
    return [batches[number] for number in np.append(turns[~emptiest], turns[emptiest])]


def fill(lengths: Integers, batches: Sequence[Longs], budget: int) -> float:
    """Mean share of the budget that the batches hold; one over it counts as full."""
    tokens = np.array([lengths[rows].sum() for rows in batches])
    return float(np.minimum(tokens / budget, 1.0).mean())


def _best_fit(lengths: list[int], budget: int) -> list[int]:
    """The batch of each row. The loop is over users, a microsecond each: a million are packed in about a second."""
    batch_of = [0] * len(lengths)
    count = 0
    # (room left, batch) of every open batch in one integer, ascending, since tuples compare far slower.
    shift = len(lengths).bit_length()
    mask = (1 << shift) - 1
    rooms: list[int] = []
    for row, length in enumerate(lengths):
        place = bisect_left(rooms, length << shift)
        if place < len(rooms):
            found = rooms.pop(place)
            room, batch = (found >> shift) - length, found & mask
        else:
            room, batch = budget - length, count
            count += 1
        batch_of[row] = batch
        if room > 0:
            insort(rooms, room << shift | batch)
            if len(rooms) > _OPEN:
                del rooms[0]
    return batch_of
