"""From event files to a corpus: Complete Journey beside the least that any tool has to do for it, then logs of up to 20
million generated events, one user's last events live, and users packed into batches.

The floor reads the same events with polars, sorts them by household and time, groups them by household and writes one
row a household: no check, no vocabulary, no code, no item text. Ours does all of that, the text vectors of 92,331
products included.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.generated import write_log
from benchmarks.measure import Bar, Estimate, Measured, at_least, at_most, estimate, in_turns
from tokenization.corpus.corpus import Corpus
from tokenization.corpus.packing import fill, pack
from tokenization.corpus.windows import cut_windows
from tokenization.job.pipeline import tokenize
from tokenization.sources.tables import read_events
from userfm import complete_journey

Floats = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

TIME_OVER_FLOOR = 2.5
EVENTS_PER_SECOND = 1_480_000 / 25
"""The demo leaves its first step 25 s on two cores."""
SIZES = (1_000_000, 4_000_000, 20_000_000)
"""Events of the generated logs; the largest is a log that is not held in memory."""
ROUNDS = 3
RSS_GIB, EXPONENT = 3.0, 1.1
LIVE_EVENTS, LIVE_USERS, LIVE_MS = 50, 100, 1.0
BUDGET, EPOCHS, FILL = 8_192, 9, 0.98


def run(progress: Progress) -> Measured:
    """Figures of all parts; see the functions below."""
    with tempfile.TemporaryDirectory() as folder:
        journey = _journey(Path(folder), progress)
        corpus = Corpus.open(Path(folder) / "corpus")
        live = live_ms(corpus, Path(folder) / "events.parquet")
        packing = packing_fill(corpus)
    with tempfile.TemporaryDirectory() as folder:
        generated = _generated(Path(folder), progress)
    figures = {**journey.figures, "live_ms_50_events": live.median, "packing_fill": packing.median, **generated.figures}
    bars = (at_most("live_ms_50_events", live, LIVE_MS), at_least("packing_fill", packing, FILL))
    return Measured(figures, (*journey.bars, *bars, *generated.bars))


def _journey(folder: Path, progress: Progress) -> Measured:
    """Figures: events, tokens, seconds, floor_seconds, time_over_floor with its interval, events_per_second, pairs."""
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


def live_ms(corpus: Corpus, events: Path) -> Estimate:
    """Milliseconds from a user's last 50 events, as Python values, to their tokens, in a process that is warm."""
    tokenizer = corpus.tokenizer
    log = read_events(events, tokenizer.schema)
    user = tokenizer.schema.user
    counts = pc.value_counts(log[user]).to_pylist()
    users = [entry["values"] for entry in counts if entry["counts"] >= LIVE_EVENTS][:LIVE_USERS]
    rows = [log.filter(pc.equal(log[user], name)).slice(0, LIVE_EVENTS).to_pylist() for name in users]
    for warm in rows:
        tokenizer.encode(warm)
    taken = np.zeros(len(rows))
    for number, asked in enumerate(rows):
        start = time.perf_counter()
        tokenizer.encode(asked)
        taken[number] = 1e3 * (time.perf_counter() - start)
    return estimate(taken)


def packing_fill(corpus: Corpus) -> Estimate:
    """Share of 8,192 tokens that the mean batch of an epoch holds, over some epochs of a corpus."""
    group = corpus.tokens(["group"])["group"].combine_chunks()
    sizes = pc.list_value_length(group).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    lengths = cut_windows(offsets, group.flatten().to_numpy(), BUDGET, BUDGET // 4).lengths
    fills = [fill(lengths, pack(lengths, BUDGET, epoch), BUDGET) for epoch in range(EPOCHS)]
    return estimate(np.array(fills))


def _generated(folder: Path, progress: Progress) -> Measured:
    """Figures: seconds_1m, seconds_4m, seconds_20m, rss_gib_20m (of the round that held most), scaling_exponent."""
    logs = [write_log(folder / f"{size}", size, progress=_told(progress, f"write {size:,}")) for size in SIZES]
    seconds, memory = np.zeros((2, ROUNDS, len(SIZES)))
    for turn in range(ROUNDS):
        for place, (schema, events) in enumerate(logs):
            found = _once(schema, events, folder / "corpus")
            seconds[turn, place], memory[turn, place] = found["seconds"], found["rss_gib"]
            progress("generated logs", turn * len(SIZES) + place + 1, ROUNDS * len(SIZES))
    exponent = estimate(np.array([scaling_exponent(SIZES, times) for times in seconds]))
    largest = float(memory[:, -1].max())
    return Measured(
        {
            **{f"seconds_{size // 1_000_000}m": float(np.median(s)) for size, s in zip(SIZES, seconds.T, strict=True)},
            "rss_gib_20m": largest,
            "scaling_exponent": exponent.median,
            "scaling_exponent_low": exponent.low,
            "scaling_exponent_high": exponent.high,
        },
        (_below("rss_gib_20m", largest, RSS_GIB), at_most("scaling_exponent", exponent, EXPONENT)),
    )


def _once(schema: Path, events: Path, out: Path) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tokenize_once", str(schema), str(events), str(out)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def scaling_exponent(sizes: tuple[int, ...], seconds: Floats) -> float:
    """The slope of the line through log(size), log(seconds): 1 where twice the events take twice as long."""
    return float(np.polyfit(np.log(np.asarray(sizes, np.float64)), np.log(seconds), 1)[0])


def _below(name: str, value: float, bar: float) -> Bar:
    return at_most(name, Estimate(value, value, value), bar)


def _told(progress: Progress, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(stage, done, total)
