from __future__ import annotations

import itertools

import numpy as np
import pytest

from tokenization.errors import SourceError
from tokenization.items.semantic_ids import ResidualKMeans
from tokenization.items.semantic_quality import likeness, quality


def test_likeness_is_the_share_of_a_rows_neighbours_in_its_category() -> None:
    draw = np.random.default_rng(0)
    group, category = draw.integers(0, 6, 60), draw.integers(-1, 3, 60)
    shares = []
    for row in np.flatnonzero(category >= 0):
        others = [i for i in np.flatnonzero(category >= 0) if i != row and group[i] == group[row]]
        if others:
            shares.append(np.mean([category[i] == category[row] for i in others]))
    assert likeness(group, category) == pytest.approx(np.mean(shares))
    assert likeness(np.arange(60), category) == 0.0
    assert likeness(group, np.full(60, -1)) == 0.0


def test_one_group_for_all_is_what_random_groups_have_on_average() -> None:
    category = np.array([0, 0, 0, 1, 1, 2])
    sizes = np.array([0, 0, 0, 0, 1, 1])
    found = [likeness(sizes[list(order)], category) for order in itertools.permutations(range(6))]
    assert np.mean(found) == pytest.approx(likeness(np.zeros(6, int), category))


def test_rows_with_a_common_prefix_are_more_alike_than_random_ones_and_the_more_the_longer_it_is(
    clustered: tuple[np.ndarray, np.ndarray],
) -> None:
    vectors, shelf = clustered
    fitted = ResidualKMeans.fit(vectors, 3, 8)
    found = quality(fitted, vectors, {"shelf": shelf, "department": shelf // 4})
    for name in ("shelf", "department"):
        first, second = found.alike[name][:2]
        assert first.groups == 8
        assert first.same > 2 * first.by_chance
        assert second.same >= first.same
        assert first.clusters > 2 * first.by_chance
    assert found.alike["department"][0].same > 0.95
    assert found.alike["shelf"][0].by_chance == pytest.approx(1 / 16, abs=0.01)


def test_use_and_errors_are_counted() -> None:
    vectors = np.repeat(np.eye(4, dtype=np.float32), [5, 3, 1, 1], axis=0)
    fitted = ResidualKMeans.fit(vectors, 2, 4)
    found = quality(fitted, vectors, {})
    share = np.array([0.5, 0.3, 0.1, 0.1])
    assert found.levels[0].used == 1.0
    assert found.levels[0].perplexity == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert found.levels[1].perplexity == 1.0
    assert found.levels[0].left == 0.0
    assert (found.colliding, found.most) == (0.8, 5)
    half = quality(fitted, vectors[:5], {})
    assert (half.levels[0].used, half.colliding) == (0.25, 1.0)


def test_nothing_can_not_be_judged() -> None:
    fitted = ResidualKMeans.fit(np.eye(3), 1, 2)
    with pytest.raises(SourceError, match="there are no vectors to judge semantic IDs on; give at least one"):
        quality(fitted, np.zeros((0, 3), np.float32), {})
