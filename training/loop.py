"""The training loop: a function of a model, a training set and ranks. It needs neither Ray nor Lance."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foundation.foretold import loss_weights
from foundation.jagged import moved
from foundation.learning import losses
from foundation.lesson import Lesson, Loss
from foundation.model import FoundationModel
from training import checkpoint
from training.averaging import Average
from training.data import Position, TrainingSet, batches, in_windows, lessons_of_steps, row_tokens
from training.errors import TrainingError
from training.optimisers import Optimisers
from training.parallel import (
    Placed,
    Ranks,
    addend_of,
    global_count,
    global_loss,
    global_means,
    global_weights,
    of_first,
    place,
    summed,
)
from training.recipes import Recipe, check
from training.stages import stage_at


@dataclass(frozen=True)
class StepRecord:
    """One step as it is logged.

    seconds: of training so far, resumed runs included. tokens: of all ranks so far. stage: from 0, history: most tokens
    of a row in it (0 in logs that are older than it).
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
    device: torch.device | None = None,
) -> Progress:
    """Train to the end of the recipe, continuing from the newest checkpoint; returns where it ended.

    device: on which to learn; None: on which the model is. on_step is called on rank 0. A run that keeps an average of
    its weights leaves the model with that. Of a run that cuts weights (`recipe.parallelism`) rank 0's model alone has
    them at the end. Raises TrainingError when the loss is no longer finite or the checkpoints are of another model.
    """
    check(recipe)
    device = device or model.empty_D.device
    placed = place(model.train(), recipe.parallelism, recipe.objectives, ranks, device)
    optimisers = Optimisers(placed.model, recipe.optimisation, recipe.seed)
    average = Average(placed.model, recipe.optimisation.average) if recipe.optimisation.average else None
    state = _State(placed, optimisers, average, checkpoints)
    progress = state.resume() or Progress()
    steps = total_steps(training_set, recipe, ranks)
    course = _Course(training_set, recipe, ranks, progress.position)
    saved, clock = time.monotonic(), time.monotonic()
    while progress.step < steps:
        # The clock of rank 0 decides for all: when to stop, at which rate, in which stage.
        progress = replace(progress, seconds=of_first(progress.seconds, ranks, device))
        if progress.seconds >= 60 * recipe.minutes:
            break
        position, lessons = course.next(stage_at(recipe.stages, part_done(progress, steps, recipe)))
        factor = schedule(progress, steps, recipe)
        found = _step(placed, optimisers, moved(lessons, device), recipe, progress.step, factor)
        if average is not None:
            average.follow()
        now = time.monotonic()
        progress = Progress(progress.step + 1, position, progress.seconds + now - clock, progress.tokens + found.tokens)
        clock = now
        if ranks.rank == 0:
            on_step(_record(progress, steps, found, recipe, factor))
        # All ranks take part, since each may have a part of what is saved.
        if of_first(now - saved, ranks, device) > recipe.checkpoint_seconds:
            state.save(progress)
            saved = now
    state.save(progress)
    if average is not None:
        average.settle()
    placed.settle()
    return progress


class _Course:
    """The lessons of a run, stage after stage."""

    def __init__(self, training_set: TrainingSet, recipe: Recipe, ranks: Ranks, start: Position) -> None:
        self._training_set, self._recipe, self._ranks = training_set, recipe, ranks
        self._position, self._steps = start, self._from(start)

    def next(self, stage: int) -> tuple[Position, tuple[Lesson, ...]]:
        """This rank's lessons of the next step, of that stage or of one that was begun already, and the position after
        it."""
        if stage > self._position.stage:
            self._position = self._position.in_stage(stage)
            self._steps = self._from(self._position)
        self._position, found = next(self._steps)
        return self._position, found

    def _from(self, start: Position) -> Iterator[tuple[Position, tuple[Lesson, ...]]]:
        recipe, own = self._recipe, own_lessons(self._recipe, self._ranks)
        return lessons_of_steps(
            self._training_set,
            recipe.model,
            recipe.sampling_in(start.stage),
            recipe.seed,
            start,
            own,
            self._ranks.count * len(own),
            recipe.objectives,
        )


def own_lessons(recipe: Recipe, ranks: Ranks) -> range:
    """Which lessons of a step are this rank's."""
    each = recipe.parallelism.accumulate
    return range(ranks.rank * each, (ranks.rank + 1) * each)


def total_steps(training_set: TrainingSet, recipe: Recipe, ranks: Ranks) -> int:
    """Steps of the whole recipe on so many ranks: of each stage as many as its share of the epochs takes."""
    shares = [stage.share for stage in recipe.stages] or [1.0]
    found = (share * _steps_in(training_set, recipe, stage, ranks) for stage, share in enumerate(shares))
    return max(round(sum(found)), 1)


