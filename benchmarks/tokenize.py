"""Complete Journey from event files to a corpus, beside the least that any tool has to do for it.

The floor reads the same events with polars, sorts them by household and time, groups them by household and writes one
row a household: no check, no vocabulary, no code, no item text. Ours does all of that, the text vectors of 92,331
products included.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.measure import Measured, at_least, at_most, estimate, in_turns
from tokenization.corpus import Corpus
from tokenization.pipeline import tokenize
from userfm import complete_journey

TIME_OVER_FLOOR = 2.5
EVENTS_PER_SECOND = 1_480_000 / 25
"""The demo leaves its first step 25 s on two cores."""


def run(progress: Callable[[str, int, int], None]) -> Measured:
    """Figures: events, tokens, seconds, floor_seconds, time_over_floor with its interval, events_per_second."""
    with tempfile.TemporaryDirectory() as folder:
        return _measured(Path(folder), progress)


def _measured(folder: Path, progress: Callable[[str, int, int], None]) -> Measured:
    events, items = complete_journey.prepare(folder, progress)
    corpus = folder / "corpus"

    def ours() -> None:
        shutil.rmtree(corpus, ignore_errors=True)
        tokenize(complete_journey.schema_path(), events, items, corpus)

    def floor() -> None:
        _read_sort_group_write(events, folder / "floor.parquet")

    seconds, floors = in_turns(ours, floor, progress=lambda done, total: progress("pairs", done, total))
    summary = Corpus.open(corpus).summary
    ratio, speed = estimate(seconds / floors), estimate(summary["events"] / seconds)
    figures = {
        "events": summary["events"],
        "tokens": summary["tokens"],
        "seconds": float(np.median(seconds)),
        "floor_seconds": float(np.median(floors)),
        "time_over_floor": ratio.median,
        "time_over_floor_low": ratio.low,
        "time_over_floor_high": ratio.high,
        "events_per_second": speed.median,
        "pairs": len(seconds),
    }
    bars = (
        at_most("time_over_floor", ratio, TIME_OVER_FLOOR),
        at_least("events_per_second", speed, EVENTS_PER_SECOND),
    )
    return Measured(figures, bars)


def _read_sort_group_write(events: Path, out: Path) -> None:
    """The fastest of the ways to write this in polars that were tried."""
    (
        pl.scan_parquet(events)
        .sort(["household_id", "time", "basket_id", "product_id"])
        .group_by("household_id", maintain_order=True)
        .agg(pl.all())
        .sink_parquet(out)
    )
