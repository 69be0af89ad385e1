"""The training loop: a function of a model, a training set and ranks. It needs neither Ray nor Lance."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from foundation.jagged import moved
from foundation.learning import Lesson, losses
from foundation.model import FoundationModel
from training import checkpoint
from training.data import Position, TrainingSet, batches, lessons
from training.errors import TrainingError
from training.optimisers import Optimisers
from training.parallel import Ranks, broadcast, global_count, global_loss, sum_gradients, summed
from training.recipes import Recipe


@dataclass(frozen=True)
class StepRecord:
    """One step as it is logged. seconds: of training so far, resumed runs included. tokens: of all ranks so far."""

    step: int
    steps: int
    seconds: float
    loss: float
    losses: dict[str, float]
    tokens: int
    tokens_per_second: float
    rate: float
    gradient_norm: float

    def to_line(self) -> str:
        """One line of training.jsonl."""
        return json.dumps(asdict(self))


@dataclass
class Progress:
    """Where a run stands; saved in its checkpoints."""

    step: int = 0
    position: Position = field(default_factory=Position)
    seconds: float = 0.0
    tokens: int = 0


def train(
    model: FoundationModel,
    training_set: TrainingSet,
    recipe: Recipe,
    checkpoints: Path,
    ranks: Ranks,
    on_step: Callable[[StepRecord], None],
) -> Progress:
    """Train to the end of the recipe, continuing from the newest checkpoint; returns where it ended.

    The lessons go to the device that the model is on. on_step is called on rank 0. Raises TrainingError when the
    loss is no longer finite or the checkpoints are of another model.
    """
    optimisers = Optimisers(model, recipe.optimisation, recipe.seed)
    progress = _resume(model, optimisers, checkpoints) or Progress()
    broadcast(model, ranks)
    steps = total_steps(training_set, recipe, ranks)
    stream = lessons(
        training_set, recipe.model, recipe.sampling, recipe.seed, progress.position, ranks.rank, ranks.count
    )
    saved, clock = time.monotonic(), time.monotonic()
    device = model.empty_D.device
    model.train()
    while progress.step < steps and not _out_of_time(progress, recipe, ranks, device):
        position, lesson = next(stream)
        factor = schedule(progress, steps, recipe)
        loss, parts, norm, tokens = _step(model, optimisers, moved(lesson, device), recipe, ranks, factor)
        now = time.monotonic()
        progress = Progress(progress.step + 1, position, progress.seconds + now - clock, progress.tokens + tokens)
        clock = now
        if ranks.rank == 0:
            on_step(_record(progress, steps, loss, parts, recipe.optimisation.rate * factor, norm))
            if now - saved > recipe.checkpoint_seconds:
                _save(checkpoints, model, optimisers, progress)
                saved = now
    if ranks.rank == 0:
        _save(checkpoints, model, optimisers, progress)
    return progress


def total_steps(training_set: TrainingSet, recipe: Recipe, ranks: Ranks) -> int:
    """Steps of the whole recipe on so many ranks."""
    return sum(
        max(len(batches(training_set, recipe.sampling, recipe.seed, epoch)) // ranks.count, 1)
        for epoch in range(recipe.epochs)
    )


def schedule(progress: Progress, steps: int, recipe: Recipe) -> float:
    """Factor of the learning rates: linear warm-up, then a cosine to 2 % by the last step or minute."""
    done = max(progress.step / steps, progress.seconds / (60 * recipe.minutes))
    warm = min(1.0, (progress.step + 1) / recipe.optimisation.warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def slope(
    model: FoundationModel, lesson: Lesson, recipe: Recipe, ranks: Ranks, weights: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of a lesson's loss by dense weights where they stand, summed over the ranks; leaves `.grad` alone."""
    addend, _ = global_loss(losses(model, lesson, recipe.objectives), ranks)
    return summed(torch.autograd.grad(addend, weights, allow_unused=True, materialize_grads=True), ranks)


def _step(
    model: FoundationModel,
    optimisers: Optimisers,
    lesson: Lesson,
    recipe: Recipe,
    ranks: Ranks,
    factor: float,
) -> tuple[float, dict[str, float], float, int]:
    found = losses(model, lesson, recipe.objectives)
    addend, parts = global_loss(found, ranks)
    total = sum(loss.share * parts[loss.name] for loss in found)
    if not math.isfinite(total):
        raise TrainingError(f"the loss is {total}: lower `rate` or look for extreme values in the events")
    addend.backward()  # type: ignore[no-untyped-call]
    sum_gradients(optimisers.parameters, ranks)
    optimisers.observe(partial(slope, model, lesson, recipe, ranks, optimisers.dense))
    norm = optimisers.step(factor)
    return total, parts, norm, global_count(lesson.batch.tokens, ranks, addend.device)


def _record(
    progress: Progress, steps: int, loss: float, parts: dict[str, float], rate: float, norm: float
) -> StepRecord:
    speed = progress.tokens / progress.seconds
    return StepRecord(progress.step, steps, progress.seconds, loss, parts, progress.tokens, speed, rate, norm)


def _out_of_time(progress: Progress, recipe: Recipe, ranks: Ranks, device: torch.device) -> bool:
    """Rank 0's clock decides for all: ranks that stop at different steps would wait for one another forever."""
    over = torch.tensor([progress.seconds >= 60 * recipe.minutes], dtype=torch.int64, device=device)
    if ranks.count > 1:
        torch.distributed.broadcast(over, src=0)
    return bool(over.item())


def _save(checkpoints: Path, model: nn.Module, optimisers: Optimisers, progress: Progress) -> None:
    state = {"model": model.state_dict(), "optimisers": optimisers.state(), "progress": asdict(progress)}
    checkpoint.save(checkpoints, progress.step, state)


def _resume(model: nn.Module, optimisers: Optimisers, checkpoints: Path) -> Progress | None:
    state = checkpoint.load_newest(checkpoints)
    if state is None:
        return None
    try:
        model.load_state_dict(state["model"])
        optimisers.load(state["optimisers"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise TrainingError(
            f"the checkpoints in {checkpoints} are of another model or userfm than this: take a new run directory"
        ) from error
    saved = state["progress"]
    return Progress(saved["step"], Position(**saved["position"]), saved["seconds"], saved["tokens"])
