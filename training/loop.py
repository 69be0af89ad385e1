"""The training loop: a function of a model, a training set and ranks. It needs neither Ray nor Lance."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from foundation.jagged import moved
from foundation.learning import losses
from foundation.lesson import Lesson
from foundation.model import FoundationModel
from training import checkpoint
from training.averaging import Average
from training.checkpoint import Saver
from training.data import Position, TrainingSet, epoch_order, fewest_batches, in_windows, lessons, row_tokens
from training.errors import TrainingError
from training.meter import Measured, Meter
from training.optimisers import Optimisers
from training.parallel import (
    Ranks,
    anybody,
    broadcast,
    global_count,
    global_loss,
    largest,
    of_first,
    sum_gradients,
    summed,
)
from training.prefetch import Prefetched
from training.recipes import Recipe, check
from training.setbacks import IN_A_ROW, Setbacks, diverged, keep_lesson
from training.stages import stage_at
from training.stopping import Wish

PACKED = 16  # epochs of which the steps are counted, to know how many a run has


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
    """Where a run stands; saved in its checkpoints.

    batches: that were learned, one a rank and step: what is done of a run, whatever number of ranks went on with it.
    stopped: it was asked to stop before its end.
    """

    step: int = 0
    batches: int = 0
    position: Position = field(default_factory=Position)
    seconds: float = 0.0
    tokens: int = 0
    setbacks: Setbacks = field(default_factory=Setbacks)
    stopped: bool = False

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {name: value for name, value in asdict(self).items() if name != "stopped"}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Continue from `state()`, of this version or of one before batches and setbacks were counted."""
        position, setbacks = Position(**state["position"]), Setbacks(**state.get("setbacks", {}))
        batches = state.get("batches", state["step"])
        return cls(state["step"], batches, position, state["seconds"], state["tokens"], setbacks)


def train(
    model: FoundationModel,
    training_set: TrainingSet,
    recipe: Recipe,
    checkpoints: Path,
    ranks: Ranks,
    on_step: Callable[[StepRecord], None],
    stop: Wish = lambda: False,
) -> Progress:
    """Train to the end of the recipe, continuing from the newest checkpoint; returns where it ended.

    The lessons go to the device that the model is on. on_step is called on rank 0. stop: asked on every rank after
    each step; where any of them wants to stop, all do, with a checkpoint. A run that keeps an average of its weights
    ends with that. A step whose loss is not finite moves nothing (training/setbacks.py). Raises TrainingError when too
    many in a row are not, or the checkpoints are of another model, and OSError when the last checkpoint can't be
    written.
    """
    check(recipe)
    optimisers = Optimisers(model, recipe.optimisation, recipe.seed)
    average = Average(model, recipe.optimisation.average) if recipe.optimisation.average else None
    state = _State(model, optimisers, average, checkpoints)
    progress = state.resume() or Progress()
    broadcast(model, ranks)
    training_set = agreed(training_set, recipe, ranks)
    total = total_batches(training_set, recipe, ranks)
    device = model.empty_D.device
    meter = Meter(recipe.model, recipe.objectives, device)
    model.train()
    saved, clock = time.monotonic(), time.monotonic()
    with _Course(training_set, recipe, ranks, progress.position) as course, Saver(checkpoints) as saver:
        while progress.batches < total and not progress.stopped:
            # The clock of rank 0 decides for all: when to stop, at which rate, in which stage.
            progress = replace(progress, seconds=of_first(progress.seconds, ranks, device))
            if progress.seconds >= 60 * recipe.minutes:
                break
            position, lesson = course.next(stage_at(recipe.stages, part_done(progress, total, recipe)))
            factor = schedule(progress, total, recipe) * progress.setbacks.factor
            with _drawing(recipe.seed, progress.step, ranks.rank):
                found = _step(model, optimisers, moved(lesson, device), recipe, ranks, factor)
            setbacks = progress.setbacks.after(found.good)
            if average is not None and found.good:
                average.follow()
            if setbacks.in_a_row == IN_A_ROW:
                raise diverged(setbacks, progress.step + 1, keep_lesson(lesson, checkpoints, progress.step + 1))
            now, wish = time.monotonic(), anybody(stop(), ranks)
            seconds, tokens = progress.seconds + now - clock, progress.tokens + found.tokens
            batches = progress.batches + ranks.count
            progress = Progress(progress.step + 1, batches, position, seconds, tokens, setbacks, wish)
            if ranks.rank == 0:
                measured = meter.step(lesson, course.waited, now - clock)
                on_step(_record(progress, total, found, recipe, ranks, factor, measured))
                if now - saved > recipe.checkpoint_seconds:
                    saver.begin(progress.step, state.taken(progress))
                    saved = now
            clock = now
        if ranks.rank == 0:
            saver.last(progress.step, state.taken(progress))
    if average is not None and not progress.stopped:
        average.settle()
    return progress


