"""The training loop: a function of a model, a training set and ranks. It needs neither Ray nor Lance."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from foundation.jagged import moved
from foundation.learning import losses
from foundation.lesson import Lesson
from foundation.model import FoundationModel
from training import checkpoint
from training.averaging import Average
from training.data import Position, TrainingSet, batches, in_windows, lessons, row_tokens
from training.errors import TrainingError
from training.meter import Measured, Meter
from training.optimisers import Optimisers
from training.parallel import Ranks, broadcast, global_count, global_loss, of_first, sum_gradients, summed
from training.recipes import Recipe, check
from training.stages import stage_at


@dataclass(frozen=True)
class StepRecord:
    """One step as it is logged.

    seconds: of training so far, resumed runs included. tokens: of all ranks so far. stage: from 0, history: most tokens
    of a row in it (0 in logs that are older than it). data_wait, memory_gib, mfu: of rank 0, as in `meter.Measured`;
    None in older logs, and where they can't be known.
    """

    step: int
    steps: int
    seconds: float
    loss: float
    losses: dict[str, float]
    tokens: int
    tokens_per_second: float
    rate: float
    gradient_norm: float
    stage: int = 0
    history: int = 0
    data_wait: float | None = None
    memory_gib: float | None = None
    mfu: float | None = None

    def to_line(self) -> str:
        """One line of training.jsonl."""
        return json.dumps(asdict(self))

    def scalars(self) -> dict[str, float]:
        """All that is known of the step, by the names that TensorBoard and MLflow show."""
        told = {f"loss/{name}": value for name, value in self.losses.items()} | {"loss/total": self.loss}
        told |= {"tokens_per_second": self.tokens_per_second, "rate": self.rate, "gradient_norm": self.gradient_norm}
        told |= {"tokens": self.tokens, "seconds": self.seconds, "stage": self.stage, "history": self.history}
        measured = {"data_wait": self.data_wait, "memory_gib": self.memory_gib, "mfu": self.mfu}
        return told | {name: value for name, value in measured.items() if value is not None}


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

    The lessons go to the device that the model is on. on_step is called on rank 0. A run that keeps an average of its
    weights leaves the model with that. Raises TrainingError when the
    loss is no longer finite or the checkpoints are of another model.
    """
    check(recipe)
    optimisers = Optimisers(model, recipe.optimisation, recipe.seed)
    average = Average(model, recipe.optimisation.average) if recipe.optimisation.average else None
    state = _State(model, optimisers, average, checkpoints)
    progress = state.resume() or Progress()
    broadcast(model, ranks)
    steps = total_steps(training_set, recipe, ranks)
    course = _Course(training_set, recipe, ranks, progress.position)
    device = model.empty_D.device
    meter = Meter(recipe.model, recipe.objectives, device)
    model.train()
    saved, clock = time.monotonic(), time.monotonic()
    while progress.step < steps:
        # The clock of rank 0 decides for all: when to stop, at which rate, in which stage.
        progress = replace(progress, seconds=of_first(progress.seconds, ranks, device))
        if progress.seconds >= 60 * recipe.minutes:
            break
        position, lesson = course.next(stage_at(recipe.stages, part_done(progress, steps, recipe)))
        factor = schedule(progress, steps, recipe)
        with _drawing(recipe.seed, progress.step, ranks.rank):
            found = _step(model, optimisers, moved(lesson, device), recipe, ranks, factor)
        if average is not None:
            average.follow()
        now = time.monotonic()
        progress = Progress(progress.step + 1, position, progress.seconds + now - clock, progress.tokens + found.tokens)
        took, clock = now - clock, now
        if ranks.rank == 0:
            on_step(_record(progress, steps, found, recipe, factor, meter.step(lesson, course.waited, took)))
            if now - saved > recipe.checkpoint_seconds:
                state.save(progress)
                saved = now
    if ranks.rank == 0:
        state.save(progress)
    if average is not None:
        average.settle()
    return progress


class _Course:
    """The lessons of a run, stage after stage. waited: seconds until the newest one was there."""

    def __init__(self, training_set: TrainingSet, recipe: Recipe, ranks: Ranks, start: Position) -> None:
        self.waited = 0.0
        self._training_set, self._recipe, self._ranks = training_set, recipe, ranks
        self._position, self._lessons = start, self._from(start)

    def next(self, stage: int) -> tuple[Position, Lesson]:
        """The next lesson, of that stage or of one that was begun already, and the position after it."""
        asked = time.monotonic()
        if stage > self._position.stage:
            self._position = self._position.in_stage(stage)
            self._lessons = self._from(self._position)
        self._position, lesson = next(self._lessons)
        self.waited = time.monotonic() - asked
        return self._position, lesson

    def _from(self, start: Position) -> Iterator[tuple[Position, Lesson]]:
        recipe, ranks = self._recipe, self._ranks
        return lessons(
            self._training_set,
            recipe.model,
            recipe.sampling_in(start.stage),
            recipe.seed,
            start,
            ranks.rank,
            ranks.count,
            recipe.objectives,
        )


