"""Two ranks are two processes that talk over gloo; what they agree on is what one process finds alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foundation.config import Switch
from foundation.jagged import moved
from foundation.learning import losses
from foundation.lesson import Loss, Objectives
from foundation.model import FoundationModel
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.data import Position, lessons
from training.optimisers import Optimisers
from training.parallel import Ranks, broadcast, global_loss, own_device, sum_gradients
from training.recipes import Recipe
from training.run import Run, start
from training.sophia import hessian_diagonal
from training.training_set import TrainingSet, read_training_set

ROOT = Path(__file__).parents[2]
RANKS = 2
STEPS = 3

# One process: rank, port, run folder, file for what it found.
WORKER = """
    import sys
    from dataclasses import replace
    from functools import partial
    from pathlib import Path

    import torch
    import torch.distributed as dist

    from foundation.learning import losses
    from tokenization.corpus.corpus import Corpus
    from training.beginning import initial_model
    from training.data import Position, lessons
    from training.training_set import read_training_set
    from training.loop import train
    from training.step import slope
    from training.optimisers import Method, Optimisers
    from training.run import Run
    from training.parallel import Ranks, broadcast, global_loss, place, sum_gradients
    from training.sophia import hessian_diagonal
    from training.stages import Stage

    rank, port, folder, out = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    ranks = Ranks.joined()
    run = Run.open(folder)
    corpus, recipe = Corpus.open(run.corpus), run.recipe
    training_set = read_training_set(corpus, recipe.model)
    found = {}

    model = initial_model(training_set, corpus, replace(recipe, seed=recipe.seed + rank))
    broadcast(model, ranks)
    found["broadcast"] = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    where = (recipe.seed, Position(), rank, ranks.count)
    _, lesson = next(lessons(training_set, recipe.model, recipe.sampling, *where, recipe.objectives))
    parts = losses(model, lesson, recipe.objectives)
    addend, means = global_loss(parts, ranks)
    addend.backward()
    sum_gradients(Optimisers(model, recipe.optimisation).parameters, ranks)
    found["means"] = means
    found["weights"] = [float(part.weight) for part in parts]
    found["sparse"] = [name for name, weight in model.named_parameters() if weight.grad.is_sparse]
    found["gradients"] = {name: weight.grad.to_dense() for name, weight in model.named_parameters()}
    placed = place(model, recipe.parallelism, recipe.objectives, ranks, torch.device("cpu"))
    dense = Optimisers(placed.model, recipe.optimisation).dense
    found["curvature"] = hessian_diagonal(
        partial(slope, placed, lesson, recipe, dense), dense, torch.Generator().manual_seed(0)
    )

    table = torch.nn.Embedding(6, 2, sparse=True)
    torch.nn.init.ones_(table.weight)
    silent = torch.nn.Parameter(torch.zeros(2))
    touched = torch.tensor([1, 4, 4]) if rank == 0 else torch.zeros(0, dtype=torch.int64)
    ((table(touched) * (rank + 1)).sum() + (silent.sum() if rank == 1 else 0.0)).backward()
    sum_gradients([table.weight, silent], ranks)
    found["table"], found["silent"] = table.weight.grad.to_dense(), silent.grad

    model = initial_model(training_set, corpus, replace(recipe, seed=recipe.seed + rank))
    steps = []
    progress = train(model, training_set, recipe, Path(folder) / "checkpoints", ranks, lambda r: steps.append(r.loss))
    found["trained"] = {name: weight.detach() for name, weight in model.named_parameters()}
    found["steps"], found["step"], found["tokens"] = steps, progress.step, progress.tokens
    for method in (Method.MUON, Method.SOPHIA):
        model = initial_model(training_set, corpus, recipe)
        by_it = replace(recipe, optimisation=replace(recipe.optimisation, method=method))
        train(model, training_set, by_it, Path(folder) / str(method), ranks, lambda r: None)
        found[f"by_{method}"] = {name: weight.detach() for name, weight in model.named_parameters()}
    model, staged = initial_model(training_set, corpus, recipe), []
    in_stages = replace(recipe, stages=(Stage(8, 0.5), Stage(16, 0.5)))
    train(model, training_set, in_stages, Path(folder) / "stages", ranks, lambda r: staged.append(r.stage))
    found["by_stages"] = {name: weight.detach() for name, weight in model.named_parameters()}
    found["stages"] = staged
    torch.save(found, out)
    dist.destroy_process_group()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Together:
    """What each of the two ranks found, and the run they shared."""

    run: Run
    ranks: tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="session")
