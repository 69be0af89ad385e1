"""What bad steps do to the rates, and when they end a run."""

from __future__ import annotations

from pathlib import Path

import torch

from training.data import Position, lessons
from training.recipes import Recipe
from training.setbacks import BACK_OFF, Setbacks, diverged, keep_lessons
from training.training_set import TrainingSet


def test_each_bad_step_halves_the_rates_and_good_ones_bring_them_back() -> None:
    found = Setbacks().after(good=False).after(good=False)
    assert (found.in_a_row, found.skipped, found.factor) == (2, 2, BACK_OFF**2)
    found = found.after(good=True)
    assert (found.in_a_row, found.skipped) == (0, 2)
    assert BACK_OFF**2 < found.factor < 1
    for _ in range(200):
        found = found.after(good=True)
    assert found == Setbacks(0, 2, 1.0)


def test_a_good_step_changes_nothing_where_none_was_bad() -> None:
    assert Setbacks().after(good=True) == Setbacks()


def test_a_lesson_is_kept_as_tensors_that_load_without_code(
    training_set: TrainingSet, recipe: Recipe, tmp_path: Path
) -> None:
    _, lesson = next(lessons(training_set, recipe.model, recipe.sampling, recipe.seed, Position()))
    kept = keep_lessons([lesson], tmp_path / "new", 7)
    (found,) = torch.load(kept, weights_only=True)
    assert torch.equal(found["batch"]["facet_TF"], lesson.batch.facet_TF)
    assert torch.equal(found["targets"][0]["item_E"], lesson.targets[0].item_E)
    assert str(kept) in str(diverged(Setbacks(8, 8, 0.1), 7, kept))
