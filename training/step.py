"""One step: lessons in, gradients of all ranks, weights moved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from foundation.foretold import loss_weights
from foundation.learning import losses
from foundation.lesson import Lesson, Loss
from training.optimisers import Optimisers
from training.parallel import (
    Placed,
    Ranks,
    addend_of,
    anybody,
    global_loss,
    global_means,
    global_weights,
    summed,
)
from training.recipes import Recipe


@dataclass(frozen=True)
class Found:
    """What a step found: the loss and its parts, the norm of the gradient, tokens of this rank; good: all of them are
    finite numbers, so that weights were moved."""

    loss: float
    losses: dict[str, float]
    norm: float
    tokens: int
    good: bool


def own_lessons(recipe: Recipe, ranks: Ranks) -> range:
    """Which lessons of a step are this rank's."""
    each = recipe.parallelism.accumulate
    return range(ranks.rank * each, (ranks.rank + 1) * each)


def make_step(
    placed: Placed, optimisers: Optimisers, own: tuple[Lesson, ...], recipe: Recipe, step: int, factor: float
) -> Found:
    """Learn this rank's lessons of a step with those of all others, at `factor` of the full rates. Where the loss or a
    gradient is no finite number, on any rank, nothing moves on all of them."""
    ranks, first = placed.ranks, own_lessons(recipe, placed.ranks).start
    tokens = sum(lesson.batch.tokens for lesson in own)
    with _drawing(recipe.seed, step, first):
        total, parts = learn(placed, own, recipe, step)
        if not math.isfinite(total) or anybody(not optimisers.finite_rows(), ranks):
            optimisers.drop()
            return Found(total, parts, math.nan, tokens, good=False)
        optimisers.observe(partial(slope, placed, own[0], recipe, optimisers.dense))
        norm = optimisers.step(factor)
    return Found(total, parts, norm, tokens, good=math.isfinite(norm))


def learn(placed: Placed, own: tuple[Lesson, ...], recipe: Recipe, step: int) -> tuple[float, dict[str, float]]:
    """Leave the gradients of a step at the weights, of the lessons of all ranks; returns the loss and its parts."""
    found = _learn(placed, own[0]) if len(own) == 1 else _learn_in_turns(placed, own, recipe, step)
    placed.sum_gradients()
    return found


def slope(placed: Placed, lesson: Lesson, recipe: Recipe, weights: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a lesson's loss by dense weights where they stand, summed over the ranks; leaves `.grad` alone."""
    found = losses(placed.model, lesson, recipe.objectives, teaching=placed.teaching)
    addend, _ = global_loss(found, placed.ranks)
    return summed(torch.autograd.grad(addend, weights, allow_unused=True, materialize_grads=True), placed.ranks)


def _learn(placed: Placed, lesson: Lesson) -> tuple[float, dict[str, float]]:
    found = placed.losses(lesson)
    addend, parts = global_loss(found, placed.ranks)
    addend.backward()  # type: ignore[no-untyped-call]
    return _total(found, parts), parts


def _learn_in_turns(
    placed: Placed, own: tuple[Lesson, ...], recipe: Recipe, step: int
) -> tuple[float, dict[str, float]]:
    """Several lessons a rank, of which one is held at a time, as if all were one."""
    weights = global_weights(
        [loss_weights(placed.model, lesson, recipe.objectives, placed.teaching) for lesson in own], placed.ranks
    )
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
    return sum(loss.share * parts[loss.name] for loss in found)


@contextmanager
def _drawing(*numbers: int) -> Iterator[None]:
    """What is drawn in it (dropout) is decided by these numbers alone: a resumed run hides what the whole one hides."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
        yield
