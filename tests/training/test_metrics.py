"""Ranking metrics: equal to ranx, and true to their definitions on any data."""

from __future__ import annotations

from types import ModuleType

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from training import metrics
from training.metrics import ItemSets


def random_lists(
    seed: int, users: int, items: int, depth: int, most: int
) -> tuple[np.ndarray, ItemSets, list[set[int]]]:
    rng = np.random.default_rng(seed)
    ranked = np.stack([rng.permutation(items)[:depth] for _ in range(users)]).astype(np.int32)
    truth = [set(rng.choice(items, rng.integers(1, most + 1), replace=False).tolist()) for _ in range(users)]
    user = np.repeat(np.arange(users), [len(t) for t in truth])
    code = np.array([c for t in truth for c in t], dtype=np.int32)
    return ranked, ItemSets.from_pairs(user, code, users), truth


@pytest.fixture(scope="module")
def ranx() -> ModuleType:
    numba.config.DISABLE_JIT = True  # the same code without 45 s of compiling it
    import ranx

    return ranx


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_recall_and_ndcg_equal_ranx_for_unequal_truth_sizes(ranx: ModuleType, k: int) -> None:
    ranked, sets, truth = random_lists(seed=k, users=200, items=60, depth=20, most=40)
    qrels = ranx.Qrels({f"u{u:03}": {str(c): 1 for c in t} for u, t in enumerate(truth)})
    run = ranx.Run({f"u{u:03}": {str(c): 1.0 / (i + 1) for i, c in enumerate(r)} for u, r in enumerate(ranked)})
    theirs = ranx.evaluate(qrels, run, [f"recall@{k}", f"ndcg@{k}"], return_mean=False)
    hit = metrics.hits(ranked, sets)
    np.testing.assert_allclose(metrics.recall_at(hit, sets.sizes, k), theirs[f"recall@{k}"], atol=1e-12)
    np.testing.assert_allclose(metrics.ndcg_at(hit, sets.sizes, k), theirs[f"ndcg@{k}"], atol=1e-12)


def test_a_perfect_list_has_ndcg_one_and_recall_k_over_truth() -> None:
    truth = ItemSets.from_pairs(np.repeat([0, 1], [3, 20]), np.r_[0:3, 0:20].astype(np.int32), 2)
    ranked = np.tile(np.arange(10, dtype=np.int32), (2, 1))
    hit = metrics.hits(ranked, truth)
    assert metrics.ndcg_at(hit, truth.sizes, 10).tolist() == pytest.approx([1.0, 1.0])
    assert metrics.recall_at(hit, truth.sizes, 10).tolist() == [1.0, 0.5]


def test_a_user_without_truth_has_no_value_and_no_part_in_the_mean() -> None:
    truth = ItemSets.from_pairs(np.array([1]), np.array([4], dtype=np.int32), 2)
    hit = metrics.hits(np.array([[4, 5], [4, 5]], dtype=np.int32), truth)
    recall = metrics.recall_at(hit, truth.sizes, 2)
    assert np.isnan(recall[0])
    assert metrics.mean(recall) == 1.0
    assert np.isnan(metrics.mean(recall[:1]))


def test_an_empty_place_is_never_a_hit() -> None:
    truth = ItemSets.from_pairs(np.array([0]), np.array([0], dtype=np.int32), 1)
    assert metrics.hits(np.array([[-1, 0]], dtype=np.int32), truth).tolist() == [[False, True]]


def test_weighted_recall_counts_rare_hits_more() -> None:
    truth = ItemSets.from_pairs(np.zeros(2, np.int64), np.array([2, 3], dtype=np.int32), 1)
    ranked = np.array([[2]], dtype=np.int32)
    weight = np.array([0, 0, 0.1, 0.9])
    hit = metrics.hits(ranked, truth)
    assert metrics.weighted_recall_at(ranked, hit, weight, np.array([1.0]), 10).tolist() == [0.1]


@settings(max_examples=60)
@given(
    scores=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(-2, 2)),
    k=st.integers(1, 35),
    masked=st.integers(0, 3),
)
def test_top_k_is_a_stable_sort_whatever_the_ties(scores: np.ndarray, k: int, masked: int) -> None:
    candidates = max(scores.shape[1] - masked, 0)
    scores[:, candidates:] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, candidates)]
    got = metrics.top_k(scores, k)
    assert got.shape == (len(scores), k)
    np.testing.assert_array_equal(got[:, : expected.shape[1]], expected)
    assert (got[:, expected.shape[1] :] == -1).all()


