"""AdamW, Muon and Sophia on Complete Journey: three rates each, as many steps each, judged on the validation week.

One pass over every third household with a model of width 32 and two layers, judged on the same households. Everything
but the method and its rate is the same in all runs, the item tables' own optimiser included. One seed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Measured
from foundation.model import FoundationModel
from foundation.space import Space
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training import metrics
from training.data import TrainingSet, read_training_set, select_users
from training.holdout import Columns, Part, hold_out
from training.loop import train
from training.metrics import Floats
from training.optimisers import Method
from training.parallel import Ranks
from training.pretrain import initial_model
from training.ranking import Slice, evaluate
from training.recipes import Recipe, small
from training.scorers import model_scorers
from userfm import complete_journey

Progress = Callable[[str, int, int], None]

RATES: Mapping[Method, tuple[float, ...]] = {
    Method.ADAMW: (3e-3, 6e-3, 1.2e-2),
    Method.MUON: (3e-3, 6e-3, 1.2e-2),
    Method.SOPHIA: (1.5e-3, 3e-3, 6e-3),
}
EVERY = 3
"""One household of so many is learned from and judged."""
LAST = 15
"""The final loss is the mean over so many last steps."""


def run(progress: Progress) -> Measured:
    """Figures by method and rate: ndcg@10 on the validation week, final_loss, cpu_seconds, steps.

    By method also the best of its rates less the best of AdamW's, paired over households, with its interval.
    """
    with tempfile.TemporaryDirectory() as folder:
        events, items = complete_journey.prepare(Path(folder), progress)
        corpus = tokenize(complete_journey.schema_path(), events, items, Path(folder) / "corpus")
        figures: dict[str, float] = {}
        best: dict[Method, Floats] = {}
        for method, rates in RATES.items():
            for rate in rates:
                name = f"{method}-{rate:g}"
                found, ndcg_U = judged(corpus, Path(folder) / name, method, rate, progress)
                figures |= {f"{name}.{figure}": value for figure, value in found.items()}
                if method not in best or metrics.mean(ndcg_U) > metrics.mean(best[method]):
                    best[method] = ndcg_U
        return Measured(figures | differences(best), ())


def differences(best: Mapping[Method, Floats]) -> dict[str, float]:
    """NDCG@10 of each method's best rate less AdamW's, with the interval over households."""
    figures: dict[str, float] = {}
    for method in (Method.MUON, Method.SOPHIA):
        gap = metrics.paired_bootstrap(best[method], best[Method.ADAMW])
        name = f"{method}_minus_{Method.ADAMW}"
        figures |= {name: gap.mean, f"{name}_low": gap.low, f"{name}_high": gap.high}
    return figures


def recipe_by(corpus: Corpus, method: Method, rate: float) -> Recipe:
    """The recipe that all runs share, moved by one method."""
    recipe = small(corpus)
    return replace(
        recipe,
        model=replace(recipe.model, layers=2, heads=2),
        sampling=replace(recipe.sampling, requests=12),
        epochs=1,
        optimisation=replace(recipe.optimisation, method=method, rate=rate),
    )


def judged(
    corpus: Corpus, checkpoints: Path, method: Method, rate: float, progress: Progress
) -> tuple[dict[str, float], Floats]:
    """What one run reached and what it took, and NDCG@10 of each household."""
    recipe = recipe_by(corpus, method, rate)
    training_set = _some_households(read_training_set(corpus, recipe.model))
    model = initial_model(training_set, corpus, recipe)
    losses: list[float] = []

    def told(record: Any) -> None:
        losses.append(record.loss)
        progress(checkpoints.name, record.step, record.steps)

    began = time.process_time()
    train(model, training_set, recipe, checkpoints, Ranks.alone(), told)
    seconds = time.process_time() - began
    ndcg_U = _ndcg(model, corpus)
    found = {
        "ndcg@10": metrics.mean(ndcg_U),
        "final_loss": float(np.mean(losses[-LAST:])),
        "cpu_seconds": seconds,
        "steps": len(losses),
    }
    return found, ndcg_U


def _some_households(training_set: TrainingSet) -> TrainingSet:
    rows = torch.arange(0, training_set.events.users, EVERY)
    return replace(training_set, events=select_users(training_set.events, rows), fresh_B=training_set.fresh_B[rows])


def _ndcg(model: FoundationModel, corpus: Corpus) -> Floats:
    """NDCG@10 of those households in the validation week, told time and context; NaN of whoever has nothing to find."""
    tokenizer = corpus.tokenizer
    subgraph = Subgraph(model.eval(), tokenizer, Space(tokenizer.schema.name, 1, "", model.width, 0.0))
    tokens = corpus.tokens()
    some = tokens.take(np.arange(0, tokens.num_rows, EVERY))
    holdout = hold_out(some, Columns.of(tokenizer), corpus.split, Part.VALIDATION)
    scorers = {"model": model_scorers(subgraph)["model"]}
    return evaluate(holdout, scorers, len(tokenizer.items)).judged["model"].values[Slice.ALL]["ndcg@10"]