def _steps_in(training_set: TrainingSet, recipe: Recipe, stage: int, ranks: Ranks) -> int:
    """Steps of all epochs, were they all of that stage."""
    sampling = recipe.sampling_in(stage)
    rows = in_windows(training_set, row_tokens(sampling))
    each = ranks.count * recipe.parallelism.accumulate
    return sum(max(len(batches(rows, sampling, recipe.seed, epoch)) // each, 1) for epoch in range(recipe.epochs))


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
    placed: Placed, optimisers: Optimisers, own: tuple[Lesson, ...], recipe: Recipe, step: int, factor: float
) -> _Found:
    ranks, first = placed.ranks, own_lessons(recipe, placed.ranks).start
    with _drawing(recipe.seed, step, first):
        total, parts = learn(placed, own, recipe, step)
        optimisers.observe(partial(slope, placed.model, own[0], recipe, ranks, optimisers.dense))
        norm = optimisers.step(factor)
    tokens = sum(lesson.batch.tokens for lesson in own)
    return _Found(total, parts, norm, global_count(tokens, ranks, placed.model.empty_D.device))


def learn(placed: Placed, own: tuple[Lesson, ...], recipe: Recipe, step: int) -> tuple[float, dict[str, float]]:
    """Leave the gradients of a step at the weights, of the lessons of all ranks; returns the loss and its parts."""
    found = _learn(placed, own[0]) if len(own) == 1 else _learn_in_turns(placed, own, recipe, step)
    placed.sum_gradients()
    return found


def _learn(placed: Placed, lesson: Lesson) -> tuple[float, dict[str, float]]:
    found = placed.losses(lesson)
    addend, parts = global_loss(found, placed.ranks)
    total = _total(found, parts)
    addend.backward()  # type: ignore[no-untyped-call]
    return total, parts


def _learn_in_turns(
    placed: Placed, own: tuple[Lesson, ...], recipe: Recipe, step: int
) -> tuple[float, dict[str, float]]:
    """Several lessons a rank, of which one is held at a time, as if all were one."""
    weights = global_weights([loss_weights(placed.model, lesson, recipe.objectives) for lesson in own], placed.ranks)
    found: list[list[Loss]] = []
    for lesson, name in zip(own, own_lessons(recipe, placed.ranks), strict=True):
        last = len(found) == len(own) - 1
        with _drawing(recipe.seed, step, name), nullcontext() if last else placed.more_to_come():
            losses_of_it = placed.losses(lesson)
            addend_of(losses_of_it, weights).backward()  # type: ignore[no-untyped-call]
        found.append([replace(loss, total=loss.total.detach()) for loss in losses_of_it])
    parts = global_means(found, weights, placed.ranks)
    return _total(found[0], parts), parts


def _total(found: Sequence[Loss], parts: dict[str, float]) -> float:
    """The loss. Raises TrainingError where it is no number that anything could be learned from."""
    total = sum(loss.share * parts[loss.name] for loss in found)
    if not math.isfinite(total):
        raise TrainingError(f"the loss is {total}: lower `rate` or look for extreme values in the events")
    return total


def _record(progress: Progress, steps: int, found: _Found, recipe: Recipe, factor: float) -> StepRecord:
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
    )


@dataclass(frozen=True)
class _State:
    """All that a run is, as it is kept in its checkpoints."""

    placed: Placed
    optimisers: Optimisers
    average: Average | None
    checkpoints: Path

    def save(self, progress: Progress) -> None:
        """Gathered by all ranks, written by the first: whole tensors, which any number of ranks can read."""
        shards, first = self.placed.shards, self.placed.ranks.rank == 0
        state = {
            "model": shards.whole_state(self.placed.model, keep=first),
            "optimisers": self.optimisers.state(shards.whole),
            "progress": asdict(progress),
        }
        if self.average is not None:
            state["average"] = self.average.state(shards.whole)
        if first:
            checkpoint.save(self.checkpoints, progress.step, state)

    def resume(self) -> Progress | None:
        state = checkpoint.load_newest(self.checkpoints)
        if state is None:
            return None
        shards, model = self.placed.shards, self.placed.model
        try:
            model.load_state_dict(shards.part_state(model, state["model"]))
            self.optimisers.load(state["optimisers"], shards.part)
            if self.average is not None:
                self.average.load(state["average"], shards.part)
        except (RuntimeError, ValueError, KeyError) as error:
            raise TrainingError(
                f"the checkpoints in {self.checkpoints} are of another model or userfm than this: "
                f"take a new run directory"
            ) from error
        saved = state["progress"]
        return Progress(saved["step"], Position(**saved["position"]), saved["seconds"], saved["tokens"])
