"""What a step costs is measured, and measuring costs next to nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from tests.training.conftest import train_until
from tokenization.corpus.corpus import Corpus
from training.data import Position, lessons
from training.flops import lesson_flops, peak_flops
from training.meter import Meter, peak_memory
from training.recipes import Recipe
from training.training_set import TrainingSet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lesson(training_set: TrainingSet, recipe: Recipe):
    return next(lessons(training_set, recipe.model, recipe.sampling, 0, Position(), objectives=recipe.objectives))[1]


def test_every_step_of_a_run_is_measured(
    kiosk_corpus: Corpus, training_set: TrainingSet, recipe: Recipe, tmp_path: Path
) -> None:
    _, records = train_until(kiosk_corpus, training_set, recipe, tmp_path)
    for record in records:
        assert record.data_wait is not None
        assert record.memory_gib is not None
        assert record.mfu is not None
        assert 0 < record.data_wait < 1
        assert 0 < record.mfu < 1
        assert 0.05 < record.memory_gib < 100


def test_utilisation_is_operations_by_seconds_by_what_the_device_can(lesson, recipe: Recipe) -> None:
    meter, peak = Meter(recipe.model, recipe.objectives, CPU), peak_flops(CPU)
    assert peak is not None
    found = meter.step([lesson], waited=0.5, seconds=2.0)
    assert found.data_wait == 0.25
    assert found.mfu == pytest.approx(lesson_flops(recipe.model, recipe.objectives, lesson).step / 2.0 / peak)


def test_a_device_of_unknown_speed_has_no_utilisation(lesson, recipe: Recipe) -> None:
    assert Meter(recipe.model, recipe.objectives, torch.device("meta")).step([lesson], 0.5, 2.0).mfu is None


def test_counting_takes_less_than_a_hundredth_of_the_time_however_short_the_steps(lesson, recipe: Recipe) -> None:
    meter, steps, seconds = Meter(recipe.model, recipe.objectives, CPU), 500, 0.02
    begun = time.perf_counter()
    for _ in range(steps):
        meter.step([lesson], 0.0, seconds)
    assert time.perf_counter() - begun < 0.01 * steps * seconds


def test_memory_only_grows() -> None:
    before = peak_memory(CPU)
    assert before is not None
    held = torch.ones(1 << 26)  # a quarter of a GiB
    after = peak_memory(CPU)
    assert after is not None
    assert after >= before
    assert after > held.nbytes / (1 << 30)
