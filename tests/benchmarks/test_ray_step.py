"""Steps with and without Ray are those of the same run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.ray_step import FIRST, recipe_of, step_seconds, train_apart
from tokenization.corpus.corpus import Corpus
from training.attempts import attempts
from training.recipes import small
from training.run import start


def log_of(folder: Path, ends: list[float]) -> Path:
    path = folder / "training.jsonl"
    path.write_text("".join(json.dumps({"seconds": end}) + "\n" for end in ends))
    return path


def test_a_step_is_the_median_of_those_after_the_first_ones(tmp_path: Path) -> None:
    slow = [10.0 * step for step in range(1, FIRST + 1)]
    assert step_seconds(log_of(tmp_path, [*slow, slow[-1] + 1, slow[-1] + 3, slow[-1] + 12])) == pytest.approx(2.0)


def test_a_run_of_too_few_steps_has_no_figure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"has {FIRST} steps, of which the first {FIRST} do not count"):
        step_seconds(log_of(tmp_path, [float(step) for step in range(FIRST)]))


def test_a_run_without_ray_has_the_threads_that_it_is_given(kiosk_corpus: Corpus, tmp_path: Path) -> None:
    recipe = small(kiosk_corpus)
    recipe = replace(recipe, sampling=replace(recipe.sampling, tokens=128))
    run = start(kiosk_corpus, tmp_path / "run", recipe)
    train_apart(run, 2)
    assert [attempt.threads for attempt in attempts(run.folder)] == [2]
    assert step_seconds(run.log) > 0


def test_the_recipe_is_the_default_one_over_some_households(kiosk_corpus: Corpus) -> None:
    recipe = recipe_of(kiosk_corpus)
    assert (recipe.epochs, recipe.model.width, recipe.sampling.tokens) == (1, 64, 8_192)
    assert 0 < recipe.sampling.users < 1
