"""What the parts of a log hold before any token is made: rows that make no sense, and what is counted of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from tokenization.codes.counting import Moments
from tokenization.corpus.opened import KEY
from tokenization.errors import SourceError
from tokenization.job.layout import Log, Progress
from tokenization.tokenizer.fitting import Observed


@dataclass(eq=False)
class Found:
    """What the survey of all parts found: rows refused by reason, rows dropped by rule; moments and observed as in
    `steps.Survey`."""

    reasons: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    moments: Moments = field(default_factory=lambda: Moments.of(np.zeros(0)))
    observed: Observed | None = None

    def events(self, rows: int) -> int:
        """Sound ones among so many rows."""
        return rows - self.reasons.total() - self.dropped.total()


def surveyed(log: Log, progress: Progress) -> Found:
    """Look through all parts, and put aside what is refused and what keys there are."""
    found, done = Found(), 0
    for part in log.parts.survey():
        found.reasons.update(part.quarantined["reason"].to_pylist())
        found.dropped.update(part.dropped)
        found.moments |= part.moments
        if part.observed is not None:
            found.observed = part.observed if found.observed is None else found.observed | part.observed
        log.refused.add(part.quarantined)
        log.keys.add(pa.table({KEY: part.keys}))
        done += part.events + part.quarantined.num_rows + sum(part.dropped.values())
        progress("check", done, log.rows)
    return found


def refuse(reasons: Mapping[str, int], rows: int) -> None:
    """Raises SourceError where there are reasons, as `--strict` asks for."""
    if reasons:
        raise SourceError(
            f"{sum(reasons.values()):,} of {rows:,} rows make no sense: {told(reasons)}; "
            "mend the log, or leave out --strict and they are set aside"
        )


def told(reasons: Mapping[str, int]) -> str:
    """The most frequent first."""
    return ", ".join(f"{reason} ({count:,})" for reason, count in Counter(reasons).most_common())
