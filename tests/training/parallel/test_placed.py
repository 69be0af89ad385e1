"""Two processes over gloo, under every plan: what they find is what one process finds without any."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foundation.lesson import Objectives
from tests.training.parallel import worker
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.finetune import ANSWERS
from training.parallel import Parallelism, Precision, Ranks
from training.parallel.tables import BLOCK
from training.recipes import Recipe
from training.run import Run, start
from training.training_set import TrainingSet, read_training_set

ROOT = Path(__file__).parents[3]
ALONE = Ranks.alone()


Found = dict[str, Any]  # what a rank found, as `worker.main` wrote it


@pytest.fixture(scope="session")
def recipe(recipe: Recipe) -> Recipe:
    """With every part whose negatives may lie on ranks, and whatever else is off by default."""
    model = replace(
        recipe.model, layers=2, intents=("kind", "action"), category_targets=("brand",), gap_bins=8, interests=2
    )
    model = replace(model, bands=(8,))
    objectives = Objectives(future=0.3, impressions=1.0, layerwise=0.2)
    optimisation = replace(recipe.optimisation, average=0.6)
    return replace(recipe, model=model, objectives=objectives, optimisation=optimisation, epochs=1)


@pytest.fixture(scope="session")
def training_set(kiosk_corpus: Corpus, recipe: Recipe) -> TrainingSet:
    return read_training_set(kiosk_corpus, recipe.model)


@pytest.fixture(scope="module")
def begun(
    kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Checkpoints of one process that learned as many lessons a step as two."""
    folder = tmp_path_factory.mktemp("begun") / "checkpoints"
    worker.trained(kiosk_corpus, training_set, worker.under(recipe, Parallelism(), 2), folder, ALONE)
    return folder


