from __future__ import annotations

import itertools

import numpy as np
import pytest

from tokenization.ordering import order_by


@pytest.mark.parametrize("rows", [300, 3_000])
@pytest.mark.parametrize(
    "largest", [3, 2**20, 2**31 - 1, 2**62], ids=["one word", "two bits", "packed by two", "no room"]
)
def test_rows_are_ordered_by_the_first_key_then_the_next(largest: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    keys = [rng.choice(np.array([0, 1, largest]), rows) for _ in range(4)]
    order, fresh = order_by(keys)
    ordered = [tuple(int(key[row]) for key in keys) for row in order]
    assert ordered == sorted(ordered)
    assert fresh.tolist() == [True, *(a != b for a, b in itertools.pairwise(ordered))]


def test_no_rows_are_in_order() -> None:
    order, fresh = order_by([np.zeros(0, np.int64), np.zeros(0, np.int32)])
    assert len(order) == len(fresh) == 0
