"""Where training ends: a time, or the last items of every user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokenization.arrays import Longs, Mask
from tokenization.codes.counting import Moments
from tokenization.errors import SourceError
from tokenization.events.grouping import Groups
from tokenization.schema.rules import SplitRule


@dataclass(frozen=True)
class Split:
    """A declared split, resolved on a log.

    kind: "time" or "last_items". time, validation: seconds since 1970 UTC (or positions); groups that begin at `time`
    or later are for testing, those from `validation` on that take effect before it for validation. last_items: so many
    of a user's last groups are for testing, as many before these for validation. What is open at a border is for
    neither.
    """

    kind: str
    time: float | None
    validation: float | None
    last_items: int | None

    def trains(self, groups: Groups) -> Mask:
        """[g] groups that may be fitted on: all that were complete before those for testing, by last items before the
        first of the user's to begin."""
        if self.last_items is not None:
            tested = groups.from_end < self.last_items
            begin = np.full(len(groups.users), np.inf)
            np.minimum.at(begin, groups.user[tested], groups.start[tested])
            return np.asarray(groups.time < begin[groups.user])
        assert self.time is not None
        return np.asarray(groups.time < self.time)


def resolve(rule: SplitRule, moments: Moments) -> Split:
    """The times of a declared split on a log of such moments.

    A fraction is one of events, so a few stamps that are wrong by decades move it by nothing. Validation, where it is
    not declared, has as many events as the test where the split is a fraction (half of those before it, if that is
    fewer), and is as long as the test where it is a time.

    Raises:
        SourceError: the log has no event.
    """
    if rule.last_items is not None:
        return Split("last_items", None, None, rule.last_items)
    if len(moments.first) == 0:
        raise SourceError("there are no events to split; give a log with at least one")
    if rule.time is not None:
        cut = rule.time.timestamp()
        validation = rule.validation.timestamp() if rule.validation else cut - max(moments.last - cut, 0.0)
        return Split("time", cut, validation, None)
    assert rule.fraction is not None
    before = np.cumsum(moments.counts) - moments.counts
    total = int(moments.counts.sum())
    at = _nearest(before, rule.fraction * total)
    share = max(2 * rule.fraction - 1, rule.fraction / 2)
    begin = _nearest(before[:at], share * total)
    return Split("time", float(moments.first[at]), float(moments.first[begin]), None)


def _nearest(before: Longs, events: float) -> int:
    """The border with so many events before it, about; with some, wherever there is such a border."""
    return 1 + int(np.abs(before[1:] - events).argmin()) if len(before) > 1 else 0
