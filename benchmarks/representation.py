"""How a user is read: by which layers, over which of the last states, as one vector or as several.

Every second household of Complete Journey, one pass, three seeds, judged on the validation part; differences from the
last layer's newest state are paired over households, each the mean of the seeds. `stored` is the dot product of the
stored vector, `whole` the whole model, `interests` an item's best product with several vectors. The first dimensions of
a stored vector are measured by `python -m benchmarks small`, the windows of attention by `window_sizes`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.ablations import CACHE, SEEDS, Slice, corpus_of, recipe_of
from benchmarks.measure import Measured
from benchmarks.trials import Outcome, Progress, Trial, difference, run_trials, spread
from tokenization.corpus.corpus import Corpus

WAYS: Mapping[str, Mapping[str, str]] = {
    "newest": {},
    "layers": {"state_layers": "0,1"},
    "short": {"pools": "8"},
    "long": {"pools": "64"},
    "short_and_long": {"pools": "8,64"},
    "interests": {"interests": "4"},
}
FIGURES = {"stored": "embedding", "whole": "model"}


def run(progress: Progress) -> Measured:
    """NDCG@10 by way and what it has over the newest state, with its interval."""
    with tempfile.TemporaryDirectory() as folder:
        path = corpus_of(Slice.JOURNEY, Path(folder), progress)
        corpus = Corpus.open(path)
        trials = {
            f"{way}/{seed}": Trial(path, recipe_of(corpus, dict(settings), seed))
            for way, settings in WAYS.items()
            for seed in SEEDS
        }
        found = dict(run_trials(trials, CACHE, len(os.sched_getaffinity(0)), progress))
    return Measured(figures({way: [found[f"{way}/{seed}"] for seed in SEEDS] for way in WAYS}), ())


def figures(found: Mapping[str, list[Outcome]]) -> dict[str, float]:
    """By way: the mean over seeds and users, and the difference from `newest`."""
    told: dict[str, float] = {}
    for way, outcomes in found.items():
        kinds = {**FIGURES, "interests": "interests"} if way == "interests" else FIGURES
        for kind, figure in kinds.items():
            told[f"{way}.{kind}"] = spread(outcomes, figure)[0]
            if way != "newest":
                gap = difference(outcomes, figure, found["newest"], FIGURES.get(kind, FIGURES["stored"]))
                told |= {f"{way}.{kind}.more": gap.mean, f"{way}.{kind}.low": gap.low, f"{way}.{kind}.high": gap.high}
        told[f"{way}.seconds"] = sum(outcome.seconds for outcome in outcomes) / len(outcomes)
    return told
