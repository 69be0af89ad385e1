"""The training loop: a function of a model, a training set and ranks. It needs neither Ray nor Lance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from foundation.jagged import moved
from foundation.lesson import Lesson
from foundation.model import FoundationModel
from foundation.teaching import Teaching
from training import checkpoint
from training.averaging import Average
from training.checkpoint import Saver
from training.data import Position, epoch_order, fewest_batches, lessons_of_steps, row_tokens
from training.errors import TrainingError
from training.meter import Measured, Meter
from training.optimisers import Optimisers
from training.parallel import Placed, Ranks, agree, largest, place
from training.prefetch import Prefetched
from training.progress import Progress, StepRecord
from training.recipes import Recipe, check
from training.setbacks import IN_A_ROW, Setbacks, diverged, keep_lessons
from training.stages import stage_at
from training.step import Found, make_step, own_lessons
from training.stopping import Wish
from training.training_set import TrainingSet, in_windows

PACKED = 16  # epochs of which the steps are counted, to know how many a run has


def train(
    model: FoundationModel,
    training_set: TrainingSet,
    recipe: Recipe,
    checkpoints: Path,
    ranks: Ranks,
    on_step: Callable[[StepRecord], None],
    device: torch.device | None = None,
    stop: Wish = lambda: False,
    teaching: Teaching | None = None,
) -> Progress:
    """Train to the end of the recipe, continuing from the newest checkpoint; returns where it ended.

    device: on which to learn; None: where the model is. on_step: called on rank 0. stop: asked on every rank after each
    step; where any wants to stop, all do, with a checkpoint. teaching: by another model. Of weights that were cut rank
    0's model alone has all at the end. Raises TrainingError when too many steps in a row are not finite, or the
    checkpoints are of another model, and OSError when the last one can't be written.
    """
    check(recipe)
    device = device or model.empty_D.device
    placed = place(model.train(), recipe.parallelism, recipe.objectives, ranks, device, teaching)
    state = _State.of(placed, recipe, checkpoints)
    progress = state.resume() or Progress()
    training_set = agreed(training_set, recipe, ranks)
    total = total_batches(training_set, recipe, ranks)
    meter = Meter(recipe.model, recipe.objectives, device, taught=teaching is not None)
    saved, clock = time.monotonic(), time.monotonic()
    lessons, saving = _Course(training_set, recipe, ranks, progress.position), Saver(checkpoints, ranks.rank == 0)
    with lessons as course, saving as saver:
        while not progress.stopped and (done := part_done(progress, total, recipe)) < 1:
            position, own = course.next(stage_at(recipe.stages, done))
            factor = schedule(progress, total, recipe) * progress.setbacks.factor
            found = state.learn(moved(own, device), progress.step, factor)
            setbacks = _no_worse(progress, found, own, checkpoints)
            seconds = time.monotonic() - clock
            clock += seconds
            # The clock of rank 0 decides for all: when to stop and to save, at which rate, in which stage.
            own_clock = progress.seconds + seconds, clock - saved
            spent, unsaved, read, wishes = agree(own_clock, (found.tokens, stop()), ranks, device)
            batches, tokens = progress.batches + together(recipe, ranks), progress.tokens + round(read)
            progress = Progress(progress.step + 1, batches, position, spent, tokens, setbacks, stopped=wishes > 0)
            if ranks.rank == 0:
                on_step(_record(progress, total, found, recipe, ranks, factor, meter.step(own, course.waited, seconds)))
            # All ranks take part, since each may have a part of what is saved.
            if unsaved > recipe.checkpoint_seconds:
                saver.begin(progress.step, state.taken(progress))
                saved = clock
        saver.last(progress.step, state.taken(progress))
    state.settle(ended=not progress.stopped)
    return progress


def _no_worse(progress: Progress, found: Found, own: tuple[Lesson, ...], checkpoints: Path) -> Setbacks:
    """The setbacks after a step. Raises TrainingError, with the step's lessons kept, where there were too many."""
    setbacks = progress.setbacks.after(found.good)
    if setbacks.in_a_row == IN_A_ROW:
        raise diverged(setbacks, progress.step + 1, keep_lessons(own, checkpoints, progress.step + 1))
    return setbacks


