"""How much of a CUDA device a training step uses: model FLOPs utilisation at width 1,024, 8 layers, length 4,096.

The step is the training loop's own: a lesson goes to the device, forward, backward, both optimisers. The recipe is
`huge` with 8 layers instead of 24, on one device that holds everything, its trunk in bfloat16, once as it is and once
compiled; `cuda_mfu` is the better of the two. Operations are those of training/flops.py (attention counts only the
pairs that a token sees; what is left out there makes the figure a lower bound), the peak is the data sheet's. Users are
drawn: each has 4,096 events, in visits of one to eight, two of three events of a few items of the user's own.

It needs torch, pyarrow and pydantic, but no Ray, no Lance and no data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice

import numpy as np
import torch

from benchmarks.measure import Estimate, Floats, Measured, at_least, estimate
from foundation.jagged import EventBatch, moved, offsets_of
from foundation.lesson import Lesson
from foundation.model import FoundationModel
from foundation.repeat import FIRST_ITEM
from training.data import Position, lessons
from training.flops import lesson_flops, peak_flops
from training.meter import peak_memory
from training.optimisers import Optimisers
from training.parallel import Compiler, Parallelism, Precision, Ranks, place
from training.recipes import Recipe, huge
from training.scale import content_of_nothing, imagined
from training.step import make_step
from training.training_set import TrainingSet, meetings

Progress = Callable[[str, int, int], None]

LAYERS, VOCABULARY = 8, 1_000_000
LESSONS, WARMING, STEPS = 4, 5, 21
BAR = 0.35
VARIANTS: Mapping[str, Compiler] = {"plain": Compiler.OFF, "compiled": Compiler.INDUCTOR}
_DAY = 86_400.0


def run(progress: Progress) -> Measured:
    """Figures: cuda_mfu with its interval, of both variants; step_seconds, gib; peak_teraflops, vocabulary and sizes.

    Raises SystemExit with a sentence where there is no CUDA device, or its peak is not known.
    """
    if not torch.cuda.is_available():
        raise SystemExit("mfu is measured on a CUDA device, and torch sees none here")
    device = torch.device("cuda")
    peak = peak_flops(device)
    if peak is None:
        raise SystemExit(f"nobody knows the peak of {torch.cuda.get_device_name()}: add it to training/flops.py")
    recipe, seconds = recipe_of(VOCABULARY), {}
    rows = drawn_users(recipe, LESSONS * recipe.sampling.tokens // recipe.sampling.history)
    held = made(rows, recipe)
    flops = np.array([lesson_flops(recipe.model, recipe.objectives, lesson).step for lesson in held])
    for number, (name, compiler) in enumerate(VARIANTS.items()):
        progress("variants", number, len(VARIANTS))
        variant = replace(recipe, parallelism=replace(recipe.parallelism, compile=compiler))
        seconds[name] = step_seconds(variant, held, device, STEPS)
    return judged(recipe, seconds, np.resize(flops, STEPS), peak, peak_memory(device) or 0.0)


def judged(recipe: Recipe, seconds: Mapping[str, Floats], flops: Floats, peak: float, gib: float) -> Measured:
    """seconds: [steps] by variant. flops: operations of each step. peak: operations a second. gib: the most memory."""
    found = {name: estimate(flops / taken / peak) for name, taken in seconds.items()}
    best = max(found, key=lambda name: found[name].median)
    figures = _figures("cuda_mfu", found[best]) | {"cuda_step_seconds": float(np.median(seconds[best]))}
    for name, one in found.items():
        figures |= _figures(f"cuda_mfu_{name}", one)
    figures |= {"cuda_gib": gib, "peak_teraflops": peak / 1e12, "step_teraflops": float(np.mean(flops)) / 1e12}
    figures |= {"vocabulary": recipe.model.item.codes, "width": recipe.model.width, "layers": recipe.model.layers}
    figures |= {"length": recipe.sampling.history, "tokens_a_step": recipe.sampling.tokens}
    return Measured(figures, (at_least("cuda_mfu", found[best], BAR),))


def _figures(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.median, f"{name}_low": found.low, f"{name}_high": found.high}


def recipe_of(vocabulary: int) -> Recipe:
    """`huge` with 8 layers, for one device."""
    recipe = huge(imagined(vocabulary))
    return replace(
        recipe,
        model=replace(recipe.model, layers=LAYERS),
        sampling=replace(recipe.sampling, shards=1),
        parallelism=Parallelism(precision=Precision.BFLOAT16),
    )


def drawn_users(recipe: Recipe, users: int, seed: int = 0) -> TrainingSet:
    """So many users with as many events each as a row has tokens; a visit every day or so."""
    draw, config = np.random.default_rng(seed), recipe.model
    each, items = recipe.sampling.history, config.item.codes - FIRST_ITEM
    tokens = users * each
    own = draw.integers(0, items, (users, 256))[np.repeat(np.arange(users), each), draw.integers(0, 256, tokens)]
    item = np.where(draw.random(tokens) < 2 / 3, own, draw.integers(0, items, tokens))
    facets = [draw.integers(FIRST_ITEM, facet.size, tokens) for facet in config.facets]
    facets[config.item_column] = FIRST_ITEM + item
    begins = draw.random((users, each)) < 1 / 4
    begins[:, 0] = True
    visit = np.cumsum(begins, axis=1) - 1
    time_T = torch.from_numpy(np.cumsum(begins * draw.exponential(_DAY, (users, each)), axis=1))
    time_T = (time_T - time_T[:, :1]).flatten()
    events = EventBatch(
        facet_TF=torch.from_numpy(np.stack(facets, axis=1)),
        time_T=time_T,
        begin_T=time_T,
        opening_T=torch.ones(tokens, dtype=torch.bool),
        group_T=torch.from_numpy(visit.flatten()),
        offset_B1=offsets_of(torch.full((users,), each)),
        start_B=torch.zeros(users, dtype=torch.float64),
        attribute_BA=torch.zeros(users, 0, dtype=torch.int64),
    )
    return TrainingSet(events, meetings(events, config), float(time_T.max()), torch.zeros(users, dtype=torch.int64))


def made(rows: TrainingSet, recipe: Recipe) -> list[Lesson]:
    """The first lessons, on the CPU, where training makes them too, ahead of the step."""
    endless = lessons(rows, recipe.model, recipe.sampling, recipe.seed, Position(), objectives=recipe.objectives)
    return [lesson for _, lesson in islice(endless, LESSONS)]


def step_seconds(recipe: Recipe, held: Sequence[Lesson], device: torch.device, steps: int) -> Floats:
    """Seconds [steps] of steps on these lessons in turn, after some that do not count."""
    torch.manual_seed(recipe.seed)
    model = FoundationModel(recipe.model, content_of_nothing(recipe.model.item)).train()
    placed = place(model, recipe.parallelism, recipe.objectives, Ranks.alone(), device)
    optimisers = Optimisers(placed.model, recipe.optimisation)

    def step(number: int, lesson: Lesson) -> float:
        start = time.perf_counter()
        make_step(placed, optimisers, (moved(lesson, device),), recipe, number, 1.0)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    taken = [step(number, lesson) for number, lesson in enumerate(islice(cycle(held), WARMING + steps))]
    return np.array(taken[WARMING:])
