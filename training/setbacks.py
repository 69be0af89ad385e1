"""Steps whose loss or gradient is no finite number: they move nothing, the rates back off, and too many in a row end
the run, with the last batch kept to be looked at.

One bad batch in a long run is common and harmless where it is skipped (Chowdhery et al., PaLM, arXiv:2204.02311,
section 5.1); many in a row are a run that has diverged, which goes on to no purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from foundation.lesson import Lesson
from training.errors import TrainingError

IN_A_ROW = 8  # bad steps that end a run
BACK_OFF = 0.5  # of the rates, at each bad step
RECOVERY = 1.02  # of the rates, at each good step after it, until they are whole again


@dataclass(frozen=True)
class Setbacks:
    """in_a_row: bad steps since the last good one. skipped: of the whole run. factor: of the rates, from 0 to 1."""

    in_a_row: int = 0
    skipped: int = 0
    factor: float = 1.0

    def after(self, good: bool) -> Setbacks:
        """What follows from a step."""
        if good:
            return Setbacks(0, self.skipped, min(1.0, self.factor * RECOVERY))
        return Setbacks(self.in_a_row + 1, self.skipped + 1, self.factor * BACK_OFF)


def keep_lessons(lessons: Sequence[Lesson], folder: Path, step: int) -> Path:
    """Write the lessons of a bad step as tensors and plain values, a list that `torch.load` reads without running
    code."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"bad-lessons-{step:09d}.pt"
    torch.save([asdict(lesson) for lesson in lessons], path)
    return path


def diverged(setbacks: Setbacks, step: int, kept: Path) -> TrainingError:
    """What ends a run."""
    return TrainingError(
        f"the loss or its gradient was no finite number {setbacks.in_a_row} steps in a row, up to step {step}: lower "
        f"`rate`, or look for extreme values in the events; the last batch is in {kept}"
    )
