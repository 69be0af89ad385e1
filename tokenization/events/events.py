"""The sound events of a log, in canonical columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenization.arrays import Codes, Floats, Longs, Vectors
from tokenization.events.grouping import Groups, group
from tokenization.ids import Ids


@dataclass(frozen=True, eq=False)
class Bags:
    """For each of n rows some members: of a set, or the words of a text, in their order.

    index: [n] into d distinct bags, -1 where a row has none. offsets: [d + 1] into `members` [m].
    """

    index: Codes
    offsets: Longs
    members: Ids

    def take(self, rows: NDArray[Any]) -> Bags:
        """The given rows, by mask or by number."""
        return Bags(self.index[rows], self.offsets, self.members)

    def of_rows(self) -> tuple[Longs, Longs]:
        """The row and the place in `members` of every member of every row."""
        rows = np.flatnonzero(self.index >= 0)
        starts, sizes = self.offsets[:-1][self.index[rows]], np.diff(self.offsets)[self.index[rows]]
        before = np.cumsum(sizes) - sizes
        return np.repeat(rows, sizes), np.arange(int(sizes.sum())) - np.repeat(before - starts, sizes)


@dataclass(frozen=True, eq=False)
class Events:
    """n events in any order.

    users: whose they are. times: [n] when they take effect, seconds since 1970 UTC (or positions). declared: ids of
    declared groups, None where the schema has none. The others by facet name. ids: the action, entities, categories.
    numbers: [n], NaN = absent; durations in seconds. stamps: [n] seconds since 1970 UTC, NaN = absent. bags: sets,
    and texts as words. vectors: [n, w], NaN = absent. pause: after which a declared group is over, in the unit of
    times.
    """

    users: Ids
    times: Floats
    declared: Ids | None
    ids: Mapping[str, Ids]
    numbers: Mapping[str, Floats]
    stamps: Mapping[str, Floats] = field(default_factory=dict)
    bags: Mapping[str, Bags] = field(default_factory=dict)
    vectors: Mapping[str, Vectors] = field(default_factory=dict)
    pause: float = np.inf

    def __len__(self) -> int:
        return len(self.times)

    @cached_property
    def groups(self) -> Groups:
        """Which of the events are simultaneous."""
        return group(self.users, self.times, self.declared, self.pause)

    def take(self, rows: NDArray[Any]) -> Events:
        """The given rows, by mask or by number."""
        if rows.dtype == np.bool_:  # a mask is counted anew for every column
            rows = np.flatnonzero(rows)
        return Events(
            self.users.take(rows),
            self.times[rows],
            None if self.declared is None else self.declared.take(rows),
            {name: column.take(rows) for name, column in self.ids.items()},
            {name: values[rows] for name, values in self.numbers.items()},
            {name: values[rows] for name, values in self.stamps.items()},
            {name: bags.take(rows) for name, bags in self.bags.items()},
            {name: vectors[rows] for name, vectors in self.vectors.items()},
            self.pause,
        )