@pytest.mark.parametrize("kind", ["distinct", "ties", "one value", "few candidates", "none"])
@pytest.mark.parametrize("items", [150, 1000, 1007])
def test_top_k_of_a_large_catalogue_is_the_same_sort(kind: str, items: int) -> None:
    rng = np.random.default_rng(items)
    scores = {
        "distinct": rng.standard_normal((20, items)),
        "ties": rng.integers(0, 30, (20, items)),
        "one value": np.zeros((20, items)),
        "few candidates": np.where(rng.random((20, items)) < 0.01, 1.0, -np.inf),
        "none": np.full((20, items), -np.inf),
    }[kind].astype(np.float32)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    expected[np.isneginf(np.take_along_axis(scores, expected, axis=1))] = -1
    np.testing.assert_array_equal(metrics.top_k(scores, 10), expected)


@pytest.mark.parametrize("items", [4, 1007])
@pytest.mark.parametrize("place", [0, 2, -1])
def test_a_score_that_is_not_a_number_is_refused_wherever_it_stands(items: int, place: int) -> None:
    scores = np.zeros((3, items), dtype=np.float32)
    scores[1, place] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        metrics.top_k(scores, 2)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50)), max_size=40))
def test_item_sets_are_the_distinct_pairs(pairs: list[tuple[int, int]]) -> None:
    user = np.array([u for u, _ in pairs], dtype=np.int64)
    code = np.array([c for _, c in pairs], dtype=np.int32)
    sets = ItemSets.from_pairs(user, code, 5)
    expected = [sorted({c for u, c in pairs if u == w}) for w in range(5)]
    assert [sets.codes[sets.offsets[u] : sets.offsets[u + 1]].tolist() for u in range(5)] == expected
    assert sets.contains(user, code).all()
    assert not sets.contains(np.array([0]), np.array([51], dtype=np.int32)).any()
    assert sets.slice(1, 3).sizes.tolist() == sets.sizes[1:3].tolist()
    odd = sets.keep(sets.codes % 2 == 1)
    assert odd.sizes.tolist() == [sum(c % 2 for c in row) for row in expected]


def test_coverage_is_the_share_of_the_catalogue_in_anybodys_first_places() -> None:
    ranked = np.array([[2, 3, 4], [2, -1, -1]], dtype=np.int32)
    covered = metrics.recommended(ranked, 2, items=12)
    assert metrics.coverage(covered, catalogue=10) == 0.2


def test_bootstrap_interval_agrees_with_the_normal_one_on_many_users() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, size=4000)
    interval = metrics.bootstrap(values[:, None], samples=4000)[0]
    error = values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_bootstrap_repeats_with_its_seed_and_leaves_out_users_without_a_value() -> None:
    values = np.random.default_rng(2).random((50, 2))
    values[:20, 1] = np.nan
    first, again = metrics.bootstrap(values, seed=3), metrics.bootstrap(values, seed=3)
    assert first == again
    assert first != metrics.bootstrap(values, seed=4)
    assert first[1].mean == pytest.approx(values[20:, 1].mean())
    assert first[1].low < first[1].mean < first[1].high


def test_pairing_sees_a_small_difference_between_systems_among_large_ones_between_users() -> None:
    rng = np.random.default_rng(5)
    users = rng.normal(0, 10, size=300)
    a, b = users + 0.1 + rng.normal(0, 0.1, 300), users + rng.normal(0, 0.1, 300)
    gap = metrics.paired_bootstrap(a, b)
    assert 0.05 < gap.low < gap.mean < gap.high < 0.15


def test_a_paired_comparison_needs_the_same_users() -> None:
    with pytest.raises(ValueError, match="same users"):
        metrics.paired_bootstrap(np.zeros(3), np.zeros(4))


def test_no_users_at_all_have_no_interval() -> None:
    interval = metrics.bootstrap(np.zeros((0, 1)))[0]
    assert np.isnan([interval.mean, interval.low, interval.high]).all()
