from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from serving.errors import CorruptStore, PublishRefused, StoreError
from serving.rows import Rows, VectorBatch, check_servable


def rows_of(batch: VectorBatch) -> Rows:
    return Rows.from_table(batch.to_table(8), "user.lance")


def test_rows_come_back_as_pushed(batch) -> None:
    pushed = batch(["b", "a"])
    rows = rows_of(pushed)
    assert rows.ids.to_pylist() == ["b", "a"]
    assert np.array_equal(rows.vectors_ND, pushed.vectors_ND)
    assert rows.as_of_N.tolist() == [1e9, 1e9]


@pytest.mark.parametrize("bit", range(32))
def test_any_flipped_bit_of_a_vector_is_seen(batch, bit: int) -> None:
    table = batch([1, 2, 3]).to_table(8)
    words = table["vector"].combine_chunks().flatten().to_numpy().copy().view(np.uint32)
    words[8 + bit % 8] ^= np.uint32(1 << bit)
    flipped = pa.FixedSizeListArray.from_arrays(pa.array(words.view(np.float32)), 8)
    damaged = table.set_column(1, "vector", flipped)
    with pytest.raises(CorruptStore, match=r"1 of 3 rows of user.lance differ"):
        Rows.from_table(damaged, "user.lance")


@pytest.mark.parametrize("column", ["id", "as_of", "event_seq"])
def test_a_change_beside_the_vector_is_seen(batch, column: str) -> None:
    table = batch([1, 2, 3]).to_table(8)
    changed = pa.array(np.array([1, 2, 4]).astype(table[column].to_numpy().dtype))
    with pytest.raises(CorruptStore):
        Rows.from_table(table.set_column(table.column_names.index(column), column, changed), "user.lance")


def test_lengths_and_widths_must_agree(batch) -> None:
    with pytest.raises(StoreError, match=r"2 ids of a space of width 9 came with a matrix of shape \(2, 8\)"):
        batch([1, 2]).to_table(9)
    with pytest.raises(StoreError, match="2 ids came with"):
        replace(batch([1, 2]), as_of_N=np.zeros(3)).to_table(8)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda v: v.__setitem__((3, 2), np.nan), "1 of 100 vectors"),
        (lambda v: v.__setitem__((3, 2), np.inf), "1 of 100 vectors"),
        (lambda v: v.__setitem__(slice(0, 2), 0), "2 of 100 vectors of item.lance are all zeros"),
        (lambda v: v.__setitem__(0, 1e30), "the model diverged"),
    ],
)
def test_vectors_that_would_do_harm_are_refused(batch, spoil, sentence: str) -> None:
    pushed = batch(list(range(100)))
    spoil(pushed.vectors_ND)
    with pytest.raises(PublishRefused, match=sentence):
        check_servable(rows_of(pushed), 8, "item.lance")


def test_an_id_that_comes_twice_is_refused(batch) -> None:
    with pytest.raises(PublishRefused, match="3 rows for 2 ids"):
        check_servable(rows_of(batch([1, 2, 2])), 8, "item.lance")


def test_no_rows_are_refused(batch) -> None:
    with pytest.raises(PublishRefused, match="holds no vectors"):
        check_servable(
            rows_of(VectorBatch(pa.array([], pa.int64()), np.zeros((0, 8)), np.zeros(0), np.zeros(0))), 8, "x"
        )
