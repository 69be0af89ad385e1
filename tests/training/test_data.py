from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from foundation.jagged import EventBatch, group_offsets
from foundation.lesson import Lesson
from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.tokenizer import Tokenizer
from training.data import Position, Sampling, batches, lessons, make_lesson
from training.errors import TrainingError
from training.negatives import Draws
from training.recipes import Recipe
from training.training_set import (
    TrainingSet,
    Until,
    in_windows,
    read_training_set,
    recent_counts,
    select_users,
    trainable_events,
)


def stream(
    training_set: TrainingSet, recipe: Recipe, start: Position | None = None, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[Position, Lesson]]:
    start = start or Position()
    return lessons(training_set, recipe.model, recipe.sampling, recipe.seed, start, rank, ranks)


def tensors(record: Any) -> list[torch.Tensor]:
    """All tensors of a lesson, in one order."""
    if isinstance(record, torch.Tensor):
        return [record]
    if isinstance(record, tuple):
        return [tensor for part in record for tensor in tensors(part)]
    return [tensor for field in fields(record) for tensor in tensors(getattr(record, field.name))]


def assert_same(one: Lesson, other: Lesson) -> None:
    for a, b in zip(tensors(one), tensors(other), strict=True):
        assert torch.equal(a, b)


def test_an_epoch_visits_every_trainable_user_once(training_set: TrainingSet, recipe: Recipe) -> None:
    orders = [batches(training_set, recipe.sampling, recipe.seed, epoch) for epoch in range(3)]
    for order in orders:
        assert len(order) > 5
        assert sorted(np.concatenate(order).tolist()) == training_set.trainable.tolist()
    assert not np.array_equal(np.concatenate(orders[0]), np.concatenate(orders[1]))
    again = batches(training_set, recipe.sampling, recipe.seed, 1)
    assert all(np.array_equal(one, other) for one, other in zip(again, orders[1], strict=True))


@pytest.mark.parametrize("budget", [15, 60, 150, 10**6])
def test_a_batch_keeps_its_budget_of_tokens(training_set: TrainingSet, budget: int) -> None:
    length = np.diff(in_windows(training_set, budget).events.offset_B1.numpy())
    order = batches(training_set, Sampling(tokens=budget), 0, 0)
    assert all(length[rows].sum() <= budget for rows in order)
    assert len(order) == (1 if budget == 10**6 else len(order))
    assert all(len(users) for users in order)


def test_a_budget_that_holds_no_two_groups_is_refused(training_set: TrainingSet) -> None:
    with pytest.raises(TrainingError, match="batches of 1 tokens hold no two groups of a user one after the"):
        batches(training_set, Sampling(tokens=1), 0, 0)


def test_long_histories_are_rows_of_windows_that_predict_each_group_once(
    training_set: TrainingSet, recipe: Recipe
) -> None:
    assert in_windows(training_set, 60) is training_set
    cut, events = in_windows(training_set, 16), training_set.events
    assert int(torch.diff(cut.events.offset_B1).max()) <= 16
    assert cut.fresh_B.any()
    assert cut.count_V is training_set.count_V
    sampling = replace(recipe.sampling, tokens=16, requests=100)
    asked: list[tuple[float, float, int]] = []
    for rows in batches(training_set, sampling, 0, 0):
        negatives = Draws.of(training_set.count_V, sampling.negative_power).negatives(
            sampling.negatives, np.random.default_rng(0)
        )
        lesson = make_lesson(cut, recipe.model, sampling, rows, negatives, np.random.default_rng(0))
        batch, requests = lesson.batch, lesson.requests
        for end, time, user in zip(requests.end_R, requests.time_R, requests.user_R, strict=True):
            assert int(end) > int(batch.offset_B1[user])  # something to predict it from
            asked.append((float(batch.start_B[user]), float(time), int(batch.group_T[end])))
    assert len(asked) == len(set(asked))
    # All groups but the users' first are asked for, less those that a window begins with for lack of room.
    first_G = group_offsets(events)[:-1]
    begin_B = cut.events.offset_B1[:-1]
    unreminded = (cut.fresh_B == 0) & (cut.events.group_T[begin_B] > 0)
    assert len(asked) == int((events.group_T[first_G] > 0).sum()) - int(unreminded.sum())