class _Course:
    """The lessons of a run, stage after stage. waited: seconds until the newest one was there."""

    def __init__(self, training_set: TrainingSet, recipe: Recipe, ranks: Ranks, start: Position) -> None:
        self.waited = 0.0
        self._training_set, self._recipe, self._ranks = training_set, recipe, ranks
        self._position, self._lessons = start, Prefetched(self._from(start))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *of_error: object) -> None:
        self._lessons.close()

    def next(self, stage: int) -> tuple[Position, Lesson]:
        """The next lesson, of that stage or of one that was begun already, and the position after it."""
        asked = time.monotonic()
        if stage > self._position.stage:
            self._position = self._position.in_stage(stage)
            self._lessons.close()
            self._lessons = Prefetched(self._from(self._position))
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


def agreed(training_set: TrainingSet, recipe: Recipe, ranks: Ranks) -> TrainingSet:
    """The same with as many batches a pass over a shard as all ranks have, in whichever stage that is fewest."""
    if training_set.shards.count == 1:
        return training_set
    stages = range(max(len(recipe.stages), 1))
    fewest = min(fewest_batches(training_set, recipe.sampling_in(stage), recipe.seed) for stage in stages)
    return replace(training_set, per_shard=int(-largest(-fewest, ranks)))


def total_batches(training_set: TrainingSet, recipe: Recipe, ranks: Ranks) -> int:
    """Batches of the whole recipe, as many for each rank: of each stage as many as its share of the epochs takes."""
    shares = [stage.share for stage in recipe.stages] or [1.0]
    found = (share * _steps_in(training_set, recipe, stage, ranks) for stage, share in enumerate(shares))
    return max(round(sum(found)), 1) * ranks.count


def _steps_in(training_set: TrainingSet, recipe: Recipe, stage: int, ranks: Ranks) -> float:
    """Steps of all epochs, were they all of that stage. Epochs differ by a step or so: of many only some are packed,
    so a run that its minutes end may have any number of them."""
    sampling = recipe.sampling_in(stage)
    rows = in_windows(training_set, row_tokens(sampling))
    packed = min(recipe.epochs, PACKED)
    steps = sum(max(len(epoch_order(rows, sampling, recipe.seed, epoch)) // ranks.count, 1) for epoch in range(packed))
    return steps * recipe.epochs / packed


def part_done(progress: Progress, total: int, recipe: Recipe) -> float:
    """How much of the run is done, by batches or by minutes, whichever is further; 1 at its end."""
    return min(1.0, max(progress.batches / total, progress.seconds / (60 * recipe.minutes)))


def schedule(progress: Progress, total: int, recipe: Recipe) -> float:
    """Factor of the learning rates: linear warm-up, then a cosine to 2 % by the last batch or minute."""
    warm = min(1.0, (progress.step + 1) / recipe.optimisation.warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part_done(progress, total, recipe))))


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
    """What a step found: the loss and its parts, the norm of the gradient, tokens of all ranks; good: all of them are
    finite numbers, so that weights were moved."""

    loss: float
    losses: dict[str, float]
    norm: float
    tokens: int
    good: bool


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
    tokens = global_count(lesson.batch.tokens, ranks, addend.device)
    if not math.isfinite(total):
        return _Found(total, parts, math.nan, tokens, good=False)
    addend.backward()  # type: ignore[no-untyped-call]
    sum_gradients(optimisers.parameters, ranks)
    optimisers.observe(partial(slope, model, lesson, recipe, ranks, optimisers.dense))
    norm = optimisers.step(factor)
    return _Found(total, parts, norm, tokens, good=math.isfinite(norm))


def _record(
    progress: Progress, total: int, found: _Found, recipe: Recipe, ranks: Ranks, factor: float, measured: Measured
) -> StepRecord:
    stage = progress.position.stage
    return StepRecord(
        step=progress.step,
        steps=progress.step + math.ceil((total - progress.batches) / ranks.count),
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

    def taken(self, progress: Progress) -> dict[str, Any]:
        """All of it as it is now: what is written while the run goes on is this copy."""
        state = {"model": self.model.state_dict(), "optimisers": self.optimisers.state(), "progress": progress.state()}
        if self.average is not None:
            state["average"] = self.average.state()
        return checkpoint.copied(state)

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
        return Progress.of(state["progress"])
