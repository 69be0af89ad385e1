"""Target-aware scoring: what 500 candidates cost beside one, and what it gains over the dot product.

The cost is that of a user of 2,048 events: encoding them and scoring so many candidates. The gain is taken on Complete
Journey: models with and without learn for the same processor time from what lies before the validation week, and are
judged on it; differences are paired over households, each the mean of the seeds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Measured, at_most, estimate, in_turns
from foundation.config import CandidateConfig
from foundation.jagged import EventBatch, moved, requests_now
from foundation.learning import losses
from foundation.model import FoundationModel
from foundation.pretrained import Pretrained
from foundation.space import Space
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training import metrics
from training.data import Position, lessons, read_training_set, select_users
from training.holdout import Columns, Part, hold_out
from training.loop import Progress, schedule
from training.metrics import Floats
from training.optimisers import Optimisers
from training.parallel import Ranks, global_loss
from training.pretrain import initial_model
from training.ranking import Slice, evaluate
from training.recipes import Recipe, default
from training.scorers import model_scorers
from userfm import complete_journey

Told = Callable[[str, int, int], None]
HISTORY, CANDIDATES = 2_048, 500
COST_BAR = 1.5
SECONDS, SEEDS = 90.0, (0, 1)
VARIANTS: Mapping[str, CandidateConfig] = {"off": CandidateConfig(), "on": CandidateConfig(layers=1, reach=64)}
Values = dict[str, Floats]
"""NDCG@10 of each household by scorer."""


def run(progress: Told) -> Measured:
    """Figures: cost_500_over_1 with its interval and both times; by variant and scorer NDCG@10, Recall@50 on new items
    and steps, and the differences with their intervals."""
    with tempfile.TemporaryDirectory() as folder:
        events, items = complete_journey.prepare(Path(folder), progress)
        corpus = tokenize(complete_journey.schema_path(), events, items, Path(folder) / "corpus")
        costs = cost(corpus, progress)
        return Measured({**costs.figures, **quality(corpus, VARIANTS, SECONDS, SEEDS, progress)}, costs.bars)


def cost(corpus: Corpus, progress: Told) -> Measured:
    """Encode one user of 2,048 events and score 500 candidates, beside the same and one candidate."""
    recipe = _recipe(corpus, VARIANTS["on"])
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


def quality(
    corpus: Corpus, variants: Mapping[str, CandidateConfig], seconds: float, seeds: Sequence[int], progress: Told
) -> dict[str, float]:
    """Train each variant for so many seconds of processor time with each seed, and judge the validation part.

    The first variant is what the others are held against, by their best scorer and its `model`.
    """
    figures: dict[str, float] = {}
    found: dict[str, Values] = {}
    for name, candidates in variants.items():
        runs = []
        for seed in seeds:
            recipe = replace(_recipe(corpus, candidates), seed=seed)
            model, steps = trained(corpus, recipe, seconds, partial(progress, f"{name}, seed {seed}"))
            runs.append(judged(model, corpus))
            figures[f"{name}.steps"] = figures.get(f"{name}.steps", 0.0) + steps / len(seeds)
        found[name] = {key: np.mean([run[key] for run in runs], axis=0) for key in runs[0]}
        figures |= {f"{name}.{key}": metrics.mean(value) for key, value in found[name].items()}
    off, *others = variants
    for name in others:
        figures |= _gains(name, found[name], off, found[off])
    return figures


def _gains(name: str, on: Values, off_name: str, off: Values) -> dict[str, float]:
    """What target-aware scores have over the plain ones and the dot product of the same model, and over the model that
    learned without."""
    beside = {
        "model": on["model.ndcg@10"],
        "embedding": on["embedding.ndcg@10"],
        off_name: off["model.ndcg@10"],
    }
    figures: dict[str, float] = {}
    for other, values in beside.items():
        gap = metrics.paired_bootstrap(on["target_aware.ndcg@10"], values)
        told = f"{name}.target_aware_minus_{other}"
        figures |= {told: gap.mean, f"{told}_low": gap.low, f"{told}_high": gap.high}
    return figures


def trained(
    corpus: Corpus, recipe: Recipe, seconds: float, progress: Callable[[int, int], None]
) -> tuple[FoundationModel, int]:
    """A model that learned for so many seconds of this process's time, and its steps.

    The loop of training.loop with another clock: wall-clock says little where cores are shared.
    """
    training_set = read_training_set(corpus, recipe.model)
    model = initial_model(training_set, corpus, recipe).train()
    optimisers = Optimisers(model, recipe.optimisation, recipe.seed)
    recipe = replace(recipe, minutes=seconds / 60)
    stream = lessons(training_set, recipe.model, recipe.sampling, recipe.seed, Position())
    begun, done, step = time.process_time(), 0.0, 0
    while done < seconds:
        _, lesson = next(stream)
        factor = schedule(Progress(step=step, seconds=done), 1_000_000, recipe)
        addend, _ = global_loss(losses(model, moved(lesson, "cpu"), recipe.objectives), Ranks.alone())
        addend.backward()  # type: ignore[no-untyped-call]
        optimisers.step(factor)
        done, step = time.process_time() - begun, step + 1
        progress(int(min(done, seconds)), int(seconds))
    return model.eval(), step


def judged(model: FoundationModel, corpus: Corpus) -> Values:
    """Figures of every household in the validation part, by scorer and metric."""
    tokenizer = corpus.tokenizer
    subgraph = Subgraph.of(Pretrained(model, tokenizer, Space("benchmark", 1, "", model.width, 0.0)))
    holdout = hold_out(corpus.tokens(), Columns.of(tokenizer), corpus.split, Part.VALIDATION)
    found = evaluate(holdout, model_scorers(subgraph), len(tokenizer.items))
    return {
        f"{name}.{label}": one.values[part][metric]
        for name, one in found.judged.items()
        for part, metric, label in (
            (Slice.ALL, "ndcg@10", "ndcg@10"),
            (Slice.NEW, "recall@50", "new_recall@50"),
        )
    }


def _recipe(corpus: Corpus, candidates: CandidateConfig) -> Recipe:
    recipe = default(corpus)
    return replace(recipe, model=replace(recipe.model, candidates=candidates))


def _long_history(events: EventBatch) -> EventBatch:
    """The last 2,048 tokens of the user who has most."""
    longest = int((events.offset_B1[1:] - events.offset_B1[:-1]).argmax())
    user = select_users(events, torch.tensor([longest]))
    keep_T = torch.arange(user.tokens) >= user.tokens - HISTORY
    return user.picked(keep_T, torch.tensor([0, int(keep_T.sum())]), torch.tensor([0]))
