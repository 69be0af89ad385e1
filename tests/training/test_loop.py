"""The loop, in this process and in others that die in the middle of it.

The golden losses are those of the first steps on the kiosk's log. To accept a change on purpose, run that test with
USERFM_WRITE_GOLDEN=1 and say why in the log.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foundation.jagged import group_offsets
from foundation.model import FoundationModel
from tests.training.conftest import train_until
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.data import Position, lessons
from training.errors import TrainingError
from training.loop import schedule, total_batches, train
from training.parallel import Ranks
from training.progress import Progress, StepRecord
from training.recipes import Recipe, ordered
from training.run import start
from training.setbacks import BACK_OFF
from training.training_set import TrainingSet, read_training_set

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "losses.json"
TOLERANCE = 2e-3  # relative: other processors add up in another order, and a few steps let that grow
STEPS = 20
KILLED_IN = 11


@pytest.fixture(scope="module")
def twenty(recipe: Recipe, training_set: TrainingSet) -> Recipe:
    """The recipe with as many tokens a batch as make twenty steps."""
    model = replace(recipe.model, dropout=0.1)  # what is hidden must be the same again too
    sampling = replace(recipe.sampling, tokens=54)
    optimisation = replace(recipe.optimisation, average=0.6)  # and what the average holds
    changed = replace(recipe, model=model, epochs=2, sampling=sampling, checkpoint_seconds=0.0)
    changed = replace(changed, optimisation=optimisation)
    assert total_batches(training_set, changed, Ranks.alone()) == STEPS
    return changed


def trained(
    corpus: Corpus, recipe: Recipe, checkpoints: Path, stop: int | None = None
) -> tuple[FoundationModel, list[StepRecord]]:
    """Train with objects of its own."""
    return train_until(corpus, read_training_set(corpus, recipe.model), recipe, checkpoints, stop)


@pytest.fixture(scope="module")
def straight(
    kiosk_corpus: Corpus, twenty: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FoundationModel, list[StepRecord]]:
    torch.set_num_threads(1)
    return trained(kiosk_corpus, twenty, tmp_path_factory.mktemp("straight"))


def assert_ends_alike(
    straight: tuple[FoundationModel, list[StepRecord]], model: FoundationModel, records: list[StepRecord], first: int
) -> None:
    assert [record.step for record in records] == list(range(first, STEPS + 1))
    assert [record.loss for record in records] == [record.loss for record in straight[1][first - 1 :]]
    assert [record.tokens for record in records] == [record.tokens for record in straight[1][first - 1 :]]
    for (name, weight), (_, expected) in zip(model.named_parameters(), straight[0].named_parameters(), strict=True):
        assert torch.equal(weight, expected), name


def test_training_is_the_same_again(straight, kiosk_corpus: Corpus, twenty: Recipe, tmp_path: Path) -> None:
    assert_ends_alike(straight, *trained(kiosk_corpus, twenty, tmp_path), first=1)


def test_a_killed_process_is_continued_by_another_bit_for_bit(
    straight, kiosk_corpus: Corpus, twenty: Recipe, tmp_path: Path
) -> None:
    run = start(kiosk_corpus, tmp_path / "run", twenty)
    code = f"""
        import os, signal
        import torch
        from training import pretrain
        from training.run import Run

        torch.set_num_threads(1)
        def on_step(record):
            if record.step == {KILLED_IN}:
                os.kill(os.getpid(), signal.SIGKILL)
        pretrain.pretrain_bare(Run.open({str(run.folder)!r}), on_step)
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not run.finished
    assert_ends_alike(straight, *trained(kiosk_corpus, twenty, run.folder / "checkpoints"), first=KILLED_IN)


def test_a_torn_checkpoint_costs_the_steps_since_the_one_before(
    straight, kiosk_corpus: Corpus, twenty: Recipe, tmp_path: Path
) -> None:
    trained(kiosk_corpus, twenty, tmp_path, stop=KILLED_IN)
    newest = max(tmp_path.iterdir())
    assert newest.name.startswith(f"step-{KILLED_IN - 1:09d}-")
    newest.write_bytes(newest.read_bytes()[:-100])
    assert_ends_alike(straight, *trained(kiosk_corpus, twenty, tmp_path), first=KILLED_IN - 1)