@pytest.fixture(scope="module")
def run(kiosk_corpus: Corpus, recipe: Recipe, begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = start(kiosk_corpus, tmp_path_factory.mktemp("plans") / "run", recipe)
    shutil.copytree(begun, run.folder / "begun alone")
    return run


@pytest.fixture(scope="module")
def together(run: Run) -> tuple[Found, Found]:
    return in_two_processes(run, "cpu")


def in_two_processes(run: Run, device: str, *plans: str) -> tuple[Found, Found]:
    """What each of two ranks found: of some plans, or of all and of whole runs."""
    port, outs = _free_port(), [run.folder / f"{device}-{rank}.pt" for rank in range(2)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", worker.__name__, str(rank), str(port), str(run.folder), str(out), device, *plans],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    try:
        for process in workers:
            _, said = process.communicate()
            assert process.returncode == 0, said
    finally:
        for process in workers:  # one that waits for another that has failed
            process.kill()
    first, second = (torch.load(out, weights_only=True) for out in outs)
    return first, second


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def alone(kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet) -> dict[int, tuple[float, Any, Any]]:
    """The same 2 or 4 lessons in one process, one after another: the loss, its parts, the gradients."""
    found = {}
    for lessons in (2, worker.LESSONS):
        one = worker.under(recipe, Parallelism(), lessons)
        placed, loss, parts = worker.step_of(kiosk_corpus, training_set, one, ALONE)
        found[lessons] = loss, parts, worker.whole_gradients(placed)
    return found


def assert_agrees(found: Found, alone: tuple[float, Any, Any], tolerance: float = 1e-3) -> None:
    """The loss, its parts and every gradient of a step."""
    loss, parts, gradients = alone
    assert found["loss"] == pytest.approx(loss, rel=tolerance / 100)
    assert found["parts"] == pytest.approx(parts, rel=tolerance / 10)
    for name, slope in gradients.items():
        torch.testing.assert_close(found["gradients"][name], slope, rtol=tolerance, atol=tolerance / 500, msg=name)


@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("plan", worker.PLANS)
def test_two_ranks_agree_with_one_in_every_loss_and_gradient(
    together: tuple[Found, Found], alone: dict[int, tuple[float, Any, Any]], plan: str, each: int
) -> None:
    for rank in together:
        assert_agrees(rank["steps"][f"{plan} x{each}"], alone[2 * each])


@pytest.mark.parametrize("plan", worker.TAUGHT)
def test_two_ranks_that_are_taught_agree_with_one(
    together: tuple[Found, Found], kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet, plan: str
) -> None:
    teaching = worker.teaching_of(kiosk_corpus, training_set, recipe)
    both = worker.under(recipe, Parallelism(), 2)
    placed, loss, parts = worker.step_of(kiosk_corpus, training_set, both, ALONE, teaching=teaching)
    assert {"taught", "taught_embedding", "taught_states", "taught_layer_1"} <= set(parts)
    for rank in together:
        assert_agrees(rank["taught"][plan], (loss, parts, worker.whole_gradients(placed)))


@pytest.mark.parametrize("plan", ["replicated", "sharded, owners, recomputed"])
def test_what_does_not_learn_stays_however_it_is_spread(
    together: tuple[Found, Found], kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet, plan: str
) -> None:
    tuned, _ = together[0][f"tuned {plan}"]
    before = dict(initial_model(training_set, kiosk_corpus, recipe).named_parameters())
    changed = {name for name, weight in tuned.items() if not torch.equal(weight, before[name])}
    assert changed
    assert all(name.startswith(ANSWERS) for name in changed)


def test_two_ranks_in_bfloat16_agree_with_one_in_bfloat16(
    together: tuple[Found, Found],
    alone: dict[int, Any],
    kiosk_corpus: Corpus,
    recipe: Recipe,
    training_set: TrainingSet,
) -> None:
    half = worker.under(recipe, Parallelism(precision=Precision.BFLOAT16), 2)
    placed, loss, parts = worker.step_of(kiosk_corpus, training_set, half, ALONE)
    assert loss != alone[2][0]
    for rank in together:
        assert_agrees(rank["steps"][f"{worker.HALF} x1"], (loss, parts, worker.whole_gradients(placed)))


@pytest.mark.slow
def test_two_ranks_of_compiled_layers_agree_with_one_of_plain_ones(
    run: Run, alone: dict[int, tuple[float, Any, Any]]
) -> None:
    for rank in in_two_processes(run, "cpu", worker.COMPILED):
        assert_agrees(rank["steps"][f"{worker.COMPILED} x1"], alone[2])
        assert_agrees(rank["steps"][f"{worker.COMPILED} x2"], alone[4])


@pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="fewer than two CUDA devices: run this test on a machine that has two"
)
def test_two_gpus_over_nccl_agree_with_one_cpu(run: Run, alone: dict[int, tuple[float, Any, Any]]) -> None:
    for rank in in_two_processes(run, "cuda", *worker.PLANS):
        for plan in worker.PLANS:
            for each in (1, 2):
                assert_agrees(rank["steps"][f"{plan} x{each}"], alone[2 * each], tolerance=0.05)


def test_what_is_cut_is_held_in_parts_that_make_the_whole(together: tuple[Found, Found], alone: dict[int, Any]) -> None:
    one, other = (rank["steps"] for rank in together)
    whole = {name: len(slope) for name, slope in alone[2][2].items()}
    tables = {name for name in whole if name.startswith(("tower.id.", "tower.bias."))}
    cut = {
        "replicated": set(),
        "ddp": set(),
        "sharded": set(whole) - tables,
        "owners": tables,
        "sharded, owners": set(whole),
    }
    for plan, names in cut.items():
        held, rest = one[f"{plan} x1"]["held"], other[f"{plan} x1"]["held"]
        for name, rows in whole.items():
            assert (held[name], rest[name]) == ((-(-rows // 2), rows // 2) if name in names else (rows, rows)), name


def test_rows_come_from_their_owners_and_go_back_to_the_first_rank_in_blocks(together: tuple[Found, Found]) -> None:
    first, second = (rank["uneven"] for rank in together)
    rows = 2 * BLOCK + 7
    whole = torch.arange(2.0 * rows).view(-1, 2)
    asked = torch.tensor([0, BLOCK + 3, BLOCK + 4, rows - 1])
    assert torch.equal(first["asked"], whole[asked])
    assert second["asked"].shape == (0, 2)
    assert torch.equal(first["whole"], whole)
    assert second["whole"].shape == (0, 2)
    assert torch.equal(torch.cat([first["places"], second["places"]]), asked)
    assert len(first["places"]) == 2
    assert all((rank["slopes"] == 3).all() for rank in (first, second))


def test_a_run_that_is_cut_ends_as_one_that_is_not(together: tuple[Found, Found]) -> None:
    first, second = together
    plain, records = first["trained replicated"]
    cut, cut_records = first["trained sharded, owners, recomputed"]
    assert_alike(records, cut_records)
    assert len(records) >= 3
    assert set(cut) == set(plain)
    for name, weight in plain.items():
        torch.testing.assert_close(cut[name], weight, rtol=0.02, atol=2e-3, msg=name)
    assert second["trained sharded, owners, recomputed"][0] == {}  # rank 0 alone has it whole
    assert set(second["trained replicated"][0]) == set(plain)


def test_a_run_goes_on_with_another_number_of_ranks_and_cut_otherwise(
    together: tuple[Found, Found],
    run: Run,
    kiosk_corpus: Corpus,
    recipe: Recipe,
    training_set: TrainingSet,
    begun: Path,
    tmp_path: Path,
) -> None:
    """Begun alone and continued in parts; begun in parts and continued alone; all of it alone."""
    whole = worker.under(replace(recipe, epochs=2 * recipe.epochs), Parallelism(), 2)
    found = [together[0]["continued"][1]]
    for number, checkpoints in enumerate((run.folder / "sharded, owners, recomputed", begun)):
        shutil.copytree(checkpoints, tmp_path / str(number))
        found.append(worker.trained(kiosk_corpus, training_set, whole, tmp_path / str(number), ALONE)[1])
    for records in found:
        assert records[0]["step"] == found[-1][0]["step"] > 3
        assert_alike(records, found[-1])


def assert_alike(records: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Two ranks add up in another order than one, and a few steps let that grow."""
    assert [record["step"] for record in records] == [record["step"] for record in others]
    assert [record["tokens"] for record in records] == [record["tokens"] for record in others]
    for one, other in zip(records, others, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=2e-3)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=2e-2)