class _Course:
    """The lessons of a run, stage after stage. waited: seconds until the newest ones were there."""

    def __init__(self, training_set: TrainingSet, recipe: Recipe, ranks: Ranks, start: Position) -> None:
        self.waited = 0.0
        self._training_set, self._recipe, self._ranks = training_set, recipe, ranks
        self._position, self._steps = start, Prefetched(self._from(start))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *of_error: object) -> None:
        self._steps.close()

    def next(self, stage: int) -> tuple[Position, tuple[Lesson, ...]]:
        """This rank's lessons of the next step, of that stage or of one that was begun already, and the position after
        it."""
        asked = time.monotonic()
        if stage > self._position.stage:
            self._position = self._position.in_stage(stage)
            self._steps.close()
            self._steps = Prefetched(self._from(self._position))
        self._position, found = next(self._steps)
        self.waited = time.monotonic() - asked
        return self._position, found

    def _from(self, start: Position) -> Iterator[tuple[Position, tuple[Lesson, ...]]]:
        recipe = self._recipe
        return lessons_of_steps(
            self._training_set,
            recipe.model,
            recipe.sampling_in(start.stage),
            recipe.seed,
            start,
            own_lessons(recipe, self._ranks),
            together(recipe, self._ranks),
            recipe.objectives,
        )


def together(recipe: Recipe, ranks: Ranks) -> int:
    """Batches that a step learns, of all ranks."""
    return ranks.count * recipe.parallelism.accumulate


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
    return max(round(sum(found)), 1) * together(recipe, ranks)


def _steps_in(training_set: TrainingSet, recipe: Recipe, stage: int, ranks: Ranks) -> float:
    """Steps of all epochs, were they all of that stage. Epochs differ by a step or so: of many only some are packed,
    so a run that its minutes end may have any number of them."""
    sampling, each = recipe.sampling_in(stage), together(recipe, ranks)
    rows = in_windows(training_set, row_tokens(sampling))
    packed = min(recipe.epochs, PACKED)
    steps = sum(max(len(epoch_order(rows, sampling, recipe.seed, epoch)) // each, 1) for epoch in range(packed))
    return steps * recipe.epochs / packed


def part_done(progress: Progress, total: int, recipe: Recipe) -> float:
    """How much of the run is done, by batches or by minutes, whichever is further; 1 at its end."""
    return min(1.0, max(progress.batches / total, progress.seconds / (60 * recipe.minutes)))


def schedule(progress: Progress, total: int, recipe: Recipe) -> float:
    """Factor of the learning rates: linear warm-up, then a cosine to 2 % by the last batch or minute."""
    warm = min(1.0, (progress.step + 1) / recipe.optimisation.warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part_done(progress, total, recipe))))


def _record(
    progress: Progress, total: int, found: Found, recipe: Recipe, ranks: Ranks, factor: float, measured: Measured
) -> StepRecord:
    stage = progress.position.stage
    return StepRecord(
        step=progress.step,
        steps=progress.step + math.ceil((total - progress.batches) / together(recipe, ranks)),
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
    """All that a run is, as it is kept in its checkpoints. average: of its weights, where the run ends with that."""

    placed: Placed
    optimisers: Optimisers
    average: Average | None
    recipe: Recipe
    checkpoints: Path

    @classmethod
    def of(cls, placed: Placed, recipe: Recipe, checkpoints: Path) -> Self:
        """What a run begins with, before it is resumed."""
        average = Average(placed.model, recipe.optimisation.average) if recipe.optimisation.average else None
        return cls(placed, Optimisers(placed.model, recipe.optimisation, recipe.seed), average, recipe, checkpoints)

    def learn(self, own: tuple[Lesson, ...], step: int, factor: float) -> Found:
        """A step, which the average follows; one whose loss is not finite moves nothing."""
        found = make_step(self.placed, self.optimisers, own, self.recipe, step, factor)
        if self.average is not None and found.good:
            self.average.follow()
        return found

    def settle(self, ended: bool) -> None:
        """Give the model what was learned; ended: and not only stopped, so that the average takes its place."""
        if self.average is not None and ended:
            self.average.settle()
        self.placed.settle()

    def taken(self, progress: Progress) -> dict[str, Any]:
        """All of it as it is now, gathered by all ranks for the first: whole tensors, which any number of ranks can
        read, and a copy, which is written while the run goes on. Nothing on the other ranks."""
        shards, first = self.placed.shards, self.placed.ranks.rank == 0
        state = {
            "model": shards.whole_state(self.placed.model, keep=first),
            "optimisers": self.optimisers.state(shards.whole),
            "progress": progress.state(),
        }
        if self.average is not None:
            state["average"] = self.average.state(shards.whole)
        return checkpoint.copied(state) if first else {}

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
        return Progress.of(state["progress"])
