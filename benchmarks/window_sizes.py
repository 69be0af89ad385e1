"""Quality beside window size, for households with more than 1,000 events.

Complete Journey; a model for each window learns one pass over every second household, two seeds, and is judged on the
validation part of those with long histories. The windows' cost is in seconds a run. Draws
docs/figures/window_sizes.svg.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.ablations import CACHE, Slice, corpus_of, recipe_of
from benchmarks.measure import Measured
from benchmarks.plots import Line, lines
from benchmarks.trials import Outcome, Progress, Trial, mean_by_user, run_trials
from tokenization.corpus.corpus import Corpus
from training import metrics
from training.metrics import Floats, Interval
from training.rows import list_values

LONG = 1_000
SEEDS = (0, 1)
WINDOWS = (8, 32, 64, 256, 1_024)
BESIDE = "64"  # the default recipe's
SETTINGS: Mapping[str, Mapping[str, str]] = {
    **{str(window): {"windows": str(window)} for window in WINDOWS},
    "64 and memory": {"windows": "64", "memory": "2", "sinks": "16"},
    "everything": {"windows": "0"},
}
PICTURE = Path(__file__).parent.parent / "docs" / "figures" / "window_sizes.svg"


def run(progress: Progress) -> Measured:
    """Figures by window: ndcg@10 and embedding of long histories, their differences to 64, and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = corpus_of(Slice.JOURNEY, Path(folder), progress)
        corpus = Corpus.open(path)
        users = long_histories(corpus)
        trials = {
            f"{name}/{seed}": Trial(path, recipe_of(corpus, settings, seed))
            for name, settings in SETTINGS.items()
            for seed in SEEDS
        }
        found = dict(run_trials(trials, CACHE, len(os.sched_getaffinity(0)), progress))
    of_users = {name: _of(found, name, users) for name in SETTINGS}
    gaps = {name: _beside(values, of_users[BESIDE]) for name, values in of_users.items()}
    figures: dict[str, float] = {"households": float(len(of_users[BESIDE]["model"]))}
    for name, values in of_users.items():
        for figure, value_U in values.items():
            gap, told = gaps[name][figure], f"{name}.{figure}"
            figures |= {told: metrics.mean(value_U), f"{told}_minus_64": gap.mean}
            figures |= {f"{told}_minus_64_low": gap.low, f"{told}_minus_64_high": gap.high}
        figures[f"{name}.seconds"] = float(np.median([found[f"{name}/{seed}"].seconds for seed in SEEDS]))
    _draw(gaps)
    return Measured(figures, ())


def long_histories(corpus: Corpus) -> set[str]:
    """Ids of the users with more than 1,000 events before validation, as text."""
    tokens = corpus.tokens()
    time_T, offset_R = list_values(tokens["time"])
    assert corpus.split.validation is not None
    before_T = np.concatenate([[0], np.cumsum(time_T < corpus.split.validation)])
    events_R = before_T[offset_R[1:]] - before_T[offset_R[:-1]]
    return {str(user) for user in np.array(tokens["user_id"].to_pylist())[events_R > LONG]}


def _of(found: Mapping[str, Outcome], name: str, users: set[str]) -> dict[str, Floats]:
    outcomes = [found[f"{name}/{seed}"] for seed in SEEDS]
    judged = sorted(users & set(outcomes[0].users))
    return {figure: mean_by_user(outcomes, figure, judged) for figure in ("model", "embedding")}


def _beside(values: Mapping[str, Floats], others: Mapping[str, Floats]) -> dict[str, Interval]:
    return {figure: metrics.paired_bootstrap(value_U, others[figure]) for figure, value_U in values.items()}


def _draw(gaps: Mapping[str, Mapping[str, Interval]]) -> None:
    named = {}
    for figure in ("model", "embedding"):
        ends = [gaps[str(window)][figure] for window in WINDOWS]
        named[figure] = Line([e.mean for e in ends], [e.low for e in ends], [e.high for e in ends])
    places = [float(np.log2(window)) for window in WINDOWS]
    title = f"Households with more than {LONG:,} events"
    lines(PICTURE, places, named, "window in tokens, log2", f"NDCG@10, beside a window of {BESIDE}", title)
