"""Baselines equal a loop over users that does what their docstrings say, ties included."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tokenization.tokenizer.split import Split
from training import baselines, metrics
from training.holdout import Columns, Holdout, hold_out

ITEMS = 21
DAY = baselines.DAY
CUT = 60 * DAY
COLUMNS = Columns("product")


@pytest.fixture(scope="module", params=[1, 2, 3])
def held(request, token_table, random_log) -> Holdout:
    return hold_out(token_table(random_log(request.param)), COLUMNS, Split("time", CUT, None, None))


def naive_popularity(held: Holdout) -> Counter[int]:
    tokens = held.tokens.to_pylist()
    return Counter(
        item
        for row in tokens
        for time, item in zip(row["time"], row["product"], strict=True)
        if item > 1 and CUT - 28 * DAY <= time < CUT
    )


def naive_lists(held: Holdout, weight, k: int) -> list[list[int]]:
    """Personal weight, then popularity, both descending, then item code."""
    popular = naive_popularity(held)
    lists = []
    for user, request in zip(range(len(held)), held.requests(0, len(held)).history.to_pylist(), strict=True):
        mine: Counter[int] = Counter()
        for time, item in zip(request["time"], request["product"], strict=True):
            mine[item] += weight(held.asked.at[user] - time)
        everything = sorted(range(2, ITEMS), key=lambda i: (-round(mine[i], 9), -popular[i], i))
        lists.append(everything[:k])
    return lists


def ranked(held: Holdout, scorer) -> list[list[int]]:
    return metrics.top_k(np.array(scorer(held.requests(0, len(held)))), 12).tolist()


def test_popularity_counts_the_28_days_before_the_cut(held: Holdout) -> None:
    counts = baselines.item_popularity(held.before, ITEMS, CUT)
    assert {i: int(c) for i, c in enumerate(counts) if c} == dict(naive_popularity(held))


def test_popularity_gives_everybody_the_same_list(held: Holdout) -> None:
    scorer = baselines.popularity(baselines.item_popularity(held.before, ITEMS, CUT))
    assert ranked(held, scorer) == naive_lists(held, lambda age: 0.0, 12)


def test_personal_count_ranks_as_a_loop_over_users_does(held: Holdout) -> None:
    scorer = baselines.personal_count(baselines.item_popularity(held.before, ITEMS, CUT), COLUMNS)
    assert ranked(held, scorer) == naive_lists(held, lambda age: 1.0, 12)


@pytest.mark.parametrize("days", [7.0, 112.0])
def test_personal_decayed_ranks_as_a_loop_over_users_does(held: Holdout, days: float) -> None:
    popular = baselines.item_popularity(held.before, ITEMS, CUT)
    scorer = baselines.personal_decayed(popular, COLUMNS, days * DAY)
    assert ranked(held, scorer) == naive_lists(held, lambda age: 0.5 ** (age / (days * DAY)), 12)


def test_scores_do_not_depend_on_who_else_is_in_the_chunk(held: Holdout) -> None:
    scorer = baselines.personal_decayed(baselines.item_popularity(held.before, ITEMS, CUT), COLUMNS)
    together = scorer(held.requests(0, len(held)))
    apart = np.concatenate([scorer(requests) for _, requests in held.chunks(3)])
    np.testing.assert_array_equal(together, apart)


def test_reserved_codes_are_no_candidates(held: Holdout) -> None:
    popular = baselines.item_popularity(held.before, ITEMS, CUT)
    for scorer in (baselines.popularity(popular), baselines.personal_count(popular, COLUMNS)):
        assert np.isneginf(scorer(held.requests(0, 4))[:, :2]).all()


def test_popularity_without_end_counts_everything(held: Holdout) -> None:
    counts = baselines.item_popularity(held.before, ITEMS, np.inf, np.inf)
    assert counts.sum() == len(held.before.item)


def test_the_best_half_life_is_the_one_that_validation_likes_best() -> None:
    assert baselines.best_half_life(lambda h: -abs(h - 5), [2.0, 4.0, 6.0, 8.0]) == 4.0
