from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import index
from serving.index import ExactIndex, top


@pytest.mark.parametrize("block", [1, 7, 64, 65_536])
@pytest.mark.parametrize("k", [1, 5, 64, 100])
def test_search_is_the_sorted_product_whatever_the_block(monkeypatch: pytest.MonkeyPatch, block: int, k: int) -> None:
    monkeypatch.setattr(index, "BLOCK", block)
    rng = np.random.default_rng(0)
    # Small integers: products are exact, and many scores are equal.
    vectors = rng.integers(-3, 4, (64, 4)).astype(np.float32)
    queries = rng.integers(-3, 4, (3, 4)).astype(np.float32)
    for query, hits in zip(queries, ExactIndex(vectors).search(queries, k), strict=True):
        scores = vectors @ query
        order = np.lexsort((np.arange(64), -scores))[:k]
        assert hits.rows_K.tolist() == order.tolist()
        assert hits.scores_K.tolist() == scores[order].tolist()


@given(st.lists(st.integers(-3, 3) | st.just(-np.inf), max_size=40), st.integers(1, 50))
def test_top_orders_ties_by_row_and_leaves_out_what_is_no_candidate(values: list[float], k: int) -> None:
    hits = top(np.array(values, np.float32), k)
    expected = sorted((-value, row) for row, value in enumerate(values) if value > -np.inf)[:k]
    assert hits.rows_K.tolist() == [row for _, row in expected]
