"""Where training ends: a time, or the last items of every user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokenization.arrays import Mask
from tokenization.codes.counting import Span
from tokenization.errors import SourceError
from tokenization.events.grouping import Groups
from tokenization.schema.rules import SplitRule


@dataclass(frozen=True)
class Split:
    """A declared split, resolved on a log.

    kind: "time" or "last_items". time, validation: seconds since 1970 UTC (or positions); groups that take
    effect at `time` or later are for testing, those from `validation` on before it for validation.
    last_items: so many of a user's last groups are for testing, as many before these for validation.
    """

    kind: str
    time: float | None
    validation: float | None
    last_items: int | None

    def trains(self, groups: Groups) -> Mask:
        """[g] groups that may be fitted on: all that are not for testing."""
        if self.last_items is not None:
            return np.asarray(groups.from_end >= self.last_items)
        assert self.time is not None
        return np.asarray(groups.time < self.time)


def resolve(rule: SplitRule, span: Span) -> Split:
    """The times of a declared split on a log of this span; validation is as long as the test where it is not declared.

    Raises:
        SourceError: the log has no group.
    """
    if rule.last_items is not None:
        return Split("last_items", None, None, rule.last_items)
    if span.first > span.last:
        raise SourceError("there are no events to split; give a log with at least one")
    first, last = span.first, span.last
    if rule.time is not None:
        cut = rule.time.timestamp()
    else:
        assert rule.fraction is not None
        cut = first + rule.fraction * (last - first)
    validation = rule.validation.timestamp() if rule.validation else cut - max(last - cut, 0.0)
    return Split("time", cut, validation, None)