def recipe(recipe: Recipe) -> Recipe:
    """The recipe with every objective that is off by default: ranks agree in those that are always on, too."""
    model = replace(recipe.model, layers=2, intents=("kind", "action"), category_targets=("brand",), gap_bins=8)
    objectives = Objectives(future=0.3, impressions=1.0, in_batch=Switch.ON, layerwise=0.2, distill=0.2)
    return replace(recipe, model=model, objectives=objectives)


@pytest.fixture(scope="session")
def training_set(kiosk_corpus: Corpus, recipe: Recipe) -> TrainingSet:
    return read_training_set(kiosk_corpus, recipe.model)


@pytest.fixture(scope="module")
def together(kiosk_corpus: Corpus, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Together:
    folder = tmp_path_factory.mktemp("ranks")
    run = start(kiosk_corpus, folder / "run", replace(recipe, epochs=1))
    port = free_port()
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(WORKER),
                str(rank),
                str(port),
                str(run.folder),
                str(folder / f"{rank}.pt"),
            ],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=240)
        assert worker.returncode == 0, said
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    return Together(run, (found[0], found[1]))


@pytest.fixture(scope="module")
def alone(kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet) -> tuple[dict[str, float], FoundationModel]:
    """The same two lessons in one process: means of the losses, and the model with its gradients."""
    model = initial_model(training_set, kiosk_corpus, recipe)
    addend, means = global_loss(union_losses(model, recipe, training_set), Ranks.alone())
    addend.backward()
    return means, model


def union_losses(model: FoundationModel, recipe: Recipe, training_set: TrainingSet) -> list[Loss]:
    """The losses of what both ranks learn from first, taken together."""
    union: dict[str, Loss] = {}
    for rank in range(RANKS):
        stream = lessons(
            training_set, recipe.model, recipe.sampling, recipe.seed, Position(), rank, RANKS, recipe.objectives
        )
        for loss in losses(model, next(stream)[1], recipe.objectives):
            before = union.get(loss.name, replace(loss, total=torch.zeros(()), weight=torch.zeros(())))
            union[loss.name] = replace(loss, total=before.total + loss.total, weight=before.weight + loss.weight)
    return list(union.values())


def test_ranks_hold_unequal_numbers_of_targets(together: Together) -> None:
    """Or the tests below would pass for a mean of means."""
    one, other = (rank["weights"] for rank in together.ranks)
    assert max(abs(a - b) / max(a, b) for a, b in zip(one, other, strict=True)) > 0.05


def test_two_ranks_agree_with_one_in_every_loss(together: Together, alone: tuple[dict[str, float], Any]) -> None:
    for rank in together.ranks:
        assert rank["means"] == pytest.approx(alone[0], rel=1e-5)


