"""One of two processes: what it finds of a step under every plan, and of runs that go on under others.

Run as a script: rank, port, run folder, file for what it found.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from foundation.config import Switch
from tokenization.corpus.corpus import Corpus
from training import pretrain
from training.data import Position, TrainingSet, lessons_of_steps, read_training_set
from training.loop import StepRecord, learn, own_lessons, train
from training.parallel import Parallelism, Placed, Ranks, Scoring, Tables, Weights, place
from training.parallel.tables import BLOCK, cut_tables
from training.recipes import Recipe

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
EVERYTHING = PLANS["sharded, owners, recomputed"]
LESSONS = 4  # of a step that is learned in turns


def step_of(
    corpus: Corpus, training_set: TrainingSet, recipe: Recipe, ranks: Ranks
) -> tuple[Placed, float, dict[str, float]]:
    """The first step of a recipe, without moving anything: who has the gradients, the loss and its parts."""
    model = pretrain.initial_model(training_set, corpus, replace(recipe, seed=recipe.seed + ranks.rank))
    placed = place(model.train(), recipe.parallelism, recipe.objectives, ranks, CPU)
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
    return placed, *learn(placed, next(stream)[1], recipe, 0)


def whole_gradients(placed: Placed) -> dict[str, Tensor]:
    """Of every weight, dense and of all ranks; zeros where it got none."""
    found, mesh = {}, placed.shards.mesh
    for name, weight in placed.model.named_parameters():
        slope = torch.zeros_like(weight) if weight.grad is None else weight.grad
        slope = slope.to_dense() if slope.is_sparse else slope
        table = placed.shards.tables.get(id(weight))
        if table is not None and mesh is not None:
            slope = table.as_dtensor(slope, mesh)
        found[name] = slope.full_tensor() if isinstance(slope, DTensor) else slope
    return found


def here(weight: Tensor) -> Tensor:
    """What this rank holds of it."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def under(recipe: Recipe, plan: Parallelism, each: int) -> Recipe:
    """The recipe under a plan, with so many lessons of a rank in a step."""
    return replace(recipe, parallelism=replace(plan, accumulate=each))


def first_steps(corpus: Corpus, training_set: TrainingSet, recipe: Recipe, ranks: Ranks) -> dict[str, Any]:
    """What every plan makes of the first step."""
    found = {}
    for name, plan in PLANS.items():
        for each in (1, LESSONS // ranks.count):
            placed, loss, parts = step_of(corpus, training_set, under(recipe, plan, each), ranks)
            found[f"{name} x{each}"] = {
                "loss": loss,
                "parts": parts,
                "gradients": whole_gradients(placed),
                "held": {weight: len(here(value)) for weight, value in placed.model.named_parameters()},
            }
    return found


def trained(
    corpus: Corpus, training_set: TrainingSet, recipe: Recipe, checkpoints: Path, ranks: Ranks
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The weights of a run at its end, and its records."""
    model = pretrain.initial_model(training_set, corpus, recipe)
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


def main(rank: int, port: str, folder: Path, out: Path) -> None:
    """Everything, one after another; the test reads it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    ranks, run = Ranks.joined(), pretrain.Run.open(folder)
    corpus, recipe = Corpus.open(run.corpus), run.recipe
    training_set = read_training_set(corpus, recipe.model)
    found: dict[str, Any] = {"steps": first_steps(corpus, training_set, recipe, ranks), "uneven": uneven(ranks)}
    for name in ("replicated", "sharded, owners, recomputed"):
        one = under(recipe, PLANS[name], 1)
        found[f"trained {name}"] = trained(corpus, training_set, one, folder / name, ranks)
    # The second half of what one process without any plan has begun.
    whole = under(replace(recipe, epochs=2 * recipe.epochs), EVERYTHING, 1)
    found["continued"] = trained(corpus, training_set, whole, folder / "begun alone", ranks)
    torch.save(found, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
