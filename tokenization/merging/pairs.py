"""A learned table of actions on one item that become one token.

It is learned as byte pairs are (Sennrich et al., arXiv:1508.07909): the most frequent pair of adjacent symbols
becomes a symbol, again and again. It is applied greedily from left to right, so that a later event never changes how
earlier ones were read: what is a token now is a prefix of a token, or the same token, ever after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tokenization.arrays import Longs, Mask
from tokenization.ids import Ids

LONGEST = 8
"""Actions of a symbol at most, and so the columns that tell which a token holds."""
_RUN = 64
"""Events of a run that are learned from; what comes after is rare, and tells nothing new."""

Run = tuple[str, ...]
"""The class of an item, then the actions of adjacent events about it."""


@dataclass(frozen=True)
class PairTable:
    """Which symbols a next action joins: (class, actions so far, next action), the most frequent first."""

    merges: tuple[tuple[str, Run, str], ...]

    @classmethod
    def learn(cls, runs: Mapping[Run, int], number: int) -> PairTable:
        """The `number` most frequent pairs, each counted after those before it were merged; ties by their text."""
        merges: dict[tuple[str, Run, str], None] = {}
        for _ in range(number):
            counts: Counter[tuple[str, Run, str]] = Counter()
            for run, times in runs.items():
                for symbol, following in _adjacent(run, merges):
                    if len(symbol) < LONGEST:
                        counts[(run[0], symbol, following)] += times
            fresh = {pair: count for pair, count in counts.items() if pair not in merges and count > 1}
            if not fresh:
                break
            merges[min(fresh, key=lambda pair: (-fresh[pair], pair))] = None
        return cls(tuple(merges))

    @cached_property
    def _steps(self) -> dict[tuple[str, Run], int]:
        """Number of each symbol: class and actions."""
        symbols: dict[tuple[str, Run], int] = {}
        for name, so_far, following in self.merges:
            for actions in (so_far, (*so_far, following)):
                symbols.setdefault((name, actions), len(symbols))
        return symbols

    def joins(self, action: Ids, item_class: Ids, follows: Mask) -> Mask:
        """[s] which of s adjacent symbols belong to the token of the one before.

        Args:
            action, item_class: [s] of each. follows: [s] whether it may join at all.
        """
        joined = np.zeros(len(follows), np.bool_)
        starts = np.flatnonzero(~follows)
        sizes = np.diff(np.append(starts, len(follows)))
        first, then = self._moves(action, item_class)
        width = max(len(action.values), 1)
        kind = item_class.index.astype(np.int64) + 1
        said = action.index.astype(np.int64)
        state = np.where(said >= 0, first[kind, said], -1)
        order = np.argsort(-sizes, kind="stable")
        starts, sizes = starts[order], sizes[order]
        now = state[starts]
        for place in range(1, int(sizes.max(initial=0))):
            longer = int(np.count_nonzero(sizes > place))
            rows = starts[:longer] + place
            known = (now[:longer] >= 0) & (said[rows] >= 0)
            moved = np.where(known, then[np.where(known, now[:longer] * width + said[rows], 0)], -1)
            joined[rows] = moved >= 0
            now = np.where(moved >= 0, moved, state[rows])
        return joined

    def _moves(self, action: Ids, item_class: Ids) -> tuple[Longs, Longs]:
        """The symbol that (class, action) begins, [c + 1, a]; and the one that (symbol, action) makes, [S * a]."""
        actions = {str(name): place for place, name in enumerate(action.values.to_pylist())}
        classes = {"": 0} | {str(name): place for place, name in enumerate(item_class.values.to_pylist(), start=1)}
        first = np.full((len(item_class.values) + 1, max(len(actions), 1)), -1)
        then = np.full(max(len(self._steps), 1) * max(len(actions), 1), -1)
        for (name, symbol), number in self._steps.items():
            if len(symbol) == 1 and name in classes and symbol[0] in actions:
                first[classes[name], actions[symbol[0]]] = number
        for name, so_far, following in self.merges:
            if following in actions:
                number = self._steps[name, so_far]
                then[number * max(len(actions), 1) + actions[following]] = self._steps[name, (*so_far, following)]
        return first, then


def _adjacent(run: Run, merges: Mapping[tuple[str, Run, str], None]) -> Iterator[tuple[Run, str]]:
    """Symbols of a run and the action that follows each, as the table so far cuts it."""
    name, symbol = run[0], run[1:2]
    for action in run[2:]:
        if (name, symbol, action) in merges:
            symbol = (*symbol, action)
        else:
            yield symbol, action
            symbol = (action,)


def runs_of(action: Ids, item_class: Ids, follows: Mask) -> Counter[Run]:
    """How often each run of adjacent symbols is there; those of one symbol teach nothing and are left out."""
    starts = np.flatnonzero(~follows)
    sizes = np.minimum(np.diff(np.append(starts, len(follows))), _RUN)
    starts, sizes = starts[sizes > 1], sizes[sizes > 1]
    actions, classes = action.values.to_pylist(), [*item_class.values.to_pylist(), ""]
    runs: Counter[Run] = Counter()
    for size in np.unique(sizes):
        rows = starts[sizes == size]
        table = np.column_stack([item_class.index[rows], action.index[rows[:, None] + np.arange(size)]])
        distinct, counts = np.unique(table, axis=0, return_counts=True)
        for run, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            if min(run[1:]) >= 0:
                runs[(str(classes[run[0]]), *(str(actions[code]) for code in run[1:]))] += count
    return runs