def test_the_same_seed_epoch_and_batch_is_the_same_lesson(training_set: TrainingSet, recipe: Recipe) -> None:
    some = 2 * len(batches(training_set, recipe.sampling, recipe.seed, 0)) + 3
    one, other = (list(itertools.islice(stream(training_set, recipe), some)) for _ in range(2))
    for (position, lesson), (same, again) in zip(one, other, strict=True):
        assert position == same
        assert_same(lesson, again)
    first, second = one[0][1], one[1][1]
    assert not torch.equal(first.negatives.code_M, second.negatives.code_M)


def test_a_stream_resumes_at_the_very_next_lesson(training_set: TrainingSet, recipe: Recipe) -> None:
    some = 2 * len(batches(training_set, recipe.sampling, recipe.seed, 0)) + 3
    straight = list(itertools.islice(stream(training_set, recipe), some))
    assert straight[-1][0].epoch == 2
    for (position, _), (following, lesson) in itertools.pairwise(straight):
        resumed, again = next(stream(training_set, recipe, position))
        assert resumed == following
        assert_same(lesson, again)


def test_two_ranks_share_the_users_and_the_negatives_of_a_step(training_set: TrainingSet, recipe: Recipe) -> None:
    order = batches(training_set, recipe.sampling, recipe.seed, 0)
    steps = len(order) // 2
    streams = [itertools.islice(stream(training_set, recipe, rank=rank, ranks=2), steps) for rank in range(2)]
    for step, ((position, one), (same, other)) in enumerate(zip(*streams, strict=True)):
        assert position == same == Position(0, 2 * step + 2)
        assert torch.equal(one.negatives.code_M, other.negatives.code_M)
        for lesson, users in ((one, order[2 * step]), (other, order[2 * step + 1])):
            assert torch.equal(lesson.batch.start_B, training_set.events.start_B[torch.from_numpy(np.sort(users))])


def test_more_ranks_than_batches_still_take_a_step_each(training_set: TrainingSet, recipe: Recipe) -> None:
    whole = replace(recipe, sampling=replace(recipe.sampling, tokens=10**6))
    for rank in range(3):
        position, lesson = next(stream(training_set, whole, rank=rank, ranks=3))
        assert position == Position(0, 3)
        assert lesson.batch.users == training_set.users


def test_requests_stand_at_borders_that_have_a_history(training_set: TrainingSet, recipe: Recipe) -> None:
    _, lesson = next(stream(training_set, recipe))
    requests, batch = lesson.requests, lesson.batch
    borders = set(group_offsets(batch).tolist())
    assert set(requests.end_R.tolist()) <= borders
    assert (requests.end_R > batch.offset_B1[:-1][requests.user_R]).all()
    assert torch.equal(batch.user_T[requests.end_R], requests.user_R)
    assert torch.equal(batch.time_T[requests.end_R], requests.time_R)
    asked = requests.user_R.bincount(minlength=batch.users)
    groups = batch.user_T[group_offsets(batch)[:-1]].bincount(minlength=batch.users)
    assert torch.equal(asked, torch.clamp(groups - 1, max=recipe.sampling.requests))


def test_targets_are_the_groups_that_came_next(training_set: TrainingSet, recipe: Recipe) -> None:
    _, lesson = next(stream(training_set, recipe))
    batch, requests, model = lesson.batch, lesson.requests, recipe.model
    names = [facet.name for facet in model.facets]
    targets = [names.index(name) for name, _ in model.targets]
    assert len(lesson.targets) == model.horizons
    for ahead, found in enumerate(lesson.targets):
        expected = []
        for row in range(len(requests)):
            end = int(requests.end_R[row])
            wanted = int(batch.group_T[end]) + ahead
            mine = [t for t in range(end, batch.tokens) if batch.user_T[t] == requests.user_R[row]]
            group = [token for token in mine if int(batch.group_T[token]) == wanted]
            expected += [(row, token, 1 / math.sqrt(len(group))) for token in group]
        rows, tokens, weights = zip(*expected, strict=True)
        assert found.request_E.tolist() == list(rows)
        assert torch.equal(found.item_E, batch.facet_TF[list(tokens), model.item_column])
        assert torch.equal(found.facet_EF, batch.facet_TF[list(tokens)][:, targets])
        assert found.weight_E.tolist() == pytest.approx(weights)


