"""A history of more than 8,192 events in one row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.generated import write_long_log
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training.beginning import initial_model
from training.data import row_tokens
from training.loop import train
from training.parallel import Ranks
from training.progress import StepRecord
from training.recipes import Recipe, small, with_overrides
from training.training_set import in_windows, read_training_set


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("long")
    schema, events = write_long_log(folder / "log", users=2, events=10_300, items=300)
    return tokenize(schema, events, None, folder / "corpus")


@pytest.fixture(scope="module")
def recipe(corpus: Corpus) -> Recipe:
    found = small(corpus)
    sampling = replace(found.sampling, tokens=16_384, history=8_192, negatives=64)
    return replace(found, model=replace(found.model, width=16), sampling=sampling, epochs=6)


def learned(corpus: Corpus, recipe: Recipe, folder: Path) -> list[StepRecord]:
    training_set = read_training_set(corpus, recipe.model)
    records: list[StepRecord] = []
    model = initial_model(training_set, corpus, recipe)
    train(model, training_set, recipe, folder, Ranks.alone(), records.append)
    return records


def test_rows_of_8192_tokens_are_learned_from(corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    training_set = read_training_set(corpus, recipe.model)
    rows = in_windows(training_set, row_tokens(recipe.sampling)).events
    assert sorted(np.diff(rows.offset_B1.numpy()))[-1] > 8_170  # to the border of a group
    records = learned(corpus, recipe, tmp_path)
    assert records[0].tokens > 8_192
    assert sum(r.losses["next"] for r in records[-3:]) < 0.97 * sum(r.losses["next"] for r in records[:3])


def test_a_whole_life_of_more_than_8192_events_is_one_row(corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    whole = replace(recipe, sampling=replace(recipe.sampling, history=0), epochs=1)
    training_set = read_training_set(corpus, whole.model)
    assert in_windows(training_set, row_tokens(whole.sampling)) is training_set
    assert np.diff(training_set.events.offset_B1.numpy()).min() > 8_192
    records = learned(corpus, whole, tmp_path)
    assert len(records) == 2
    assert records[0].history == 16_384


def test_stages_lead_up_to_8192(corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    plain = replace(recipe, sampling=replace(recipe.sampling, history=0), epochs=4)
    staged = with_overrides(plain, {"stages": "256:0.4,1024:0.3,8192:0.3"})
    records = learned(corpus, staged, tmp_path)
    assert [record.history for record in records] == sorted(record.history for record in records)
    assert {record.history for record in records} == {256, 1_024, 8_192}
