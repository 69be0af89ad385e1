"""Measuring on noisy machines: two things in turns, the ratio of each pair, an outcome that may be "inconclusive"."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.verdicts import Outcome

Floats = NDArray[np.float64]
PAIRS = 9
"""So many turns at least: fewer give an interval that means little."""
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A median with its 95 % bootstrap interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """A figure held against what it has to reach, and how that ended."""

    name: str
    value: float
    bar: float
    verdict: Outcome


@dataclass(frozen=True)
class Measured:
    """What one benchmark found: figures by name, and those of them that have a bar."""

    figures: Mapping[str, float]
    bars: tuple[Bar, ...]


def joined(parts: Sequence[Measured]) -> Measured:
    """What several benchmarks found, as one."""
    figures = {name: value for part in parts for name, value in part.figures.items()}
    return Measured(figures, tuple(bar for part in parts for bar in part.bars))


def in_turns(
    first: Callable[[], object],
    second: Callable[[], object],
    pairs: int = PAIRS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Floats, Floats]:
    """Time two things A B A B, after one turn of each that does not count.

    Args:
        pairs: how many turns, at least 9.
        progress: called with (pairs done, pairs in all).

    Returns:
        Seconds [pairs] of the first, and of the second.

    Raises:
        ValueError: fewer than 9 pairs.
    """
    seconds = readings_in_turns((_timed(first), _timed(second)), pairs, progress)
    return seconds[0], seconds[1]


def readings_in_turns(
    readings: Sequence[Callable[[], float]],
    pairs: int = PAIRS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Floats:
    """`in_turns` of any number of things, each of which says itself what it measured: float64 [things, pairs]."""
    if pairs < PAIRS:
        raise ValueError(f"{pairs} pairs are too few to judge by; take at least {PAIRS}")
    for reading in readings:
        reading()
    found = np.zeros((len(readings), pairs))
    for pair in range(pairs):
        for place, reading in enumerate(readings):
            found[place, pair] = reading()
        progress(pair + 1, pairs)
    return found


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def seconds() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return seconds


def estimate(values: Floats, seed: int = 0) -> Estimate:
    """Median of values [n] with a 95 % interval: percentiles of the medians of resampled values.

    Source: Efron, B. (1979), Bootstrap methods: another look at the jackknife.
    """
    rows = np.random.default_rng(seed).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(np.median(values[rows], axis=1), [2.5, 97.5])
    return Estimate(float(np.median(values)), float(low), float(high))


def at_most(name: str, found: Estimate, bar: float) -> Bar:
    """Met where the whole interval lies at or below the bar, missed where it lies above."""
    return _judged(name, found, bar, found.high <= bar, found.low > bar)


def at_least(name: str, found: Estimate, bar: float) -> Bar:
    """Met where the whole interval lies at or above the bar, missed where it lies below."""
    return _judged(name, found, bar, found.low >= bar, found.high < bar)


def _judged(name: str, found: Estimate, bar: float, met: bool, missed: bool) -> Bar:
    verdict = Outcome.MET if met else Outcome.MISSED if missed else Outcome.INCONCLUSIVE
    return Bar(name, found.median, bar, verdict)
