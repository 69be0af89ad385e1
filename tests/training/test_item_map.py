"""The map shows the frequent items, and near ones near."""

from __future__ import annotations

import numpy as np
import pytest

from training.item_map import item_map


def test_items_of_one_direction_lie_together_whatever_their_length() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 16))
    group = np.repeat([0, 1, 2], 30)
    vectors = (centres[group] + 0.2 * rng.standard_normal((90, 16))) * rng.uniform(0.1, 10, (90, 1))
    names = [f"g{g}" for g in group]
    found = item_map(vectors.astype(np.float32), names, names, np.ones(90, dtype=np.int64))
    place = np.stack([found["x"].to_numpy(), found["y"].to_numpy()], axis=1)
    apart = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = np.array(found["group"].to_pylist())[apart.argmin(axis=1)]
    assert (nearest == np.array(found["group"].to_pylist())).mean() > 0.95


def test_only_the_most_frequent_items_that_occur_are_shown() -> None:
    vectors = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    label = [f"i{i}" for i in range(8)]
    found = item_map(vectors, label, label, np.array([0, 0, 5, 1, 9, 0, 3, 2]), shown=4)
    assert found["label"].to_pylist() == ["i4", "i2", "i6", "i7"]
    again = item_map(vectors, label, label, np.array([0, 0, 5, 1, 9, 0, 3, 2]), shown=4)
    assert found.equals(again)


@pytest.mark.parametrize("items", [0, 1, 2])
def test_a_handful_of_items_needs_no_projection(items: int) -> None:
    found = item_map(np.ones((items, 3), np.float32), ["g"] * items, ["i"] * items, np.ones(items, dtype=np.int64))
    assert found.num_rows == items
