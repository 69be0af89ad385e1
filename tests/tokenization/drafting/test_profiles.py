"""What the values of a column look like, whatever it is called."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tokenization.drafting.profiles import Shape, codes_of, determined, joint, profile, runs_of


def shape(values: Any, kind: pa.DataType | None = None) -> Shape:
    return profile("column", pa.chunked_array([pa.array(values, kind)])).shape


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([None, None], pa.string(), Shape.EMPTY),
        ([float("nan"), None], pa.float64(), Shape.EMPTY),
        ([True, False], None, Shape.FLAG),
        ([1, None, 3], None, Shape.WHOLE),
        ([1.0, None, 3.0], None, Shape.WHOLE),
        (["1", "22"], None, Shape.WHOLE),
        ([1.5, 2.0], None, Shape.FRACTIONAL),
        (["1.5", " 2e3"], None, Shape.FRACTIONAL),
        (["007", "012"], None, Shape.WORDS),
        (["a", "b"], None, Shape.WORDS),
        ([datetime(2024, 1, 1)], None, Shape.STAMP),
        ([date(2024, 1, 1)], None, Shape.STAMP),
        (["2024-01-01", "2024-01-02T10:00Z"], None, Shape.STAMP),
        ([[1.0, 2.0], None, [3.0, 4.0]], None, Shape.VECTOR),
        ([[1.0], [1.0, 2.0]], None, Shape.LIST),
        ([["a"], []], None, Shape.LIST),
        ([[1, 2], [3, 4]], None, Shape.LIST),
        ([{"a": 1}], None, Shape.NESTED),
        ([b"x"], None, Shape.NESTED),
    ],
)
def test_values_tell_their_shape(values: Any, kind: pa.DataType | None, expected: Shape) -> None:
    assert shape(values, kind) is expected


def test_a_few_values_that_are_none_are_counted() -> None:
    found = profile("price", pa.chunked_array([[*map(str, range(99)), "n/a"]]))
    assert (found.shape, found.odd) == (Shape.WHOLE, 1)
    assert profile("name", pa.chunked_array([["1", "x", "y"]])).shape is Shape.WORDS


def test_numbers_of_our_days_may_be_times_in_a_unit() -> None:
    def unit(value: float) -> str | None:
        return profile("at", pa.chunked_array([[value, value + 1]])).unit

    assert [unit(1.7e9 * ticks) for ticks in (1, 1e3, 1e6, 1e9)] == ["s", "ms", "us", "ns"]
    assert unit(12.0) is None
    found = profile("at", pa.chunked_array([[1_700_000_000_000]]))
    assert found.seconds().tolist() == [1.7e9]


def test_one_column_may_determine_another() -> None:
    items = np.array([0, 0, 1, 1, 2, -1], np.int32)
    colours = np.array([5, 5, 6, 7, 8, 5], np.int32)
    assert determined(colours, items) == 0.5
    assert np.isnan(determined(colours, np.arange(6, dtype=np.int32)))
    assert joint(items, colours).tolist() == [0, 0, 1, 2, 3, -1]
    assert codes_of(np.array([3.0, np.nan, 1.0, 3.0])).tolist() == [1, -1, 0, 1]
    assert runs_of(np.array([1, 1, 2, 1], np.int32)) == 3