def test_checkpoints_of_another_model_are_refused_with_a_sentence(
    kiosk_corpus: Corpus, twenty: Recipe, tmp_path: Path
) -> None:
    trained(kiosk_corpus, twenty, tmp_path, stop=KILLED_IN)
    wider = replace(twenty, model=replace(twenty.model, width=2 * twenty.model.width))
    with pytest.raises(TrainingError, match="of another model or userfm than this: take a new run directory"):
        trained(kiosk_corpus, wider, tmp_path)


def test_a_finished_run_takes_no_further_step(straight, kiosk_corpus: Corpus, twenty: Recipe, tmp_path: Path) -> None:
    trained(kiosk_corpus, twenty, tmp_path)
    model, records = trained(kiosk_corpus, twenty, tmp_path)
    assert records == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), straight[0].parameters(), strict=True))


def test_the_first_losses_are_the_golden_ones(kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    _, records = trained(kiosk_corpus, recipe, tmp_path, stop=7)
    found = [{"loss": record.loss, **record.losses} for record in records]
    if "USERFM_WRITE_GOLDEN" in os.environ:
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert len(found) == len(golden) == 6
    for step, (one, expected) in enumerate(zip(found, golden, strict=True), start=1):
        assert one == pytest.approx(expected, rel=TOLERANCE), f"step {step}"


def test_the_loss_falls_and_is_the_sum_of_its_parts(straight) -> None:
    records = straight[1]
    assert sum(record.loss for record in records[-4:]) < sum(record.loss for record in records[:4])
    shares = {"next": 1.0, "embedding": 0.3, "next_2": 0.3}
    shares |= {f"{name}{ahead}": 0.05 for name in ("quantity", "action") for ahead in ("", "_2")}
    for record in records:
        assert record.loss == pytest.approx(sum(shares[name] * part for name, part in record.losses.items()), rel=1e-5)


def test_a_record_tells_where_the_run_stands(straight, training_set: TrainingSet) -> None:
    records = straight[1]
    assert {record.steps for record in records} == {STEPS}
    assert all(a.seconds < b.seconds and a.tokens < b.tokens for a, b in itertools.pairwise(records))
    users = training_set.trainable
    tokens = (training_set.events.offset_B1[users + 1] - training_set.events.offset_B1[users]).sum()
    assert records[-1].tokens == 2 * int(tokens)  # two epochs
    last = records[-1]
    assert last.tokens_per_second == pytest.approx(last.tokens / last.seconds)
    assert StepRecord(**json.loads(last.to_line())) == last
    assert all(record.gradient_norm > 0 for record in records)


def test_rates_warm_up_and_fall_to_a_fiftieth(recipe: Recipe) -> None:
    def factor(step: int, seconds: float = 0.0, minutes: float = math.inf) -> float:
        return schedule(Progress(step, step, Position(), seconds, 0), 100, replace(recipe, minutes=minutes))

    assert [factor(step) for step in range(5)] == sorted(factor(step) for step in range(5))
    assert factor(0) == pytest.approx(0.2, rel=1e-3)
    assert factor(50) == pytest.approx(0.51)
    assert factor(100) == pytest.approx(0.02)
    assert factor(50, seconds=60, minutes=1.0) == pytest.approx(0.02)  # the minutes end before the epochs
    assert factor(50, seconds=30, minutes=1.0) == factor(50)


def test_minutes_end_a_run_before_its_epochs(kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    _, records = trained(kiosk_corpus, replace(recipe, minutes=1e-9), tmp_path)
    assert len(records) == 1  # the first step uses them up
    assert len(list(tmp_path.iterdir())) == 1
    assert trained(kiosk_corpus, replace(recipe, minutes=1e-9), tmp_path)[1] == []


def test_a_run_whose_loss_is_no_number_any_more_ends_with_a_sentence_and_keeps_the_batch(
    kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path
) -> None:
    wild = replace(recipe, optimisation=replace(recipe.optimisation, rate=1e30, table_rate=1e30, warmup=1))
    with pytest.raises(
        TrainingError, match=r"no finite number 8 steps in a row, up to step \d+: lower `rate`"
    ) as error:
        trained(kiosk_corpus, wild, tmp_path / "run")
    (kept,) = (tmp_path / "run").glob("bad-lessons-*.pt")
    assert str(kept) in str(error.value)
    assert set(torch.load(kept, weights_only=True)[0]) >= {"batch", "requests", "targets", "negatives"}


def test_a_batch_whose_loss_is_no_number_moves_nothing_and_the_rates_back_off(
    kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet, tmp_path: Path
) -> None:
    events = training_set.events
    time_T, begin_T = events.time_T.clone(), events.begin_T.clone()
    last = int(events.offset_B1[1]) - 1
    newest_T = (events.user_T == 0) & (events.group_T == events.group_T[last])
    time_T[newest_T] = begin_T[newest_T] = math.inf
    torn = replace(training_set, events=replace(events, time_T=time_T, begin_T=begin_T))
    model, records = initial_model(training_set, kiosk_corpus, recipe), []
    train(model, torn, recipe, tmp_path, Ranks.alone(), records.append)
    bad = [record for record in records if not math.isfinite(record.loss)]
    assert 0 < len(bad) < len(records)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    step = bad[0].step
    whole = trained(kiosk_corpus, recipe, tmp_path / "whole")[1]
    assert records[step].rate == pytest.approx(whole[step].rate * BACK_OFF)
    assert records[-1].rate > bad[-1].rate * 0.02  # and come back


def test_a_run_that_is_asked_to_stop_ends_as_if_it_had_not_been(
    straight: tuple[FoundationModel, list[StepRecord]], kiosk_corpus: Corpus, twenty: Recipe, tmp_path: Path
) -> None:
    quiet, steps = replace(twenty, checkpoint_seconds=math.inf), []
    model = initial_model(read_training_set(kiosk_corpus, quiet.model), kiosk_corpus, quiet)
    asked = (read_training_set(kiosk_corpus, quiet.model), quiet, tmp_path, Ranks.alone())
    progress = train(model, *asked, steps.append, stop=lambda: len(steps) >= 6)
    assert (progress.step, progress.stopped) == (7, True)
    progress = train(model, *asked, steps.append)
    assert (progress.step, progress.stopped) == (STEPS, False)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), straight[0].parameters(), strict=True))


