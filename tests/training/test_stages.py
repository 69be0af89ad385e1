"""Stages: rows of another length, and nothing else that changes."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from foundation.model import FoundationModel
from tests.training.conftest import train_until
from tokenization.corpus.corpus import Corpus
from training import checkpoint, pretrain
from training.data import Position, batches, lessons, row_tokens
from training.errors import TrainingError
from training.loop import part_done, schedule, total_batches
from training.parallel import Ranks
from training.progress import Progress, StepRecord
from training.recipes import Recipe, with_overrides
from training.run import start
from training.stages import Stage, stage_at
from training.training_set import TrainingSet, in_windows

pytestmark = pytest.mark.usefixtures("one_thread")

STAGES = (Stage(8, 0.5), Stage(16, 0.3), Stage(0, 0.2))


@pytest.fixture(scope="module")
def staged(recipe: Recipe) -> Recipe:
    return replace(recipe, epochs=1, stages=STAGES, checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def straight(
    kiosk_corpus: Corpus, staged: Recipe, training_set: TrainingSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FoundationModel, list[StepRecord]]:
    torch.set_num_threads(1)
    return train_until(kiosk_corpus, training_set, staged, tmp_path_factory.mktemp("straight"))


def test_each_stage_has_its_share_of_the_steps_and_its_length_of_rows(straight) -> None:
    records = straight[1]
    steps = len(records)
    assert records[-1].step == records[-1].steps == steps
    taken = [sum(record.stage == stage for record in records) for stage in range(3)]
    assert [record.stage for record in records] == sorted(record.stage for record in records)
    assert all(abs(count - stage.share * steps) <= 1 for count, stage in zip(taken, STAGES, strict=True))
    assert [len({record.history for record in records if record.stage == stage}) for stage in range(3)] == [1, 1, 1]
    assert {record.history for record in records} == {8, 16, 60}
    assert StepRecord(**json.loads(records[0].to_line())) == records[0]


def test_the_schedule_and_the_optimiser_go_on_over_the_borders(straight, staged: Recipe) -> None:
    records = straight[1]
    plain = replace(staged, stages=())
    for record in records:
        factor = schedule(Progress(record.step - 1, record.step - 1), len(records), plain)
        assert record.rate == pytest.approx(plain.optimisation.rate * factor)
    assert records[-1].rate < 0.05 * plain.optimisation.rate


def test_the_optimisers_count_their_steps_through_all_stages(
    kiosk_corpus: Corpus, staged: Recipe, training_set: TrainingSet, tmp_path: Path
) -> None:
    _, records = train_until(kiosk_corpus, training_set, staged, tmp_path)
    saved = checkpoint.load_newest(tmp_path)
    assert saved is not None
    counts = {int(state["step"]) for state in saved["optimisers"]["adamw"]["state"].values()}
    assert counts == {len(records)}
    assert saved["progress"]["position"]["stage"] == 2


def test_the_log_and_tensorboard_say_the_stage(kiosk_corpus: Corpus, staged: Recipe, tmp_path: Path) -> None:
    run = start(kiosk_corpus, tmp_path / "run", staged)
    pretrain.pretrain_bare(run)
    told = [json.loads(line) for line in run.log.read_text().splitlines()]
    assert {(line["stage"], line["history"]) for line in told} == {(0, 8), (1, 16), (2, 60)}
    curve = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [event.value for event in curve.Scalars("stage")] == [line["stage"] for line in told]
    assert [event.value for event in curve.Scalars("history")] == [line["history"] for line in told]


def test_rows_are_as_long_as_the_stage_says_and_batches_as_full(training_set: TrainingSet, staged: Recipe) -> None:
    for stage, most in enumerate((8, 16, 60)):
        sampling = staged.sampling_in(stage)
        rows = in_windows(training_set, row_tokens(sampling))
        length = np.diff(rows.events.offset_B1.numpy())
        order = batches(training_set, sampling, 0, 0)
        assert length.max() <= most
        assert np.mean([length[batch].sum() for batch in order]) > 0.7 * sampling.tokens
        _, lesson = next(lessons(training_set, staged.model, sampling, 0, Position(0, 0, stage)))
        assert int(lesson.batch.offset_B1.diff().max()) <= most


@pytest.mark.parametrize("after", [-2, -1, 0, 1])
def test_a_run_that_is_killed_around_a_border_goes_on_bit_for_bit(
    straight, kiosk_corpus: Corpus, staged: Recipe, training_set: TrainingSet, tmp_path: Path, after: int
) -> None:
    border = next(record.step for record in straight[1] if record.stage == 1)
    first = border + after
    train_until(kiosk_corpus, training_set, staged, tmp_path, stop=first)
    model, records = train_until(kiosk_corpus, training_set, staged, tmp_path)
    expected = straight[1][first - 1 :]
    assert [(r.step, r.stage, r.loss, r.tokens) for r in records] == [
        (r.step, r.stage, r.loss, r.tokens) for r in expected
    ]
    for (name, weight), (_, other) in zip(model.named_parameters(), straight[0].named_parameters(), strict=True):
        assert torch.equal(weight, other), name


def test_one_stage_of_the_whole_budget_is_a_run_without_stages(
    kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet, tmp_path: Path
) -> None:
    plain = replace(recipe, epochs=1)
    one = replace(plain, stages=(Stage(0, 1.0),))
    _, expected = train_until(kiosk_corpus, training_set, plain, tmp_path / "plain")
    _, found = train_until(kiosk_corpus, training_set, one, tmp_path / "one")
    assert [(r.step, r.steps, r.loss, r.tokens) for r in found] == [
        (r.step, r.steps, r.loss, r.tokens) for r in expected
    ]


def test_two_ranks_go_through_the_same_stages(training_set: TrainingSet, staged: Recipe) -> None:
    position = Position(3, 4).in_stage(1)
    assert position == Position(4, 0, 1)
    sampling = staged.sampling_in(1)
    streams = [
        itertools.islice(lessons(training_set, staged.model, sampling, staged.seed, position, rank, 2), 3)
        for rank in range(2)
    ]
    alone = lessons(training_set, staged.model, sampling, staged.seed, position)
    for (one, _), (other, _) in zip(*streams, strict=True):
        assert one == other
        assert one.stage == 1
    streams = [
        itertools.islice(lessons(training_set, staged.model, sampling, staged.seed, position, rank, 2), 1)
        for rank in range(2)
    ]
    for lesson in (next(stream)[1] for stream in streams):
        assert torch.equal(lesson.batch.time_T, next(alone)[1].batch.time_T)


def test_more_ranks_take_fewer_steps_in_the_same_shares(training_set: TrainingSet, staged: Recipe) -> None:
    alone, two = (total_batches(training_set, staged, Ranks(0, count)) / count for count in (1, 2))
    assert two == pytest.approx(alone / 2, abs=2)


def test_minutes_end_the_stages_with_the_rates(recipe: Recipe) -> None:
    timed = replace(recipe, minutes=1.0, stages=STAGES)
    done = [
        part_done(Progress(1, 1, Position(), seconds), 100, timed) for seconds in (0.0, 29.0, 31.0, 49.0, 60.0, 99.0)
    ]
    assert [stage_at(STAGES, part) for part in done] == [0, 0, 1, 2, 2, 2]
    assert done[-1] == 1.0
    assert schedule(Progress(1, 1, Position(), 60.0), 100, timed) < 0.02


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 200))
def test_stages_follow_one_another_to_the_last(parts: list[int], steps: int) -> None:
    stages = [Stage(8, part / sum(parts)) for part in parts]
    found = [stage_at(stages, step / steps) for step in range(steps)]
    assert found == sorted(found)
    assert stage_at(stages, 0.0) == 0
    assert stage_at(stages, 1.0) == len(stages) - 1
    for number, stage in enumerate(stages):
        assert abs(found.count(number) - stage.share * steps) <= 1 + 1e-6


def test_stages_are_a_setting(recipe: Recipe) -> None:
    chosen = with_overrides(recipe, {"stages": "8:0.5, 16:0.3,0:0.2"})
    assert chosen.stages == STAGES
    assert Recipe.from_json(chosen.to_json()) == chosen
    assert with_overrides(chosen, {"stages": ""}).stages == ()
    assert with_overrides(recipe, {"history": "16"}).sampling_in(0).history == 16
    assert recipe.stages == ()


def test_a_recipe_from_before_there_were_stages_has_none(recipe: Recipe) -> None:
    told = json.loads(recipe.to_json())
    del told["stages"], told["sampling"]["history"], told["optimisation"]["method"]
    assert Recipe.from_json(json.dumps(told)) == recipe


def test_a_checkpoint_from_before_there_were_stages_is_in_the_first(recipe: Recipe) -> None:
    told = asdict(Position(3, 4))
    del told["stage"]
    assert Position(**told) == Position(3, 4, 0)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"stages": "256"}, "'256' is no stage: write tokens of a row and share of the run, as in 256:0.5,1024:0.5"),
        ({"stages": "8:0.5,x:0.5"}, "'x:0.5' is no stage"),
        ({"stages": "8:0.5,"}, "'' is no stage"),
        ({"stages": "8:0.5,16:0.4"}, "the shares of the stages add up to 0.9: make them 1"),
        ({"stages": "8:1.5,16:-0.5"}, "stage 1 has the share 1.5: give it more than 0 and at most 1"),
        ({"stages": "8:nan"}, "stage 1 has the share nan"),
        ({"stages": "-8:1"}, "stage 1 has rows of -8 tokens: give it some, or 0 for a whole batch"),
        ({"stages": "8:0.5,99:0.5"}, "rows of 99 tokens do not fit batches of 60: raise `tokens`"),
        ({"history": "99"}, "rows of 99 tokens do not fit batches of 60: raise `tokens`"),
        ({"history": "-1"}, "rows of -1 tokens do not fit batches of 60"),
        ({"stages": "8:1", "history": "8"}, "`history` is for runs of one stage: leave it out where `stages` says"),
    ],
)
def test_what_makes_no_run_is_a_sentence(recipe: Recipe, overrides: dict[str, str], sentence: str) -> None:
    with pytest.raises(TrainingError) as error:
        with_overrides(recipe, overrides)
    assert sentence in str(error.value)


def test_settings_are_judged_together(recipe: Recipe) -> None:
    chosen = with_overrides(recipe, {"history": "99", "tokens": "120"})
    assert row_tokens(chosen.sampling) == 99


def test_a_row_that_starts_late_reads_as_the_life_does(training_set: TrainingSet, staged: Recipe) -> None:
    """Groups keep their number, times count from the user's first event: ages and distances are those of the life."""
    cut, whole = in_windows(training_set, 8).events, training_set.events
    late = [row for row in range(cut.users) if int(cut.group_T[cut.offset_B1[row]]) > 0]
    assert len(late) > 10
    for row in late[:10]:
        begin, end = int(cut.offset_B1[row]), int(cut.offset_B1[row + 1])
        user = int((whole.start_B == cut.start_B[row]).nonzero()[0])
        first, last = int(whole.offset_B1[user]), int(whole.offset_B1[user + 1])
        mine = [(float(t), int(g)) for t, g in zip(cut.time_T[begin:end], cut.group_T[begin:end], strict=True)]
        life = [(float(t), int(g)) for t, g in zip(whole.time_T[first:last], whole.group_T[first:last], strict=True)]
        assert set(mine) <= set(life)
        assert mine[0][0] > 0.0
    assert math.isfinite(float(cut.time_T.max()))
