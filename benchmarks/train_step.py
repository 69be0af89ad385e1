"""One training step of the default recipe on Complete Journey.

How long the step waits for its lesson, and what windows of whole groups save beside the same step with windows as
long as the longest history (dense causal attention).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Measured, at_least, at_most, estimate, in_turns
from foundation.learning import Lesson, losses
from foundation.model import FoundationModel
from tokenization.corpus import Corpus
from tokenization.pipeline import tokenize
from training.data import Position, lessons, read_training_set
from training.loop import Optimisers
from training.parallel import Ranks, global_loss
from training.pretrain import initial_model
from training.recipes import Recipe, default
from userfm import complete_journey

DATA_WAIT = 0.05
SPEEDUP_OVER_DENSE = 1.0


def run(progress: Callable[[str, int, int], None]) -> Measured:
    """Figures: step_seconds, tokens_per_second, data_wait and speedup_over_dense with their intervals."""
    with tempfile.TemporaryDirectory() as folder:
        events, items = complete_journey.prepare(Path(folder), progress)
        corpus = tokenize(complete_journey.schema_path(), events, items, Path(folder) / "corpus")
        return _measured(corpus, progress)


def _measured(corpus: Corpus, progress: Callable[[str, int, int], None]) -> Measured:
    recipe = default(corpus)
    training_set = read_training_set(corpus, recipe.model)
    longest = int(np.diff(training_set.events.offset_B1.numpy()).max())
    dense = replace(recipe, model=replace(recipe.model, window=longest))
    stream = lessons(training_set, recipe.model, recipe.sampling, recipe.seed, Position())
    held: list[Lesson] = [next(stream)[1]]

    def fetch() -> None:
        held[0] = next(stream)[1]

    step = _step(initial_model(training_set, corpus, recipe), recipe, held)
    dense_step = _step(initial_model(training_set, corpus, dense), dense, held)
    waits, steps = in_turns(fetch, step, progress=lambda done, total: progress("lesson and step", done, total))
    tokens = held[0].batch.tokens
    own, theirs = in_turns(step, dense_step, progress=lambda done, total: progress("window and dense", done, total))
    wait, speedup = estimate(waits / (waits + steps)), estimate(theirs / own)
    figures = {
        "step_seconds": float(np.median(own)),
        "tokens_per_second": tokens / float(np.median(own)),
        "tokens": tokens,
        "data_wait": wait.median,
        "data_wait_low": wait.low,
        "data_wait_high": wait.high,
        "speedup_over_dense": speedup.median,
        "speedup_over_dense_low": speedup.low,
        "speedup_over_dense_high": speedup.high,
        "threads": torch.get_num_threads(),
    }
    bars = (
        at_most("data_wait", wait, DATA_WAIT),
        at_least("speedup_over_dense", speedup, SPEEDUP_OVER_DENSE),
    )
    return Measured(figures, bars)


def _step(model: FoundationModel, recipe: Recipe, held: list[Lesson]) -> Callable[[], None]:
    """Forward, backward and both optimisers on whatever lesson is held."""
    optimisers = Optimisers(model, recipe.optimisation)

    def step() -> None:
        found = losses(model, held[0], recipe.optimisation.later_share, recipe.optimisation.embedding_share)
        addend, _ = global_loss(found, Ranks.alone())
        addend.backward()  # type: ignore[no-untyped-call]
        optimisers.step(1.0)

    return step
