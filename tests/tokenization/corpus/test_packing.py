from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenization.corpus.packing import fill, pack

BUDGET = 8_192


@pytest.fixture(scope="module")
def lengths() -> np.ndarray:
    """Users as a shop has them: most some hundred tokens, a few nearly a whole batch."""
    return np.minimum(np.random.default_rng(0).lognormal(6, 0.9, 2_500), BUDGET).astype(np.int64) + 1


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 50), st.integers(0, 9))
def test_each_row_is_in_one_batch_that_keeps_the_budget(sizes: list[int], budget: int, seed: int) -> None:
    lengths = np.array(sizes, np.int64)
    batches = pack(lengths, budget, seed)
    assert sorted(row for rows in batches for row in rows.tolist()) == list(range(len(sizes)))
    assert all(lengths[rows].sum() <= budget or (len(rows) == 1 and lengths[rows[0]] > budget) for rows in batches)
    assert all(len(rows) for rows in batches)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=60), st.integers(1, 50))
def test_no_two_batches_would_fit_into_one(sizes: list[int], budget: int) -> None:
    """Best fit opens no batch while another has room, so at most one is less than half full."""
    lengths = np.minimum(np.array(sizes, np.int64), budget)
    tokens = sorted(int(lengths[rows].sum()) for rows in pack(lengths, budget, 0))
    assert len(tokens) < 2 or tokens[0] + tokens[1] > budget


def test_the_same_seed_packs_the_same_and_another_does_not(lengths: np.ndarray) -> None:
    one, same, other = (pack(lengths, BUDGET, seed) for seed in ([3, 1], [3, 1], [3, 2]))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(np.concatenate(one), np.concatenate(other))


@pytest.mark.parametrize("median", [60, 165, 600, 1500])
def test_batches_are_98_percent_full(median: int) -> None:
    rng = np.random.default_rng(median)
    lengths = np.minimum(rng.lognormal(np.log(median), 1.0, 30_000), BUDGET).astype(np.int64) + 1
    lengths = np.minimum(lengths, BUDGET)
    assert fill(lengths, pack(lengths, BUDGET, 0), BUDGET) >= 0.98


def test_ranks_that_take_a_batch_each_have_equal_work(lengths: np.ndarray) -> None:
    tokens = np.array([lengths[rows].sum() for rows in pack(lengths, BUDGET, 0)])
    for ranks in (2, 4, 8):
        steps = tokens[: len(tokens) // ranks * ranks].reshape(-1, ranks)
        assert np.median(steps.max(1) / steps.mean(1)) < 1.01
    assert tokens.argmin() == len(tokens) - 1


def test_any_row_may_be_anywhere_in_an_epoch_and_beside_any_other(lengths: np.ndarray) -> None:
    """Over many epochs short, middling and long rows stand as early as late, and meet as often as chance would have."""
    epochs, by_length = 200, np.argsort(lengths, kind="stable")
    place, met = np.zeros(len(lengths)), 0
    short, long = by_length[:250], by_length[-500:-250]
    for epoch in range(epochs):
        batches = pack(lengths, BUDGET, [1, epoch])
        number = np.empty(len(lengths), np.int64)
        for i, rows in enumerate(batches):
            place[rows] += (i + 0.5) / len(batches) / epochs
            number[rows] = i
        counts = (np.bincount(number[rows], minlength=len(batches)) for rows in (short, long))
        met += int(np.prod(list(counts), axis=0).sum())
    tenths = [float(place[rows].mean()) for rows in np.array_split(by_length, 10)]
    assert tenths == pytest.approx([0.5] * 10, abs=0.02)
    expected = epochs * len(short) * len(long) / len(batches)
    assert met == pytest.approx(expected, rel=0.15)


def test_a_batch_that_is_over_counts_as_full() -> None:
    lengths = np.array([30, 5])
    assert fill(lengths, [np.array([0]), np.array([1])], 10) == 0.75


def test_nothing_is_packed_into_nothing_and_a_budget_must_hold_something() -> None:
    assert pack(np.zeros(0, np.int64), 8, 0) == []
    with pytest.raises(ValueError, match="a budget of 0 tokens holds nothing"):
        pack(np.array([1]), 0, 0)


def test_a_million_rows_are_packed_in_seconds() -> None:
    lengths = np.random.default_rng(0).lognormal(5, 1, 1_000_000).astype(np.int64) + 1
    start = time.perf_counter()
    batches = pack(lengths, BUDGET, 0)
    assert time.perf_counter() - start < 15  # 1.3 s where nothing else runs
    assert fill(lengths, batches, BUDGET) > 0.99
