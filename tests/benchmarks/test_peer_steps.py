"""Ours and the peers learn the same events under the same terms, and are held against the faster of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from benchmarks.logs import Log
from benchmarks.measure import Floats
from benchmarks.peer_steps import (
    SETTINGS,
    Ours,
    Setting,
    Theirs,
    equal_recipe,
    events_of,
    fastest,
    judged,
    last_events,
    learned,
    write_events,
)
from benchmarks.peers.environments import Peer
from foundation.lesson import Lesson
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training.data import Position, batches, lessons
from training.flops import attended_pairs
from training.recipes import Recipe
from training.training_set import TrainingSet, read_training_set
from training.verdicts import Outcome

LENGTH, ITEMS = 8, 40
EVENTS = (3, 9, 10, 11, 12, 30, 47)
"""Of each user; two of them are held out."""
SCHEMA: dict[str, Any] = {
    "schema": 1,
    "name": "ordered",
    "user": "user_id",
    "entities": {"item": {"column": "item_id", "candidates": True}},
    "position": "position",
    "split": {"last_items": 1},
}


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    draw = np.random.default_rng(0)
    columns = {
        "user_id": np.repeat(np.arange(len(EVENTS)), EVENTS),
        "item_id": np.concatenate([draw.choice(100, number, replace=False) for number in EVENTS]),
        "position": np.concatenate([np.arange(number) for number in EVENTS]),
    }
    return pl.DataFrame(columns)


@pytest.fixture(scope="module")
def corpus(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("ordered")
    (folder / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    log.write_parquet(folder / "events.parquet")
    return tokenize(folder / "schema.yaml", folder / "events.parquet", None, folder / "corpus")


@pytest.fixture(scope="module")
def recipe(corpus: Corpus) -> Recipe:
    return equal_recipe(corpus, LENGTH)


@pytest.fixture(scope="module")
def rows(corpus: Corpus, recipe: Recipe) -> TrainingSet:
    return last_events(read_training_set(corpus, recipe.model), recipe, LENGTH)


def one_pass(rows: TrainingSet, recipe: Recipe) -> list[Lesson]:
    number = len(batches(rows, recipe.sampling, recipe.seed, 0))
    stream = lessons(rows, recipe.model, recipe.sampling, recipe.seed, Position(), objectives=recipe.objectives)
    return [next(stream)[1] for _ in range(number)]


def test_every_position_of_a_history_is_learned(rows: TrainingSet, recipe: Recipe) -> None:
    found = one_pass(rows, recipe)
    lengths = torch.cat([lesson.batch.offset_B1.diff() for lesson in found])
    held_in = [number - 2 for number in EVENTS]
    assert sorted(lengths.tolist()) == sorted(min(number, LENGTH + 1) for number in held_in if number > 1)
    by_hand = sum(min(number - 1, LENGTH) for number in held_in)
    assert sum(map(learned, found)) == events_of(rows) == by_hand


def test_a_position_sees_all_of_its_history_and_competes_with_the_whole_catalogue(
    rows: TrainingSet, recipe: Recipe
) -> None:
    there = rows.events.facet_TF[:, recipe.model.item_column].unique()
    for lesson in one_pass(rows, recipe):
        batch = lesson.batch
        length_B = batch.offset_B1.diff().clamp(max=LENGTH)
        over = (batch.offset_B1.diff() - LENGTH).clamp(min=0) * LENGTH  # the last is a target only
        pairs = length_B * (length_B + 1) // 2 + over
        assert attended_pairs(recipe.model, batch) == recipe.model.layers * int(pairs.sum())
        assert torch.equal(lesson.negatives.code_M, there)


def test_peers_read_what_ours_learns(
    rows: TrainingSet, recipe: Recipe, corpus: Corpus, log: pl.DataFrame, tmp_path: Path
) -> None:
    write_events(rows, recipe, tmp_path / "events.parquet")
    table = pl.read_parquet(tmp_path / "events.parquet")
    ids = corpus.tokenizer.items.ids.decode(table["item_id"].to_numpy().astype(np.int32)).to_pylist()
    told = {user: [ids[row] for row in range(len(ids)) if table["user_id"][row] == user] for user in range(len(EVENTS))}
    expected = {
        user: log.filter(pl.col("user_id") == user)["item_id"].to_list()[:-2][-LENGTH - 1 :]
        for user in range(len(EVENTS))
    }
    assert told == expected


def test_a_turn_learns_and_says_how_fast(rows: TrainingSet, corpus: Corpus, recipe: Recipe) -> None:
    ours = Ours(rows, corpus, recipe)
    before = ours._placed.model.tower.id.weight.detach().clone()
    assert ours.turn(64, 100) > 0
    assert not torch.equal(before, ours._placed.model.tower.id.weight)


class Paced:
    """As fast as it is told, but in the first turn of each size."""

    sizes: Sequence[int] = (1, 2, 3)

    def __init__(self) -> None:
        self.turns: list[int] = []

    def turn(self, size: int, events: int) -> float:
        self.turns.append(size)
        return {1: 5.0, 2: 7.0, 3: 6.0}[size] if self.turns.count(size) > 1 else 100.0 * size


def test_each_system_has_batches_of_the_size_at_which_it_is_fastest() -> None:
    assert fastest(Paced(), 10) == 2


def test_ours_is_held_against_the_faster_peer() -> None:
    slow, fast, ours = (np.full(9, rate) for rate in (10.0, 20.0, 26.0))
    found: dict[str, Floats] = {"": ours, "rectools_": slow, "replay_": fast}
    sizes = {"": 4_096, "rectools_": 64, "replay_": 32}
    measured = judged(Setting("some", 8, 100, bar=1.2), found, sizes)
    assert measured.figures == {
        "some_events_per_second": 26.0,
        "some_batch": 4_096,
        "some_rectools_events_per_second": 10.0,
        "some_rectools_batch": 64,
        "some_replay_events_per_second": 20.0,
        "some_replay_batch": 32,
        "some_speedup": 1.3,
        "some_speedup_low": 1.3,
        "some_speedup_high": 1.3,
    }
    (bar,) = measured.bars
    assert (bar.name, bar.bar, bar.verdict) == ("some_speedup", 1.2, Outcome.MET)
    assert judged(Setting("some", 8, 100, bar=1.4), found, sizes).bars[0].verdict is Outcome.MISSED


def test_a_peer_that_fails_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)rectools failed on .*json: .*Error"):
        Theirs(Peer.RECTOOLS, Path(sys.executable), tmp_path / "missing.parquet", LENGTH).__enter__()


def test_both_logs_have_their_bars() -> None:
    assert {log: (setting.length, setting.bar) for log, setting in SETTINGS.items()} == {
        Log.ML_1M: (200, 1.2),
        Log.BEAUTY: (50, 3.0),
    }
    assert all(peer.requirements.exists() for peer in Peer)