def lesson_of(training_set: TrainingSet, recipe: Recipe, dropout: float, requests: int = 100) -> Lesson:
    sampling = replace(recipe.sampling, context_dropout=dropout, requests=requests)
    draw = np.random.default_rng(0)
    negatives = Draws.of(training_set.count_V, sampling.negative_power).negatives(sampling.negatives, draw)
    return make_lesson(training_set, recipe.model, sampling, training_set.trainable, negatives, draw)


def test_a_request_is_told_the_context_of_its_group_where_its_tokens_agree(
    training_set: TrainingSet, recipe: Recipe
) -> None:
    lesson = lesson_of(training_set, recipe, dropout=0.0)
    batch, disagree = lesson.batch, 0
    for row in range(len(lesson.requests)):
        end = int(lesson.requests.end_R[row])
        same = (batch.group_T == batch.group_T[end]) & (batch.user_T == batch.user_T[end])
        for place, column in enumerate(recipe.model.context_columns):
            codes = set(batch.facet_TF[same, column].tolist())
            disagree += len(codes) > 1
            told = int(lesson.requests.context_RC[row, place])
            assert told == (codes.pop() if len(codes) == 1 else 0)
    assert disagree  # coupons have no store, the products beside them do


@pytest.mark.parametrize(("dropout", "share"), [(0.0, 1.0), (0.2, 0.8 * 0.9), (1.0, 0.0)])
def test_context_is_hidden_as_often_as_declared(
    training_set: TrainingSet, recipe: Recipe, dropout: float, share: float
) -> None:
    context_RC = lesson_of(training_set, recipe, dropout).requests.context_RC
    hour_R = context_RC[:, 1]  # known of every event
    assert float((hour_R > 0).float().mean()) == pytest.approx(share, abs=0.08)


def test_negatives_are_distinct_items_of_the_log_with_the_chance_they_had() -> None:
    count_V = np.array([0.0, 0, 50, 10, 0, 1, 3, 200, 0, 7])
    draws = Draws.of(count_V, 0.75)
    share = count_V**0.75 / (count_V**0.75).sum()
    chance = 1 - (1 - share) ** 6
    draw, seen = np.random.default_rng(0), np.zeros(10)
    for _ in range(3000):
        negatives = draws.negatives(6, draw)
        code_N = negatives.code_M.numpy()
        assert len(np.unique(code_N)) == len(code_N)
        np.testing.assert_allclose(np.exp(negatives.log_expected_M.numpy()), chance[code_N], rtol=1e-4)
        seen[code_N] += 1
    error = np.sqrt(chance * (1 - chance) / 3000)
    assert (np.abs(seen / 3000 - chance) <= 4 * error + 1e-12).all()


def test_a_single_item_in_the_log_is_always_its_own_negative() -> None:
    negatives = Draws.of(np.array([0.0, 0, 3]), 0.75).negatives(4, np.random.default_rng(0))
    assert negatives.code_M.tolist() == [2]
    assert negatives.log_expected_M.tolist() == [0.0]


def test_training_reads_nothing_from_validation_on(training_set: TrainingSet, kiosk_corpus: Corpus) -> None:
    events, split = training_set.events, kiosk_corpus.split
    at_T = events.time_T + events.start_B[events.user_T]
    times = kiosk_corpus.tokens()["time"].combine_chunks().flatten().to_numpy()
    assert float(at_T.max()) < split.validation
    assert len(at_T) == (times < split.validation).sum()
    assert training_set.end == times[times < split.validation].max()
    assert training_set.count_V[:2].tolist() == [0, 0]
    assert training_set.count_V.sum() == (events.facet_TF[:, 1] >= 2).sum()


