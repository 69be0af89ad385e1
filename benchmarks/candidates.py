"""Target-aware scoring: what 500 candidates cost beside one, and what it gains over the dot product.

The cost is that of a user of 2,048 events: encoding them and scoring so many candidates. The gain is that of the trials
of `benchmarks ablations`: every second household of Complete Journey, judged on validation; differences are paired over
households, each the mean of the seeds.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.ablations import CACHE, SEEDS, Slice, corpus_of, recipe_of
from benchmarks.measure import Measured, at_most, estimate, in_turns
from benchmarks.trials import Outcome, Progress, Trial, difference, run_trials, spread
from foundation.jagged import EventBatch, requests_now
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.training_set import read_training_set, select_users

HISTORY, CANDIDATES = 2_048, 500
COST_BAR = 1.5
TARGET_AWARE = {"candidates.layers": "1"}


def run(progress: Progress) -> Measured:
    """Figures: cost_500_over_1 with its interval and both times; NDCG@10 with and without, by scorer, and the
    differences with their intervals."""
    with tempfile.TemporaryDirectory() as folder:
        path = corpus_of(Slice.JOURNEY, Path(folder), progress)
        corpus = Corpus.open(path)
        costs = cost(corpus, progress)
        trials = {
            f"{name}/{seed}": Trial(path, recipe_of(corpus, settings, seed))
            for name, settings in (("on", TARGET_AWARE), ("off", {}))
            for seed in SEEDS
        }
        found = dict(run_trials(trials, CACHE, len(os.sched_getaffinity(0)), progress))
    on, off = ([found[f"{name}/{seed}"] for seed in SEEDS] for name in ("on", "off"))
    return Measured({**costs.figures, **gains(on, off)}, costs.bars)


def cost(corpus: Corpus, progress: Progress) -> Measured:
    """Encode one user of 2,048 events and score 500 candidates, beside the same and one candidate."""
    recipe = recipe_of(corpus, TARGET_AWARE, 0)
    training_set = read_training_set(corpus, recipe.model)
    model = initial_model(training_set, corpus, recipe).eval()
    batch = _long_history(training_set.events)
    untold = torch.zeros(1, len(recipe.model.context), dtype=torch.int64)
    code_1N = torch.from_numpy(np.argsort(-training_set.count_V)[:CANDIDATES].copy())[None]

    def asked(candidates: int) -> Callable[[], None]:
        def answer() -> None:
            with torch.inference_mode():
                model.scores_of(model(batch, requests_now(batch, None, untold)), code_1N[:, :candidates])

        return answer

    def told(done: int, total: int) -> None:
        progress("500 and 1", done, total)

    many, one = in_turns(asked(CANDIDATES), asked(1), pairs=25, progress=told)
    ratio = estimate(many / one)
    figures = {
        "cost_500_over_1": ratio.median,
        "cost_500_over_1_low": ratio.low,
        "cost_500_over_1_high": ratio.high,
        "seconds_1": float(np.median(one)),
        "seconds_500": float(np.median(many)),
        "history": batch.tokens,
        "threads": torch.get_num_threads(),
    }
    return Measured(figures, (at_most("cost_500_over_1", ratio, COST_BAR),))


def gains(on: Sequence[Outcome], off: Sequence[Outcome]) -> dict[str, float]:
    """What target-aware scores have over the dot product and the plain scores of the same models, and over the plain
    scores of models that learned without."""
    figures = {f"on.{name}": spread(on, name)[0] for name in ("target_aware", "model", "embedding")}
    figures |= {f"off.{name}": spread(off, name)[0] for name in ("model", "embedding")}
    for name, beside, figure in (("embedding", on, "embedding"), ("model", on, "model"), ("off", off, "model")):
        gap = difference(on, "target_aware", beside, figure)
        told = f"target_aware_minus_{name}"
        figures |= {told: gap.mean, f"{told}_low": gap.low, f"{told}_high": gap.high}
    return figures


def _long_history(events: EventBatch) -> EventBatch:
    """The last 2,048 tokens of the user who has most."""
    longest = int((events.offset_B1[1:] - events.offset_B1[:-1]).argmax())
    user = select_users(events, torch.tensor([longest]))
    keep_T = torch.arange(user.tokens) >= user.tokens - HISTORY
    return user.picked(keep_T, torch.tensor([0, int(keep_T.sum())]), torch.tensor([0]))
