"""What a step costs besides its time: waiting for its lesson, memory, how much of the device it uses."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from foundation.config import ModelConfig
from foundation.lesson import Lesson, Objectives
from training.flops import lesson_flops, peak_flops

GIB = 1 << 30
COUNTING = 1 / 200  # share of a run's time that counting its operations may take


@dataclass(frozen=True)
class Measured:
    """One step of one rank.

    data_wait: share of its seconds spent waiting for its lesson. memory_gib: the most memory that the process has had
    so far, in GiB; on CUDA the most that its tensors have had there. mfu: model FLOPs utilisation, the share of what
    the device could compute in that time. None is what can't be known here.
    """

    data_wait: float | None = None
    memory_gib: float | None = None
    mfu: float | None = None


class Meter:
    """Measures the steps of one rank.

    Operations are counted lesson by lesson as long as that takes next to nothing; of small lessons, whose steps are as
    short, only some are counted, and those between have as many a token as the last one that was.
    """

    def __init__(self, config: ModelConfig, objectives: Objectives, device: torch.device, taught: bool = False) -> None:
        """taught: by another model, whose operations nobody counts: then the utilisation is not known."""
        self._config, self._objectives, self._device = config, objectives, device
        self._peak = None if taught else peak_flops(device)
        self._flops_per_token, self._counting, self._stepping = 0.0, 0.0, 0.0

    def step(self, own: Sequence[Lesson], waited: float, seconds: float) -> Measured:
        """One step. own: the lessons that this rank learned in it. waited: seconds until they were there. seconds: of
        all of it."""
        self._stepping += seconds
        mfu = None
        if self._peak is not None and seconds > 0:
            mfu = sum(map(self._flops, own)) / seconds / self._peak
        return Measured(waited / seconds if seconds > 0 else None, peak_memory(self._device), mfu)

    def _flops(self, lesson: Lesson) -> float:
        tokens = lesson.batch.tokens
        if tokens and self._counting <= COUNTING * self._stepping:
            begun = time.perf_counter()
            self._flops_per_token = lesson_flops(self._config, self._objectives, lesson).step / tokens
            self._counting += time.perf_counter() - begun
        return self._flops_per_token * tokens


def peak_memory(device: torch.device) -> float | None:
    """The most memory so far, in GiB: of tensors on a CUDA device, else of this process; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    if sys.platform == "win32":
        return None
    import resource  # late: Windows has none

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere: getrusage(2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