def total_steps(training_set: TrainingSet, recipe: Recipe, ranks: Ranks) -> int:
    """Steps of the whole recipe on so many ranks: of each stage as many as its share of the epochs takes."""
    shares = [stage.share for stage in recipe.stages] or [1.0]
    found = (share * _steps_in(training_set, recipe, stage, ranks) for stage, share in enumerate(shares))
    return max(round(sum(found)), 1)


def _steps_in(training_set: TrainingSet, recipe: Recipe, stage: int, ranks: Ranks) -> int:
    """Steps of all epochs, were they all of that stage."""
    sampling = recipe.sampling_in(stage)
    rows = in_windows(training_set, row_tokens(sampling))
    return sum(
        max(len(batches(rows, sampling, recipe.seed, epoch)) // ranks.count, 1) for epoch in range(recipe.epochs)
    )


def part_done(progress: Progress, steps: int, recipe: Recipe) -> float:
    """How much of the run is done, by steps or by minutes, whichever is further; 1 at its end."""
    return min(1.0, max(progress.step / steps, progress.seconds / (60 * recipe.minutes)))


def schedule(progress: Progress, steps: int, recipe: Recipe) -> float:
    """Factor of the learning rates: linear warm-up, then a cosine to 2 % by the last step or minute."""
    warm = min(1.0, (progress.step + 1) / recipe.optimisation.warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part_done(progress, steps, recipe))))


def slope(
    model: FoundationModel, lesson: Lesson, recipe: Recipe, ranks: Ranks, weights: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of a lesson's loss by dense weights where they stand, summed over the ranks; leaves `.grad` alone."""
    addend, _ = global_loss(losses(model, lesson, recipe.objectives), ranks)
    return summed(torch.autograd.grad(addend, weights, allow_unused=True, materialize_grads=True), ranks)


@contextmanager
def _drawing(*numbers: int) -> Iterator[None]:
    """What is drawn in it (dropout) is decided by these numbers alone: a resumed run hides what the whole one hides."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
        yield


@dataclass(frozen=True)
class _Found:
    """What a step found: the loss and its parts, the norm of the gradient, tokens of all ranks."""

    loss: float
    losses: dict[str, float]
    norm: float
    tokens: int


def _step(
    model: FoundationModel,
    optimisers: Optimisers,
    lesson: Lesson,
    recipe: Recipe,
    ranks: Ranks,
    factor: float,
) -> _Found:
    found = losses(model, lesson, recipe.objectives)
    addend, parts = global_loss(found, ranks)
    total = sum(loss.share * parts[loss.name] for loss in found)
    if not math.isfinite(total):
        raise TrainingError(f"the loss is {total}: lower `rate` or look for extreme values in the events")
    addend.backward()  # type: ignore[no-untyped-call]
    sum_gradients(optimisers.parameters, ranks)
    optimisers.observe(partial(slope, model, lesson, recipe, ranks, optimisers.dense))
    norm = optimisers.step(factor)
    return _Found(total, parts, norm, global_count(lesson.batch.tokens, ranks, addend.device))


def _record(
    progress: Progress, steps: int, found: _Found, recipe: Recipe, factor: float, measured: Measured
) -> StepRecord:
    stage = progress.position.stage
    return StepRecord(
        step=progress.step,
        steps=steps,
        seconds=progress.seconds,
        loss=found.loss,
        losses=found.losses,
        tokens=progress.tokens,
        tokens_per_second=progress.tokens / progress.seconds,
        rate=recipe.optimisation.rate * factor,
        gradient_norm=found.norm,
        stage=stage,
        history=row_tokens(recipe.sampling_in(stage)),
        data_wait=measured.data_wait,
        memory_gib=measured.memory_gib,
        mfu=measured.mfu,
    )


@dataclass(frozen=True)
class _State:
    """All that a run is, as it is kept in its checkpoints."""

    model: nn.Module
    optimisers: Optimisers
    average: Average | None
    checkpoints: Path

    def save(self, progress: Progress) -> None:
        state = {"model": self.model.state_dict(), "optimisers": self.optimisers.state(), "progress": asdict(progress)}
        if self.average is not None:
            state["average"] = self.average.state()
        checkpoint.save(self.checkpoints, progress.step, state)

    def resume(self) -> Progress | None:
        state = checkpoint.load_newest(self.checkpoints)
        if state is None:
            return None
        try:
            self.model.load_state_dict(state["model"])
            self.optimisers.load(state["optimisers"])
            if self.average is not None:
                self.average.load(state["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise TrainingError(
                f"the checkpoints in {self.checkpoints} are of another model or userfm than this: "
                f"take a new run directory"
            ) from error
        saved = state["progress"]
        return Progress(saved["step"], Position(**saved["position"]), saved["seconds"], saved["tokens"])