def test_changing_what_is_held_out_changes_no_lesson(
    kiosk, kiosk_corpus: Corpus, training_set: TrainingSet, recipe: Recipe, tmp_path
) -> None:
    held = pa.array(np.array(kiosk.events["time"]) >= kiosk_corpus.split.validation)
    article = kiosk.events["article"].combine_chunks()
    other_articles = pc.if_else(pc.and_(held, pc.is_valid(article)), 101, article)
    changed = kiosk.events.set_column(kiosk.events.schema.get_field_index("article"), "article", other_articles)
    tokens = kiosk_corpus.tokenizer.transform(changed)
    other = write_corpus(tmp_path / "corpus", [tokens], kiosk_corpus.tokenizer, {})
    assert tokens != kiosk_corpus.tokens()
    one, two = (next(stream(found, recipe))[1] for found in (training_set, read_training_set(other, recipe.model)))
    assert_same(one, two)


def test_by_last_items_each_users_last_groups_are_left_out() -> None:
    events = EventBatch(
        torch.arange(9)[:, None],
        torch.arange(9).double(),
        torch.arange(9).double(),
        torch.ones(9, dtype=torch.bool),
        torch.tensor([0, 0, 1, 2, 3, 0, 1, 2, 0]),
        torch.tensor([0, 5, 8, 9]),
        torch.zeros(3).double(),
        torch.zeros(3, 0, dtype=torch.int64),
    )
    split = Split("last_items", None, None, 1)
    kept = {until: trainable_events(events, split, until) for until in Until}
    assert kept[Until.VALIDATION].facet_TF.flatten().tolist() == [0, 1, 2, 5]
    assert kept[Until.VALIDATION].offset_B1.tolist() == [0, 3, 4, 4]
    assert kept[Until.TEST].facet_TF.flatten().tolist() == [0, 1, 2, 3, 5, 6]
    assert kept[Until.END] is events


def test_by_time_a_run_learns_until_the_part_that_it_names(kiosk_corpus: Corpus, recipe: Recipe) -> None:
    split = kiosk_corpus.split
    for until, cut in ((Until.VALIDATION, split.validation), (Until.TEST, split.time)):
        found = read_training_set(kiosk_corpus, recipe.model, until)
        times = np.concatenate([np.asarray(row) for row in kiosk_corpus.tokens(["time"])["time"].to_pylist()])
        assert found.events.tokens == (times < cut).sum()
        assert found.end == times[times < cut].max()


def test_all_data_means_all(kiosk_corpus: Corpus, recipe: Recipe) -> None:
    everything = read_training_set(kiosk_corpus, recipe.model, Until.END)
    assert everything.events.tokens == kiosk_corpus.summary["tokens"]


def test_a_log_with_nothing_to_learn_from_is_refused(kiosk, recipe: Recipe, tmp_path) -> None:
    one_visit = kiosk.events.slice(0, 1)
    tokenizer = Tokenizer.fit(kiosk.schema, kiosk.events, kiosk.items)
    corpus = write_corpus(tmp_path / "corpus", [tokenizer.transform(one_visit)], tokenizer, {})
    with pytest.raises(
        TrainingError, match="no user has two groups of events one after the other, with an item, before"
    ):
        read_training_set(corpus, recipe.model)


def test_recent_counts_halve_with_every_twelfth_of_the_log(training_set: TrainingSet, recipe: Recipe) -> None:
    events = training_set.events
    at_T = (events.time_T + events.start_B[events.user_T]).tolist()
    half_life = (training_set.end - min(at_T)) / 12
    expected = [0.0] * recipe.model.item.codes
    for at, code in zip(at_T, events.facet_TF[:, recipe.model.item_column].tolist(), strict=True):
        if code >= 2:
            expected[code] += 0.5 ** ((training_set.end - at) / half_life)
    assert recent_counts(training_set, recipe.model.item_column).tolist() == pytest.approx(expected, rel=1e-4)


def test_selected_users_are_packed_in_the_order_asked(training_set: TrainingSet) -> None:
    events = training_set.events
    found = select_users(events, torch.tensor([7, 2, 7]))
    for row, user in enumerate((7, 2, 7)):
        mine, theirs = (slice(int(o[i]), int(o[i + 1])) for o, i in ((found.offset_B1, row), (events.offset_B1, user)))
        assert torch.equal(found.facet_TF[mine], events.facet_TF[theirs])
        assert torch.equal(found.time_T[mine], events.time_T[theirs])
