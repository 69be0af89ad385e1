"""One training step of the default recipe on Complete Journey.

How long the step waits for its lesson, and how many times as long it takes as the trunk's matrix products alone,
forward and backward: what attention, the repeat path, the losses and the optimisers add to that floor.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Measured, at_most, estimate, in_turns
from foundation.learning import losses
from foundation.lesson import Lesson
from foundation.model import FoundationModel
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training.beginning import initial_model
from training.data import Position, lessons
from training.optimisers import Optimisers
from training.parallel import Ranks, global_loss
from training.recipes import Recipe, default
from training.training_set import read_training_set
from userfm import complete_journey

DATA_WAIT = 0.05


def run(progress: Callable[[str, int, int], None]) -> Measured:
    """Figures: step_seconds, tokens_per_second, data_wait and time_over_floor with their intervals."""
    with tempfile.TemporaryDirectory() as folder:
        events, items = complete_journey.prepare(Path(folder), progress)
        corpus = tokenize(complete_journey.schema_path(), events, items, Path(folder) / "corpus")
        return _measured(corpus, progress)


def _measured(corpus: Corpus, progress: Callable[[str, int, int], None]) -> Measured:
    recipe = default(corpus)
    training_set = read_training_set(corpus, recipe.model)
    stream = lessons(training_set, recipe.model, recipe.sampling, recipe.seed, Position())
    held: list[Lesson] = [next(stream)[1]]

    def fetch() -> None:
        held[0] = next(stream)[1]

    model = initial_model(training_set, corpus, recipe)
    step = step_on(model, recipe, held)
    waits, steps = in_turns(fetch, step, progress=lambda done, total: progress("lesson and step", done, total))
    tokens = held[0].batch.tokens
    floor = _floor(model, tokens)
    own, floors = in_turns(step, floor, progress=lambda done, total: progress("step and floor", done, total))
    wait, over = estimate(waits / (waits + steps)), estimate(own / floors)
    figures = {
        "step_seconds": float(np.median(own)),
        "tokens_per_second": tokens / float(np.median(own)),
        "tokens": tokens,
        "data_wait": wait.median,
        "data_wait_low": wait.low,
        "data_wait_high": wait.high,
        "time_over_floor": over.median,
        "time_over_floor_low": over.low,
        "time_over_floor_high": over.high,
        "threads": torch.get_num_threads(),
    }
    return Measured(figures, (at_most("data_wait", wait, DATA_WAIT),))


def step_on(model: FoundationModel, recipe: Recipe, held: list[Lesson]) -> Callable[[], None]:
    """Forward, backward and both optimisers on whatever lesson is held."""
    optimisers = Optimisers(model, recipe.optimisation)

    def step() -> None:
        found = losses(model, held[0], recipe.objectives)
        addend, _ = global_loss(found, Ranks.alone())
        addend.backward()  # type: ignore[no-untyped-call]
        optimisers.step(1.0)

    return step


def _floor(model: FoundationModel, tokens: int) -> Callable[[], None]:
    """The products of every matrix of the trunk with as many tokens: output, gradient of the input, of the matrix."""
    matrices = [weight.detach() for weight in model.trunk.parameters() if weight.ndim == 2]
    inputs = [torch.randn(tokens, weight.shape[1]) for weight in matrices]

    def products() -> None:
        for weight, x_TI in zip(matrices, inputs, strict=True):
            y_TO = x_TI @ weight.T
            torch.matmul(y_TO, weight)
            torch.matmul(y_TO.T, x_TI)

    return products
