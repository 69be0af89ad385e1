"""Progressive training: short rows first, longer ones later (Li et al., arXiv:2108.06084; Jin et al., GrowLength,
arXiv:2310.00576).

A stage changes how the histories are cut into rows, and so what a lesson holds. Everything else goes on: the weights,
the optimisers with what they remember, the one schedule of rates, steps, epochs and the log.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from training.errors import TrainingError


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    history: most tokens of a row, 0 for as many as fit a batch. share: of the run's steps, or of its minutes where it
    ends by these.
    """

    history: int
    share: float


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Stages written `256:0.5,1024:0.3,4096:0.2`; an empty text is none. Raises TrainingError for anything else."""
    stages = tuple(_stage(part) for part in text.split(",")) if text.strip() else ()
    check_shares(stages)
    return stages


def check_shares(stages: Sequence[Stage]) -> None:
    """Raises TrainingError where a share or a history makes no sense, or the shares are not the whole run."""
    for number, stage in enumerate(stages, start=1):
        if not 0 < stage.share <= 1:
            raise TrainingError(f"stage {number} has the share {stage.share:g}: give it more than 0 and at most 1")
        if stage.history < 0:
            raise TrainingError(
                f"stage {number} has rows of {stage.history} tokens: give it some, or 0 for a whole batch"
            )
    total = math.fsum(stage.share for stage in stages)
    if stages and not math.isclose(total, 1.0, abs_tol=1e-6):
        raise TrainingError(f"the shares of the stages add up to {total:g}: make them 1")


def stage_at(stages: Sequence[Stage], done: float) -> int:
    """Number, from 0, of the stage that a run is in of which so much (0 to 1) is done; 0 without stages."""
    ends = list(accumulate(stage.share for stage in stages))[:-1]
    return sum(done >= end - 1e-9 for end in ends)


def _stage(text: str) -> Stage:
    history, _, share = text.partition(":")
    try:
        return Stage(int(history), float(share))
    except ValueError as error:
        raise TrainingError(
            f"{text.strip()!r} is no stage: write tokens of a row and share of the run, as in 256:0.5,1024:0.5"
        ) from error
