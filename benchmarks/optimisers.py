"""AdamW, Muon and Sophia on Complete Journey: three rates each, as many steps each, judged on the validation week.

One pass over the households with a model of width 32 and two layers. Everything but the method and its rate is the same
in all runs, the item tables' own optimiser included. One seed: differences below .005 in NDCG@10 say nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Measured
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training.evaluate import evaluate_run
from training.holdout import Part
from training.optimisers import Method
from training.pretrain import pretrain_bare, start
from training.ranking import Slice
from training.recipes import Recipe, small
from userfm import complete_journey

Progress = Callable[[str, int, int], None]

RATES: Mapping[Method, tuple[float, ...]] = {
    Method.ADAMW: (3e-3, 6e-3, 1.2e-2),
    Method.MUON: (3e-3, 6e-3, 1.2e-2),
    Method.SOPHIA: (1.5e-3, 3e-3, 6e-3),
}
LAST = 20
"""The final loss is the mean over so many last steps."""


def run(progress: Progress) -> Measured:
    """Figures by method and rate: ndcg@10 on the validation week, final_loss, cpu_seconds, steps."""
    with tempfile.TemporaryDirectory() as folder:
        events, items = complete_journey.prepare(Path(folder), progress)
        corpus = tokenize(complete_journey.schema_path(), events, items, Path(folder) / "corpus")
        figures: dict[str, float] = {}
        for method, rates in RATES.items():
            for rate in rates:
                name = f"{method}-{rate:g}"
                found = trained(corpus, Path(folder) / name, method, rate, progress)
                figures |= {f"{name}.{figure}": value for figure, value in found.items()}
        return Measured(figures, ())


def recipe_by(corpus: Corpus, method: Method, rate: float) -> Recipe:
    """The recipe that all runs share, moved by one method."""
    recipe = small(corpus)
    return replace(
        recipe,
        model=replace(recipe.model, layers=2, heads=2),
        epochs=1,
        optimisation=replace(recipe.optimisation, method=method, rate=rate),
    )


def trained(corpus: Corpus, folder: Path, method: Method, rate: float, progress: Progress) -> dict[str, float]:
    """What one run reached, and the processor's seconds it took to train."""
    losses: list[float] = []

    def told(record: Any) -> None:
        losses.append(record.loss)
        progress(folder.name, record.step, record.steps)

    began = time.process_time()
    pretrain_bare(start(corpus, folder, recipe_by(corpus, method, rate)), told)
    seconds = time.process_time() - began
    judged = evaluate_run(folder, corpus, Part.VALIDATION).judged["model"].values[Slice.ALL]["ndcg@10"]
    return {
        "ndcg@10": float(np.mean(judged)),
        "final_loss": float(np.mean(losses[-LAST:])),
        "cpu_seconds": seconds,
        "steps": len(losses),
    }
