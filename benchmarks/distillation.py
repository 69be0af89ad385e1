"""A small model taught by a large one, beside the same small model that learns alone, on Complete Journey.

The teacher is of width 160 and four layers, its students of width 16 and two: less than an eighth of its parameters,
most of which are rows of items. All learn the part before validation with the recipe of docs/log.md; students with and
without the teacher in as many passes, with the same seeds. Judged on the validation part by the whole model's scores,
paired over households, seeds averaged; the share that is kept is of the teacher's own NDCG@10.

`python -m benchmarks distillation --json benchmarks/results/distillation.json`
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.logs import Log, corpus_of
from benchmarks.measure import Estimate, Measured, at_least
from benchmarks.trials import Progress
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training import metrics
from training.distill import Distillation, distillation_of, parameters
from training.holdout import Columns, Part, hold_out
from training.metrics import Floats
from training.pretrain import pretrain_bare
from training.ranking import Slice, evaluate
from training.recipes import Recipe, default, with_overrides
from training.run import Run, start
from training.scorers import model_scorers

LARGE = {"width": "160", "layers": "4", "heads": "5"}
SMALL = {"width": "16", "layers": "2", "heads": "1"}
EPOCHS = {"teacher": 2, "student": 4}
SEEDS = 3
KEPT, SMALLER = 0.97, 8.0
SCORES = {"model": "ndcg@10", "embedding": "embedding_ndcg@10"}


def run(progress: Progress) -> Measured:
    """Figures: ndcg@10 of teacher and students, of whole scores and of stored vectors; kept, smaller, gained."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        corpus = corpus_of(Log.JOURNEY, home / "logs", progress)
        teacher = _trained(corpus, home / "teacher", _recipe(corpus, LARGE, "teacher", 0), None, progress)
        taught = distillation_of(teacher.model)
        alone, distilled = [], []
        for seed in range(SEEDS):
            recipe = _recipe(corpus, SMALL, "student", seed)
            alone.append(_trained(corpus, home / f"alone-{seed}", recipe, None, progress))
            distilled.append(_trained(corpus, home / f"distilled-{seed}", recipe, taught, progress))
        runs = {"teacher": [teacher], "alone": alone, "distilled": distilled}
        judged = {name: _judged(some, corpus) for name, some in runs.items()}
        smaller = parameters(teacher.model) / parameters(distilled[0].model)
    return measured(judged, smaller)


def measured(judged: Mapping[str, Mapping[str, Floats]], smaller: float) -> Measured:
    """judged: of teacher, alone and distilled, each score's NDCG@10 by household, [U]. smaller: how many times fewer
    parameters a student has."""
    figures = {"smaller": smaller}
    for name, found in judged.items():
        figures |= {f"{name}.{SCORES[score]}": metrics.mean(values) for score, values in found.items()}
    teacher, alone, distilled = (judged[name]["model"] for name in ("teacher", "alone", "distilled"))
    kept, gained = share(distilled, teacher), metrics.paired_bootstrap(distilled, alone)
    figures |= {"kept": kept.median, "kept_low": kept.low, "kept_high": kept.high}
    figures |= {"gained": gained.mean, "gained_low": gained.low, "gained_high": gained.high}
    stored = metrics.paired_bootstrap(judged["distilled"]["embedding"], judged["alone"]["embedding"])
    figures |= {"embedding_gained": stored.mean, "embedding_gained_low": stored.low}
    figures["embedding_gained_high"] = stored.high
    bars = (
        at_least("kept", kept, KEPT),
        at_least("smaller", Estimate(smaller, smaller, smaller), SMALLER),
        at_least("gained", Estimate(gained.mean, gained.low, gained.high), 0.0),
    )
    return Measured(figures, bars)


def share(some_U: Floats, whole_U: Floats) -> Estimate:
    """Mean of the one ÷ mean of the other, with a 95 % interval over households."""
    draw = np.random.default_rng(0).integers(0, len(some_U), (2_000, len(some_U)))
    low, high = np.quantile(some_U[draw].mean(1) / whole_U[draw].mean(1), (0.025, 0.975))
    return Estimate(float(some_U.mean() / whole_U.mean()), float(low), float(high))


def _recipe(corpus: Corpus, size: Mapping[str, str], who: str, seed: int) -> Recipe:
    recipe = with_overrides(default(corpus), dict(size))
    return replace(recipe, epochs=EPOCHS[who], seed=seed)


def _trained(corpus: Corpus, folder: Path, recipe: Recipe, taught: Distillation | None, progress: Progress) -> Run:
    run = start(corpus, folder, recipe, origin=taught)
    pretrain_bare(run, lambda record: progress(folder.name, record.step, record.steps))
    return run


def _judged(runs: Sequence[Run], corpus: Corpus) -> dict[str, Floats]:
    """Each score's NDCG@10 by household, [U], the mean over the runs."""
    held = hold_out(corpus.tokens(), Columns.of(corpus.tokenizer), corpus.split, Part.VALIDATION)
    found: dict[str, list[Floats]] = {score: [] for score in SCORES}
    for run in runs:
        scorers = model_scorers(Subgraph.from_pretrained(run.model))
        judged = evaluate(held, scorers, len(corpus.tokenizer.items)).judged
        for score, values in found.items():
            values.append(judged[score].values[Slice.ALL]["ndcg@10"])
    return {score: np.asarray(np.mean(values, axis=0)) for score, values in found.items()}
