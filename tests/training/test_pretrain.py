from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.tokenizer.tokenizer import Tokenizer
from training import pretrain
from training.beginning import initial_model
from training.errors import RunError, TrainingError
from training.pretrain import Workers
from training.progress import StepRecord
from training.recipes import Recipe, with_overrides
from training.run import Run, start
from training.training_set import Until
from training.update import of_model, recipe_after

ROOT = Path(__file__).parents[2]


def logged(run: Run) -> list[StepRecord]:
    return [StepRecord(**json.loads(line)) for line in (run.folder / "training.jsonl").read_text().splitlines()]


def test_a_run_is_opened_as_it_was_started(kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    run = start(kiosk_corpus, tmp_path / "run", recipe)
    assert not run.finished
    opened = Run.open(str(run.folder))
    assert (opened.recipe, opened.until) == (recipe, Until.VALIDATION)
    assert opened.corpus == kiosk_corpus.folder.resolve()
    told = json.loads((run.folder / "run.json").read_text())
    assert told["split"] == asdict(kiosk_corpus.split)
    assert told["tokenizer"] == kiosk_corpus.tokenizer.fingerprint


def test_starting_the_same_run_again_finds_it(trained: Run, kiosk_corpus: Corpus, recipe: Recipe) -> None:
    again = start(kiosk_corpus, trained.folder, recipe)
    assert again.finished
    before = len(logged(trained))
    assert pretrain.pretrain(again) == Subgraph.from_pretrained(again.model).space
    assert len(logged(trained)) == before


def test_another_recipe_corpus_or_split_needs_another_folder(
    kiosk, kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    start(kiosk_corpus, folder, recipe).log.touch()  # something was learned in it
    with pytest.raises(RunError, match="holds a run with another recipe: choose another --out, or --restart"):
        start(kiosk_corpus, folder, replace(recipe, seed=4))
    with pytest.raises(RunError, match="another until"):
        start(kiosk_corpus, folder, recipe, until=Until.END)
    tokenizer = Tokenizer.fit(kiosk.schema, kiosk.events.slice(0, 700), kiosk.items)
    other = write_corpus(tmp_path / "other", [tokenizer.transform(kiosk.events)], tokenizer, {})
    with pytest.raises(RunError, match="another corpus"):
        start(other, folder, recipe)


def test_a_run_goes_on_under_another_parallelism_also_one_from_before_there_was_any(
    kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path
) -> None:
    run = start(kiosk_corpus, tmp_path / "run", recipe)
    told = json.loads((run.folder / "run.json").read_text())
    del told["recipe"]["parallelism"]
    (run.folder / "run.json").write_text(json.dumps(told))
    assert Run.open(run.folder).recipe == recipe
    cut = with_overrides(recipe, {"weights": "sharded", "tables": "rows", "scoring": "owners", "accumulate": "2"})
    assert Run.open(start(kiosk_corpus, run.folder, cut).folder).recipe == cut


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"recipe": {}}', '{"recipe": 3, "corpus": "x"}'])
def test_a_folder_that_is_no_run_is_a_sentence(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(TrainingError, match=r"is no training run .*make one with `userfm train`|recipe can't be read"):
        Run.open(tmp_path)


def test_a_trained_run_holds_its_log_its_curves_and_its_model(
    trained: Run, kiosk_corpus: Corpus, recipe: Recipe
) -> None:
    assert trained.finished
    records = logged(trained)
    assert [record.step for record in records] == list(range(1, records[0].steps + 1))
    assert list((trained.folder / "tensorboard").glob("events.*"))
    subgraph = Subgraph.from_pretrained(trained.model)
    assert subgraph.model.config == recipe.model
    assert subgraph.tokenizer.fingerprint == kiosk_corpus.tokenizer.fingerprint
    card = (trained.model / "README.md").read_text()
    for said in ("# kiosk", "1 layers of width 16", f"{records[-1].step} steps", "seed 3", "Told at a request: store"):
        assert said in card


def test_item_vectors_are_of_the_last_event_that_training_read(trained: Run, kiosk_corpus: Corpus) -> None:
    space = Subgraph.from_pretrained(trained.model).space
    assert kiosk_corpus.split.validation is not None
    assert kiosk_corpus.split.validation - 86_400 < space.as_of < kiosk_corpus.split.validation
    assert (space.name, space.version, space.width) == ("kiosk", 1, 17)


def test_a_model_starts_from_the_recipes_seed(kiosk_corpus: Corpus, recipe: Recipe, training_set) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = initial_model(training_set, kiosk_corpus, replace(recipe, seed=seed))
        return torch.cat([weight.detach().flatten() for weight in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_runs_that_share_their_start_begin_alike_whatever_their_seed(
    kiosk_corpus: Corpus, recipe: Recipe, training_set
) -> None:
    shared = with_overrides(recipe, {"start": "shared"})
    one, other = (initial_model(training_set, kiosk_corpus, replace(shared, seed=seed)) for seed in (1, 2))
    for (name, weight), again in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(weight, again), name
    assert Recipe.from_json(shared.to_json()) == shared


class Crash(Exception):
    """Power fails, say."""


def crash_at(run: Run, last: int) -> None:
    """Train in this process until step `last` is logged, and leave half a line behind it."""

    def on_step(record: StepRecord) -> None:
        if record.step == last:
            raise Crash

    with pytest.raises(Crash):
        pretrain.pretrain_bare(run, on_step)
    with run.log.open("a") as log:
        log.write('{"step": ')


@pytest.mark.parametrize("checkpoint_seconds", [0.0, math.inf])
def test_a_run_that_goes_on_logs_each_step_once(
    trained: Run, kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path, checkpoint_seconds: float
) -> None:
    """Whether the newest checkpoint is of the step before the crash, or there is none."""
    run = start(kiosk_corpus, tmp_path / "run", replace(recipe, checkpoint_seconds=checkpoint_seconds))
    for last in (5, 9):
        crash_at(run, last)
    heard: list[int] = []
    pretrain.pretrain_bare(run, lambda record: heard.append(record.step))
    expected = logged(trained)
    assert heard == [record.step for record in expected][-len(heard) :]
    assert [record.step for record in logged(run)] == [record.step for record in expected]
    assert [r.loss for r in logged(run)] == pytest.approx([r.loss for r in expected], rel=1e-3)


def test_a_run_without_a_whole_checkpoint_keeps_its_log(kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    run = start(kiosk_corpus, tmp_path / "run", replace(recipe, checkpoint_seconds=0.0))
    crash_at(run, 3)
    before = run.log.read_bytes()
    for path in run.checkpoints.iterdir():
        path.write_bytes(b"torn")
    with pytest.raises(RunError, match=r"no checkpoint in .* is whole"):
        pretrain.pretrain_bare(run)
    assert run.log.read_bytes() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run this test on a machine that has one")
def test_a_gpu_trains_the_run_that_the_cpu_trains(
    kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = start(kiosk_corpus, tmp_path / "gpu", recipe)
    torch.cuda.reset_peak_memory_stats()
    pretrain.pretrain_bare(on_gpu)
    assert torch.cuda.max_memory_allocated() > 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = start(kiosk_corpus, tmp_path / "cpu", recipe)
    pretrain.pretrain_bare(on_cpu)
    assert [r.loss for r in logged(on_gpu)] == pytest.approx([r.loss for r in logged(on_cpu)], rel=1e-2)


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    """One for all runs below: starting Ray takes longer than they do."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.timeout(280)
def test_ray_trains_the_run_that_plain_python_trains(
    ray_session: None, trained: Run, kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path
) -> None:
    run = start(kiosk_corpus, tmp_path / "run", recipe)
    heard: list[StepRecord] = []
    space = pretrain.pretrain(run, on_step=heard.append)
    assert run.finished
    assert [record.step for record in heard] == [record.step for record in logged(trained)]
    assert [r.loss for r in heard] == pytest.approx([r.loss for r in logged(trained)], rel=1e-3)
    assert space == Subgraph.from_pretrained(run.model).space


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_ray_goes_on_with_a_run_that_was_cut_off(
    ray_session: None, trained: Run, kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path
) -> None:
    run = start(kiosk_corpus, tmp_path / "run", replace(recipe, checkpoint_seconds=0.0))
    crash_at(run, 9)
    heard: list[int] = []
    pretrain.pretrain(run, on_step=lambda record: heard.append(record.step))
    steps = [record.step for record in logged(trained)]
    assert heard == steps[8:]
    assert [record.step for record in logged(run)] == steps


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_fails_is_a_sentence_with_its_cause(
    ray_session: None, kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path
) -> None:
    corpus = Corpus.open(shutil.copytree(kiosk_corpus.folder, tmp_path / "corpus"))
    run = start(corpus, tmp_path / "run", recipe)
    shutil.rmtree(corpus.folder)
    with pytest.raises(
        TrainingError, match=r"training stopped: .*corpus is no corpus; make one with `userfm tokenize`"
    ):
        pretrain.pretrain(run)
    assert not run.finished


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_trains_on_two_workers(ray_session: None, kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    run = start(kiosk_corpus, tmp_path / "run", recipe)
    heard: list[StepRecord] = []
    pretrain.pretrain(run, Workers(2), heard.append)
    assert run.finished
    assert [record.step for record in heard] == list(range(1, heard[-1].steps + 1))
    assert heard[-1].steps < 2 * len(heard)
    assert sum(record.loss for record in heard[-4:]) < sum(record.loss for record in heard[:4])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_update_is_trained_on_two_workers(
    ray_session: None, trained: Run, kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    update = of_model(trained.model, rate=0.3, replay=1.0, held=0.1)
    recipe = recipe_after(trained.recipe, kiosk_corpus, 2)
    run = start(kiosk_corpus, tmp_path / "run", recipe, Until.END, origin=update)
    heard: list[StepRecord] = []
    space = pretrain.pretrain(run, Workers(2), heard.append)
    assert space.lineage[-1] == Subgraph.from_pretrained(trained.model).space.origin
    assert all(math.isfinite(record.loss) for record in heard)


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [0, 2])
def test_workers_have_gpus_where_the_cluster_has_whatever_the_driver_has(gpus: int) -> None:
    asked = f"import ray; ray.init(num_cpus=1, num_gpus={gpus}, include_dashboard=False, log_to_driver=False); "
    asked += "from training.pretrain import on_gpus; print(on_gpus())"
    told = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.split()[-1] == str(gpus > 0)


def test_workers_on_one_machine_share_its_cores_and_leave_one() -> None:
    assert [pretrain.threads_of(cores, workers) for cores, workers in ((8, 1), (9, 2), (2, 2), (1, 1))] == [7, 4, 1, 1]
