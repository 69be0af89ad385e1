"""The sound events of a log, in canonical columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from tokenization.arrays import Floats
from tokenization.grouping import Groups, group
from tokenization.ids import Ids


@dataclass(frozen=True, eq=False)
class Events:
    """n events in any order.

    users: whose they are. times: [n] when they take effect, seconds since 1970 UTC (or positions). declared: ids of
    declared groups, None where the schema has none. ids: action, entities and categories by facet name. numbers: [n]
    by facet name, NaN = absent.
    """

    users: Ids
    times: Floats
    declared: Ids | None
    ids: Mapping[str, Ids]
    numbers: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.times)

    @cached_property
    def groups(self) -> Groups:
        """Which of the events are simultaneous."""
        return group(self.users, self.times, self.declared)

    def take(self, rows: NDArray[Any]) -> Events:
        """The given rows, by mask or by number."""
        return Events(
            self.users.take(rows),
            self.times[rows],
            None if self.declared is None else self.declared.take(rows),
            {name: column.take(rows) for name, column in self.ids.items()},
            {name: values[rows] for name, values in self.numbers.items()},
        )
