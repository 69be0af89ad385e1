from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenization.errors import SourceError
from tokenization.items.modalities import METADATA_WIDTH, metadata_vectors, unit_vectors


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float64(), 2), pa.list_(pa.int8())]
)
def test_any_kind_of_list_becomes_rows_of_length_one(kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array([[3, 4]], kind), pa.array([None, [0, 0], [0, -7]], kind)])
    found = unit_vectors(column, "image")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [0, 0], [0, -1]])


def test_a_slice_reads_its_own_rows() -> None:
    column = pa.array([[9.0, 9], [3, 4], [1, 0]], pa.list_(pa.float64(), 2)).slice(1)
    np.testing.assert_allclose(unit_vectors(column, "image"), [[0.6, 0.8], [1, 0]])


@given(st.lists(st.floats(-1e308, 1e308), min_size=1, max_size=5))
def test_length_is_one_or_zero_however_large_or_small(numbers: list[float]) -> None:
    length = np.linalg.norm(unit_vectors(pa.array([numbers]), "image")[0])
    assert length == pytest.approx(1.0 if any(numbers) else 0.0, abs=1e-6)


def test_where_the_length_is_known_nothing_need_be_there() -> None:
    assert unit_vectors(pa.nulls(3), "image", 4).shape == (3, 4)
    with pytest.raises(SourceError, match="vectors of length 2, before it was 4; write the same length"):
        unit_vectors(pa.array([[1.0, 2.0]]), "image", 4)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["a", "b"], "column 'image' of the items table holds string; vectors must be lists of numbers of one length"),
        ([["a"]], "holds list<.*string>; vectors must be"),
        ([None, [1.0, 2], [1.0]], "has 2 numbers in row 1 and 1 in row 2; write vectors of one length"),
        ([[1.0], [float("nan")]], "row 1 of the items table has NaN, infinity or a gap in 'image'"),
        ([None, [float("inf")]], "row 1 of the items table has NaN, infinity or a gap in 'image'"),
        ([[1.0, None]], "row 0 of the items table has NaN, infinity or a gap in 'image'"),
        ([[], [1.0]], "has 0 numbers in row 0 and 1 in row 1"),
        (
            pa.array([[], None], pa.list_(pa.float32())),
            "column 'image' of the items table holds no vector; leave it out of `items.vectors`",
        ),
    ],
)
def test_what_is_no_vector_is_refused_by_name(values: list[object], told: str) -> None:
    with pytest.raises(SourceError, match=told):
        unit_vectors(pa.array(values), "image")


def test_items_are_as_alike_as_the_values_that_they_share() -> None:
    rows = 400
    draw = np.random.default_rng(0)
    table = pa.table({name: draw.integers(0, 10**6, rows) for name in ("maker", "shelf", "size")})
    twin = table.set_column(2, "size", pa.array(draw.integers(10**6, 2 * 10**6, rows)))
    one, other = (metadata_vectors(each, ["maker", "shelf", "size"]) for each in (table, twin))
    assert one.shape == (rows, METADATA_WIDTH)
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, rtol=1e-6)
    shared, none = (one * other).sum(axis=1), (one * np.roll(one, 1, axis=0)).sum(axis=1)
    assert shared.mean() == pytest.approx(2 / 3, abs=0.03)
    assert none.mean() == pytest.approx(0, abs=0.03)


def test_one_value_is_two_in_two_columns_and_one_however_it_is_written() -> None:
    numbers = pa.table({"a": [7, None], "b": [None, 7]})
    texts = pa.table({"a": ["7", None], "b": [None, "7"]})
    found = metadata_vectors(numbers, ["a", "b"])
    assert abs(found[0] @ found[1]) < 0.5
    np.testing.assert_array_equal(found, metadata_vectors(texts, ["a", "b"]))


def test_an_item_of_which_nothing_is_told_has_no_metadata() -> None:
    table = pa.table({"a": pa.array([None, "x"], pa.string())})
    assert not metadata_vectors(table, ["a"])[0].any()
    assert metadata_vectors(table, ["a"])[1].any()
    assert metadata_vectors(table.slice(0, 0), ["a"]).shape == (0, METADATA_WIDTH)
