"""Ranks that read a part of the users each learn what one rank that reads all of them learns."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pyarrow as pa
import pytest
import torch

from foundation.config import ItemGate
from tokenization.corpus.corpus import Corpus
from training.data import Position, fewest_batches, lessons
from training.errors import TrainingError
from training.recipes import Recipe, check, with_overrides
from training.training_set import TrainingSet, read_training_set
from training.user_shards import UserShards, read_shards

COUNT = 4


@pytest.fixture(scope="module")
def sharded(recipe: Recipe) -> Recipe:
    return replace(recipe, sampling=replace(recipe.sampling, shards=COUNT, tokens=120))


def part_of(whole: TrainingSet, corpus: Corpus, recipe: Recipe, shards: UserShards) -> TrainingSet:
    """What a rank has when all have told one another their counts."""
    part = read_training_set(corpus, recipe.model, shards=shards)
    return replace(part, count_V=whole.count_V, begin=whole.begin, end=whole.end, per_shard=whole.per_shard)


def test_a_rank_has_every_ranks_th_shard_or_all_where_that_does_not_come_out_even() -> None:
    assert UserShards.of_rank(1, 2, 4).mine == (1, 3)
    assert UserShards.of_rank(3, 4, 4).mine == (3,)
    assert UserShards.of_rank(0, 3, 4).mine == (0, 1, 2, 3)
    assert UserShards.of_rank(5, 8, 1).mine == (0,)


def test_every_user_is_in_one_shard(kiosk_corpus: Corpus) -> None:
    whole = kiosk_corpus.tokens()
    tokens, shard_B = read_shards(kiosk_corpus, UserShards(COUNT, tuple(range(COUNT))))
    assert tokens["user_id"].to_pylist() == whole["user_id"].to_pylist()
    parts = [read_shards(kiosk_corpus, UserShards.of_rank(rank, COUNT, COUNT))[0] for rank in range(COUNT)]
    assert pa.concat_tables(parts).equals(tokens)
    assert shard_B.tolist() == [shard for shard, part in enumerate(parts) for _ in range(part.num_rows)]


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_learn_the_batches_of_one_rank_each_from_its_own_users(
    kiosk_corpus: Corpus, sharded: Recipe, ranks: int
) -> None:
    everything = UserShards.of_rank(0, 1, COUNT)
    whole = read_training_set(kiosk_corpus, sharded.model, shards=everything)
    whole = replace(whole, per_shard=fewest_batches(whole, sharded.sampling, sharded.seed))
    told = (sharded.model, sharded.sampling, sharded.seed, Position())
    alone = lessons(whole, *told)
    parts = [part_of(whole, kiosk_corpus, sharded, UserShards.of_rank(rank, ranks, COUNT)) for rank in range(ranks)]
    assert all(part.events.users < whole.events.users for part in parts)
    streams = [lessons(part, *told, rank, ranks) for rank, part in enumerate(parts)]
    steps = 2 * whole.per_shard * COUNT // ranks  # two epochs
    for step in itertools.islice(zip(*streams, strict=True), steps):
        for _, lesson in step:
            _, expected = next(alone)
            assert torch.equal(lesson.batch.facet_TF, expected.batch.facet_TF)
            assert torch.equal(lesson.requests.end_R, expected.requests.end_R)
    assert step[0][0] == Position(1, whole.per_shard * COUNT)


@pytest.mark.parametrize("setting", [{"in_batch": "on"}, {"id_dropout.share": "-1"}])
def test_what_counts_over_the_whole_log_is_refused(sharded: Recipe, setting: dict[str, str]) -> None:
    with pytest.raises(TrainingError, match="counts over the whole log: set `shards=1`"):
        with_overrides(sharded, setting)


def test_ages_of_items_are_refused(sharded: Recipe) -> None:
    with pytest.raises(TrainingError, match="`item_gate=age` counts over the whole log"):
        check(replace(sharded, model=replace(sharded.model, item_gate=ItemGate.AGE)))
