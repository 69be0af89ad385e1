"""One of two processes: what it finds of a step under every plan, and of runs that go on under others.

Run as a script: rank, port, run folder, file for what it found, kind of device, names of plans.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from foundation.config import Switch
from foundation.jagged import moved
from foundation.teaching import Teaching
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.data import Position, lessons_of_steps
from training.finetune import FineTuning, Learns, let_learn
from training.loop import train
from training.parallel import (
    Compiler,
    Parallelism,
    Placed,
    Precision,
    Ranks,
    Scoring,
    Tables,
    Weights,
    open_group,
    place,
)
from training.parallel.tables import BLOCK, cut_tables
from training.progress import StepRecord
from training.recipes import Recipe
from training.run import Run
from training.step import learn, own_lessons
from training.training_set import TrainingSet, read_training_set

CPU = torch.device("cpu")
ROWS = Parallelism(tables=Tables.ROWS)
OWNERS = replace(ROWS, scoring=Scoring.OWNERS)
PLANS: Mapping[str, Parallelism] = {
    "replicated": Parallelism(),
    "ddp": Parallelism(Weights.DDP),
    "sharded": Parallelism(Weights.SHARDED),
    "rows": ROWS,
    "owners": OWNERS,
    "ddp, owners": replace(OWNERS, weights=Weights.DDP),
    "sharded, owners": replace(OWNERS, weights=Weights.SHARDED),
    "sharded, owners, recomputed": replace(OWNERS, weights=Weights.SHARDED, recompute=Switch.ON),
}
HALF = "sharded, owners, bfloat16"
COMPILED = "sharded, owners, recomputed, compiled"
OTHERS: Mapping[str, Parallelism] = {
    HALF: replace(PLANS["sharded, owners"], precision=Precision.BFLOAT16),
    COMPILED: replace(PLANS["sharded, owners, recomputed"], compile=Compiler.INDUCTOR),
}
EVERYTHING = PLANS["sharded, owners, recomputed"]
TAUGHT = ("ddp", "sharded", "rows")
ANSWERS_ALONE = FineTuning("", "", Learns.ANSWERS)
LESSONS = 4  # of a step that is learned in turns


def step_of(
    corpus: Corpus,
    training_set: TrainingSet,
    recipe: Recipe,
    ranks: Ranks,
    device: torch.device = CPU,
    teaching: Teaching | None = None,
) -> tuple[Placed, float, dict[str, float]]:
    """The first step of a recipe, without moving anything: who has the gradients, the loss and its parts."""
    model = initial_model(training_set, corpus, replace(recipe, seed=recipe.seed + ranks.rank))
    placed = place(model.train(), recipe.parallelism, recipe.objectives, ranks, device, teaching)
    own = own_lessons(recipe, ranks)
    stream = lessons_of_steps(
        training_set,
        recipe.model,
        recipe.sampling,
        recipe.seed,
        Position(),
        own,
        len(own) * ranks.count,
        recipe.objectives,
    )
    return placed, *learn(placed, moved(next(stream)[1], device), recipe, 0)


def whole_gradients(placed: Placed) -> dict[str, Tensor]:
    """Of every weight, dense and of all ranks; zeros where it got none."""
    found, mesh = {}, placed.shards.mesh
    for name, weight in placed.model.named_parameters():
        slope = torch.zeros_like(weight) if weight.grad is None else weight.grad
        slope = slope.to_dense() if slope.is_sparse else slope
        table = placed.shards.tables.get(id(weight))
        if table is not None and mesh is not None:
            shape = torch.Size([table.owned.rows, *slope.shape[1:]])
            stride = torch.empty(shape, device="meta").stride()
            slope = DTensor.from_local(slope, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)
        found[name] = (slope.full_tensor() if isinstance(slope, DTensor) else slope).cpu()
    return found


def here(weight: Tensor) -> Tensor:
    """What this rank holds of it."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def under(recipe: Recipe, plan: Parallelism, each: int) -> Recipe:
    """The recipe under a plan, with so many lessons of a rank in a step."""
    return replace(recipe, parallelism=replace(plan, accumulate=each))


