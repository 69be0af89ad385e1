"""Utilisation is counted on full rows of drawn users, by a step that needs neither Ray nor Lance."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.mfu import LESSONS, drawn_users, judged, made, recipe_of, run, step_seconds
from training.flops import lesson_flops
from training.recipes import Recipe
from training.verdicts import Outcome

BLOCKED = "grpc ray lance faiss sklearn scipy pandas polars tensorboard matplotlib serving userfm"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """Small enough for a test."""
    recipe = recipe_of(500)
    sampling = replace(recipe.sampling, tokens=512, history=128, negatives=64)
    return replace(recipe, model=replace(recipe.model, width=16, heads=2, layers=2), sampling=sampling)


def test_the_step_is_as_large_as_it_says() -> None:
    recipe = recipe_of(1_000)
    model, sampling = recipe.model, recipe.sampling
    assert (model.width, model.layers, sampling.history, sampling.shards) == (1_024, 8, 4_096, 1)
    assert sampling.tokens % sampling.history == 0


def test_every_lesson_is_full_of_whole_rows(recipe: Recipe) -> None:
    sampling = recipe.sampling
    rows = drawn_users(recipe, LESSONS * sampling.tokens // sampling.history)
    held = made(rows, recipe)
    assert len(held) == LESSONS
    for lesson in held:
        assert lesson.batch.tokens == sampling.tokens
        assert lesson.batch.offset_B1.diff().tolist() == [sampling.history] * (sampling.tokens // sampling.history)
        sizes = torch.unique(lesson.batch.user_T * sampling.history + lesson.batch.group_T, return_counts=True)[1]
        assert 2 < float(sizes.double().mean()) < 6
        assert len(lesson.requests) == sampling.requests * lesson.batch.users


def test_a_step_runs_wherever_torch_does(recipe: Recipe) -> None:
    held = made(drawn_users(recipe, 16), recipe)
    seconds = step_seconds(recipe, held, torch.device("cpu"), steps=2)
    assert seconds.shape == (2,)
    assert (seconds > 0).all()
    assert lesson_flops(recipe.model, recipe.objectives, held[0]).step > 0


def test_the_better_variant_is_held_against_the_bar(recipe: Recipe) -> None:
    seconds = {"plain": np.full(9, 2.0), "compiled": np.full(9, 1.0)}
    measured = judged(recipe, seconds, np.full(9, 4e12), peak=1e13, gib=1.0)
    figures = measured.figures
    assert (figures["cuda_mfu"], figures["cuda_mfu_plain"], figures["cuda_mfu_compiled"]) == (0.4, 0.2, 0.4)
    assert (figures["peak_teraflops"], figures["step_teraflops"], figures["cuda_step_seconds"]) == (10.0, 4.0, 1.0)
    assert figures["vocabulary"] == 500
    (bar,) = measured.bars
    assert (bar.name, bar.bar, bar.verdict) == ("cuda_mfu", 0.35, Outcome.MET)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what it says where there is no CUDA device")
def test_without_a_device_it_is_refused_with_a_sentence() -> None:
    with pytest.raises(SystemExit, match="mfu is measured on a CUDA device"):
        run(lambda stage, done, total: None)


def test_a_bare_machine_can_run_it() -> None:
    code = f"""
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if any(name == b or name.startswith(b + ".") for b in {BLOCKED.split()!r}):
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())
for module in ("benchmarks.__main__", "benchmarks.mfu"):
    importlib.import_module(module)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
