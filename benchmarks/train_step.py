"""One training step: what it waits for, what it costs over its floor, beside the peers' steps, on Ray, and on a GPU.

`USERFM_DATA=data python -m benchmarks train_step --json benchmarks/results/train_step.json`

Of the default recipe on Complete Journey: how long the step waits for its lesson, and how many times as long it takes
as the trunk's matrix products alone, forward and backward: what attention, the repeat path, the losses and the
optimisers add to that floor. Then what the same step loses inside a Ray Train worker (benchmarks/ray_step.py), events a
second beside RecTools and RePlay on the research logs that are here (benchmarks/peer_steps.py), and, on a CUDA device,
how much of it a large step uses (benchmarks/mfu.py).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import mfu, peer_steps, ray_step
from benchmarks.logs import Log, research_folder
from benchmarks.measure import Measured, at_most, estimate, in_turns, joined
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
PEERS = Path("out") / "peers"


def run(progress: Callable[[str, int, int], None]) -> Measured:
    """Figures: step_seconds, tokens_per_second, data_wait and time_over_floor with their intervals; those of the other
    modules that are named above."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events, items = complete_journey.prepare(folder, progress)
        corpus = tokenize(complete_journey.schema_path(), events, items, folder / "corpus")
        parts = [measured(corpus, progress), ray_step.measured(corpus, folder / "runs", progress)]
        parts += [peer_steps.measured(log, folder, PEERS, progress) for log in peer_steps.SETTINGS if is_here(log)]
    return joined([*parts, mfu.run(progress)] if torch.cuda.is_available() else parts)


def is_here(log: Log) -> bool:
    """Whether a research log can be measured; says loudly where it can't, and what is left out for that."""
    try:
        research_folder(log)
    except SystemExit as missing:
        print(f"LEFT OUT: {peer_steps.SETTINGS[log].name}_speedup. {missing}", file=sys.stderr)
        return False
    return True


def measured(corpus: Corpus, progress: Callable[[str, int, int], None]) -> Measured:
    """The default recipe's step by itself."""
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