def test_where_nothing_returns_the_stored_vector_alone_learns_and_at_every_position(
    kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    recipe = replace(ordered(kiosk_corpus), epochs=6)
    training_set = read_training_set(kiosk_corpus, recipe.model)
    model, records = train_until(kiosk_corpus, training_set, recipe, tmp_path)
    assert {name for name in records[0].losses if not name.startswith(("quantity", "action"))} == {"embedding"}
    assert records[-1].losses["embedding"] < records[0].losses["embedding"]
    _, lesson = next(lessons(training_set, recipe.model, recipe.sampling, 0, Position(), objectives=recipe.objectives))
    asked = torch.bincount(lesson.requests.user_R, minlength=lesson.batch.users)
    groups = torch.bincount(lesson.batch.user_T[group_offsets(lesson.batch)[:-1]], minlength=lesson.batch.users)
    assert torch.equal(asked, groups - 1)
    assert not len(model(lesson.batch, lesson.requests).own.code_P)


def test_a_run_that_its_minutes_end_may_have_any_number_of_epochs(training_set: TrainingSet, twenty: Recipe) -> None:
    begun = time.monotonic()
    endless = total_batches(training_set, replace(twenty, epochs=10**6), Ranks.alone())
    assert time.monotonic() - begun < 10
    assert endless == pytest.approx(STEPS / 2 * 10**6, rel=0.1)