def test_two_ranks_agree_with_one_in_every_gradient(together: Together, alone: tuple[Any, FoundationModel]) -> None:
    for rank in together.ranks:
        assert set(rank["sparse"]) == {"tower.id.weight", "tower.bias.weight"}
        for name, weight in alone[1].named_parameters():
            expected = torch.zeros_like(weight) if weight.grad is None else weight.grad.to_dense()
            torch.testing.assert_close(rank["gradients"][name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_two_ranks_agree_with_one_in_the_curvature(
    together: Together, alone: tuple[Any, FoundationModel], recipe: Recipe, training_set: TrainingSet
) -> None:
    model = alone[1]
    dense = Optimisers(model, recipe.optimisation).dense

    def slope() -> list[torch.Tensor]:
        addend, _ = global_loss(union_losses(model, recipe, training_set), Ranks.alone())
        return list(torch.autograd.grad(addend, dense, allow_unused=True, materialize_grads=True))

    expected = hessian_diagonal(slope, dense, torch.Generator().manual_seed(0))
    largest = max(float(one.abs().max()) for one in expected)
    assert largest > 0.01
    for rank in together.ranks:
        for one, other in zip(rank["curvature"], expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2 * largest)


def test_every_rank_starts_from_the_weights_of_the_first(
    together: Together, kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet
) -> None:
    first = dict(initial_model(training_set, kiosk_corpus, recipe).named_parameters())
    other = dict(initial_model(training_set, kiosk_corpus, replace(recipe, seed=4)).named_parameters())
    assert not torch.equal(first["tower.id.weight"], other["tower.id.weight"])
    for rank in together.ranks:
        assert all(torch.equal(rank["broadcast"][name], weight) for name, weight in first.items())


def test_a_rank_without_rows_or_without_a_gradient_gets_the_others(together: Together) -> None:
    expected = torch.zeros(6, 2)
    expected[1], expected[4] = 1.0, 2.0
    for rank in together.ranks:
        assert torch.equal(rank["table"], expected)
        assert torch.equal(rank["silent"], torch.ones(2))


def test_ranks_stay_together_through_training(together: Together) -> None:
    one, other = together.ranks
    for run in ("trained", "by_muon", "by_sophia", "by_stages"):
        for name, weight in one[run].items():
            assert torch.equal(weight, other[run][name]), (run, name)
    assert one["stages"] == sorted(one["stages"])
    assert set(one["stages"]) == {0, 1}
    assert one["step"] == other["step"] == len(one["steps"]) >= STEPS
    assert other["steps"] == []  # the first rank alone speaks
    assert sum(one["steps"][-2:]) < sum(one["steps"][:2])
    assert one["tokens"] == other["tokens"]  # of both ranks
    assert [path.name.split("-")[1] for path in (together.run.folder / "checkpoints").iterdir()] == [
        f"{one['step']:09d}"
    ]


def test_alone_nothing_is_exchanged() -> None:
    assert Ranks.joined() == Ranks.alone() == Ranks(0, 1)
    weight = torch.nn.Parameter(torch.ones(2))
    sum_gradients([weight], Ranks.alone())
    assert weight.grad is None
    broadcast(torch.nn.Linear(1, 1), Ranks.alone())


def test_a_loss_without_targets_is_nothing() -> None:
    addend, means = global_loss([Loss("next", torch.zeros(()), torch.zeros(()), 1.0)], Ranks.alone())
    assert (addend.item(), means) == (0.0, {"next": 0.0})


def test_parts_enter_with_their_shares_over_their_weights() -> None:
    parts = [
        Loss("next", torch.tensor(6.0), torch.tensor(3.0), 1.0),
        Loss("embedding", torch.tensor(8.0), torch.tensor(2.0), 0.5),
    ]
    addend, means = global_loss(parts, Ranks.alone())
    assert addend.item() == 2.0 + 0.5 * 4.0
    assert means == {"next": 2.0, "embedding": 4.0}


def tensors_of(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value if isinstance(value, tuple) else [getattr(value, field.name) for field in fields(value)]
    return [tensor for part in parts for tensor in tensors_of(part)]


def test_a_lesson_goes_to_a_device_with_every_tensor_of_it(recipe: Recipe, training_set: TrainingSet) -> None:
    _, lesson = next(lessons(training_set, recipe.model, recipe.sampling, recipe.seed, Position(), 0, 1))
    before = tensors_of(lesson)
    assert len(before) > 10
    there = moved(lesson, torch.device("meta"))
    assert type(there) is type(lesson)
    assert [(t.shape, t.dtype) for t in tensors_of(there)] == [(t.shape, t.dtype) for t in before]
    assert {tensor.device.type for tensor in tensors_of(there)} == {"meta"}
    assert all(a is b for a, b in zip(tensors_of(moved(lesson, torch.device("cpu"))), before, strict=True))


def test_a_process_trains_on_its_own_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    expected = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert str(own_device()) == expected
