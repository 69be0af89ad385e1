"""Bands: what the first dimensions are learned for, and what is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundation.bands import cut, widths_between
from foundation.errors import ModelError
from foundation.subgraph import Subgraph


@given(st.sets(st.integers(1, 63)))
def test_blocks_end_where_bands_do(bands: set[int]) -> None:
    found = widths_between(sorted(bands), 64)
    assert sum(found) == 64
    assert {sum(found[:end]) for end in range(1, len(found))} == bands


def test_a_cut_keeps_popularity_and_its_products_are_those_of_the_first_dimensions() -> None:
    user_BD, item_ND = torch.randn(3, 9), torch.randn(5, 9)
    product_BN = cut(user_BD, 4) @ cut(item_ND, 4).T
    torch.testing.assert_close(product_BN, user_BD[:, :4] @ item_ND[:, :4].T + user_BD[:, -1:] @ item_ND[:, -1:].T)
    for width in (0, 9):
        with pytest.raises(ModelError, match=f"vectors of 8 dimensions can't be cut to {width}"):
            cut(user_BD, width)


def test_only_what_was_learned_to_be_usable_alone_is_cut(folder: Path) -> None:
    subgraph = Subgraph.from_pretrained(folder)
    vectors = subgraph.item_vectors()
    width = subgraph.model.config.width
    assert torch.equal(subgraph.first(vectors, width), vectors)
    with pytest.raises(ModelError, match=f"8 dimensions of kiosk-v1 were not learned to be usable alone: take {width}"):
        subgraph.first(vectors, 8)