def first_steps(
    corpus: Corpus, training_set: TrainingSet, recipe: Recipe, ranks: Ranks, device: torch.device, names: Sequence[str]
) -> dict[str, Any]:
    """What plans make of the first step."""
    found = {}
    for name in names:
        for each in (1, LESSONS // ranks.count):
            one = under(recipe, {**PLANS, **OTHERS}[name], each)
            placed, loss, parts = step_of(corpus, training_set, one, ranks, device)
            found[f"{name} x{each}"] = {
                "loss": loss,
                "parts": parts,
                "gradients": whole_gradients(placed),
                "held": {weight: len(here(value)) for weight, value in placed.model.named_parameters()},
            }
    return found


def teaching_of(corpus: Corpus, training_set: TrainingSet, recipe: Recipe) -> Teaching:
    """A teacher twice as wide as its student."""
    wide = replace(recipe, model=replace(recipe.model, width=2 * recipe.model.width), seed=11)
    return Teaching(initial_model(training_set, corpus, wide))


def taught_steps(corpus: Corpus, training_set: TrainingSet, recipe: Recipe, ranks: Ranks) -> dict[str, Any]:
    """What plans make of the first step where somebody teaches."""
    found = {}
    for name in TAUGHT:
        one, teaching = under(recipe, PLANS[name], 1), teaching_of(corpus, training_set, recipe)
        placed, loss, parts = step_of(corpus, training_set, one, ranks, teaching=teaching)
        found[name] = {"loss": loss, "parts": parts, "gradients": whole_gradients(placed)}
    return found


def trained(
    corpus: Corpus,
    training_set: TrainingSet,
    recipe: Recipe,
    checkpoints: Path,
    ranks: Ranks,
    tuning: FineTuning | None = None,
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The weights of a run at its end, and its records. tuning: what of them learns."""
    model = initial_model(training_set, corpus, recipe)
    if tuning is not None:
        let_learn(model, tuning)
    records: list[StepRecord] = []
    train(model, training_set, recipe, checkpoints, ranks, records.append)
    weights = {name: weight.detach() for name, weight in model.named_parameters() if not weight.is_meta}
    return weights, [asdict(record) for record in records]


def uneven(ranks: Ranks) -> dict[str, Tensor]:
    """A table of more blocks than one, the last of them and the last rank's rows fewer; asked for in vain as well."""
    row_VD = torch.arange(2.0 * (2 * BLOCK + 7)).view(-1, 2)
    tower = torch.nn.Module()
    tower.id, tower.bias = (torch.nn.Embedding(len(row_VD), 2, _weight=row_VD * factor) for factor in (1, 2))
    cut_tables(tower, ranks, CPU)
    code_N = torch.tensor([0, BLOCK + 3, BLOCK + 4, 2 * BLOCK + 6]) if ranks.rank == 0 else torch.zeros(0).long()
    found = tower.id(code_N)
    (found.sum() * 3).backward()
    slope = tower.id.weight.grad.coalesce()
    return {
        "asked": found.detach(),
        "whole": tower.id.gathered(tower.id.weight.detach()),
        "places": slope.indices()[0] + tower.id.owned.own.start,
        "slopes": slope.values(),
    }


def runs(corpus: Corpus, training_set: TrainingSet, recipe: Recipe, folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Whole runs, plain and cut; and the second half of what one process without any plan has begun."""
    whole = under(replace(recipe, epochs=2 * recipe.epochs), EVERYTHING, 1)
    found = {"continued": trained(corpus, training_set, whole, folder / "begun alone", ranks)}
    for name in ("replicated", "sharded, owners, recomputed"):
        one = under(recipe, PLANS[name], 1)
        found[f"trained {name}"] = trained(corpus, training_set, one, folder / name, ranks)
        found[f"tuned {name}"] = trained(corpus, training_set, one, folder / f"tuned {name}", ranks, ANSWERS_ALONE)
    return found | {"taught": taught_steps(corpus, training_set, recipe, ranks)}


def main(rank: int, port: str, folder: Path, out: Path, kind: str, names: Sequence[str]) -> None:
    """The first steps under some plans, or everything there is; the test reads it."""
    torch.set_num_threads(1)
    device = torch.device(kind, rank) if kind == "cuda" else CPU
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks, run = open_group(device), Run.open(folder)
    corpus, recipe = Corpus.open(run.corpus), run.recipe
    training_set = read_training_set(corpus, recipe.model)
    found: dict[str, Any] = {"steps": first_steps(corpus, training_set, recipe, ranks, device, names or [*PLANS, HALF])}
    if not names:
        found |= {"uneven": uneven(ranks), **runs(corpus, training_set, recipe, folder, ranks)}
    torch.save(found, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5], sys.argv[6:])
