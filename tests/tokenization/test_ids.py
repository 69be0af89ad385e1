from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenization.errors import SourceError
from tokenization.ids import Ids, as_type, canonical, column_of, one_chunk


@pytest.mark.parametrize(
    "column",
    [
        pa.array([7, None, 8], pa.int16()),
        pa.array([7, None, 8], pa.uint32()),
        pa.array([7.0, None, 8.0]),
        pa.array([7.0, float("nan"), 8.0]),
        pa.array([7, None, 8]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_whole_numbers_are_one_id_however_they_are_stored(column: pa.Array) -> None:
    assert canonical(column, "sku").equals(pa.array([7, None, 8], pa.int64()))


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None], pa.large_string()),
        pa.array(["a", None], pa.string_view()),
        pa.array([b"a", None], pa.binary()),
        pa.array(["a", None]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_text_is_one_id_however_it_is_stored(column: pa.Array) -> None:
    assert canonical(column, "sku").equals(pa.array(["a", None]))


def test_other_values_become_their_text() -> None:
    assert canonical(pa.array([1.5]), "sku").to_pylist() == ["1.5"]
    assert canonical(pa.array([True]), "sku").to_pylist() == ["true"]
    assert canonical(pa.array([Decimal("1.50")]), "sku").to_pylist() == ["1.50"]
    assert canonical(pa.nulls(1), "sku").to_pylist() == [None]


def test_a_whole_number_is_one_id_whatever_stands_beside_it() -> None:
    ids = canonical(pa.array([7.0, 7.5, 123456789012.0, -0.0, float("inf"), float("nan")]), "sku")
    assert ids.to_pylist() == ["7", "7.5", "123456789012", "0", "inf", None]


@pytest.mark.parametrize(
    ("kind", "most"), [(pa.float16(), 2**11 - 1), (pa.float32(), 2**24 - 1), (pa.float64(), 2**53 - 1)]
)
def test_floats_that_may_have_lost_digits_are_no_ids(kind: pa.DataType, most: int) -> None:
    assert canonical(pa.array([most, -most, None], pa.float64()).cast(kind), "sku").to_pylist() == [most, -most, None]
    for beside in (1.0, 1.5):
        column = pa.array([float(most + 1), beside], pa.float64()).cast(kind)
        with pytest.raises(SourceError, match=rf"column 'sku' holds ids as {kind}, some of {most + 1:,} or more"):
            canonical(column, "sku")


def test_narrow_floats_are_the_text_that_they_are_written_as() -> None:
    assert canonical(pa.array([0.1, 7.0], pa.float32()), "sku").to_pylist() == ["0.1", "7"]


def test_unsigned_numbers_of_64_bits_are_text_where_one_is_beyond_the_signed() -> None:
    assert canonical(pa.array([7, 2**63 - 1, None], pa.uint64()), "sku").to_pylist() == [7, 2**63 - 1, None]
    assert canonical(pa.array([7, 2**64 - 1, None], pa.uint64()), "sku").to_pylist() == ["7", str(2**64 - 1), None]


@given(
    moment=st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), zone=st.sampled_from([None, "UTC", "Asia/Tokyo"])
)
def test_a_time_is_one_text_however_it_is_stored(moment: datetime, zone: str | None) -> None:
    for unit, ticks in (("s", 10**6), ("ms", 10**3), ("us", 1), ("ns", 1)):
        cut = moment.replace(microsecond=moment.microsecond // ticks * ticks)
        column = pa.array([cut], pa.timestamp(unit, zone))
        expected = cut.isoformat() + ("" if zone is None else "+00:00")
        assert canonical(column, "day").to_pylist() == [expected], unit


def test_ids_meet_in_either_type() -> None:
    assert as_type(pa.array(["7", "07", "x", None]), pa.int64()).to_pylist() == [7, None, None, None]
    assert as_type(pa.array([7, None]), pa.string()).to_pylist() == ["7", None]


def test_python_values_of_several_types_are_refused() -> None:
    assert column_of([7, None], "sku").to_pylist() == [7, None]
    for values in ([7, "x"], [2**70]):
        with pytest.raises(SourceError, match="the values of 'sku' are of several types"):
            column_of(values, "sku")


def test_what_has_no_text_is_refused_by_name() -> None:
    with pytest.raises(SourceError, match="column 'sku' holds list"):
        canonical(pa.array([[1]]), "sku")


def test_ids_come_back_as_they_went_in() -> None:
    column = pa.chunked_array([["b", None], ["a", "b"]])
    ids = Ids.of(column, "sku")
    assert ids.decode().to_pylist() == ["b", None, "a", "b"]
    assert ids.missing.tolist() == [False, True, False, False]
    assert ids.take(np.array([3, 1])).decode().to_pylist() == ["b", None]


def test_rank_is_the_order_of_the_ids_in_use() -> None:
    ids = Ids.of(pa.array([30, 10, None, 20, 10]), "sku").take(np.array([1, 2, 3, 4]))
    values, place = ids.rank()
    assert values.to_pylist() == [10, 20]
    assert place.tolist() == [0, -1, 1, 0]


def test_chunks_make_no_difference() -> None:
    assert one_chunk(pa.chunked_array([[1], [2, 3]])).equals(pa.array([1, 2, 3]))
    assert one_chunk(pa.chunked_array([], pa.int64())).equals(pa.array([], pa.int64()))


@pytest.mark.parametrize("number", [0, 7, -7, 10**17, 10**18, 2**62, 2**63 - 1, -(2**63) + 1])
def test_whole_numbers_of_64_bits_are_the_same_id_as_text(number: int) -> None:
    assert as_type(pa.array([str(number)]), pa.int64()).to_pylist() == [number]


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "-9223372036854775809", "99999999999999999999", "007", "+7", "-0"]
)
def test_other_texts_are_no_whole_numbers(text: str) -> None:
    assert as_type(pa.array([text]), pa.int64()).to_pylist() == [None]
