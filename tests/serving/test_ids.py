from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidRequest, StoreError
from serving.ids import INTEGER, TEXT, IdIndex, canonical, hash_ids, longest_run

INT64 = st.integers(-(2**63), 2**63 - 1)


def index_of(ids: pa.Array) -> IdIndex:
    keys = hash_ids(ids)
    order = np.argsort(keys, kind="stable")
    return IdIndex(keys[order], ids.take(pa.array(order)), longest_run(keys[order]))


@given(st.lists(st.one_of(st.text()), unique=True), st.lists(st.text()))
def test_every_text_id_is_found_and_no_other(stored: list[str], asked: list[str]) -> None:
    ids = pa.array(stored, TEXT)
    index = index_of(ids)
    rows = index.rows(pa.array(stored + asked, TEXT))
    known = [index.ids[int(row)].as_py() if row >= 0 else None for row in rows]
    assert known == stored + [text if text in set(stored) else None for text in asked]


@given(st.lists(INT64, unique=True), st.lists(INT64))
def test_every_integer_id_is_found_and_no_other(stored: list[int], asked: list[int]) -> None:
    index = index_of(pa.array(stored, INTEGER))
    rows = index.rows(pa.array(stored + asked, INTEGER))
    known = [index.ids[int(row)].as_py() if row >= 0 else None for row in rows]
    assert known == stored + [number if number in set(stored) else None for number in asked]


def test_ids_of_equal_hash_are_told_apart() -> None:
    ids = pa.array(["a", "b", "c", "d"], TEXT)
    same = hash_ids(pa.array(["b"], TEXT))[0]
    index = IdIndex(np.full(4, same), ids, longest_run=4)
    assert index.rows(pa.array(["b", "x"], TEXT)).tolist() == [1, -1]


def test_a_slice_hashes_like_the_whole() -> None:
    ids = pa.array(["", "one", "two\0", "", "trois", "ß"], TEXT)
    assert hash_ids(ids)[2:5].tolist() == hash_ids(ids.slice(2, 3)).tolist()


def test_hashes_are_spread_over_all_bits() -> None:
    for ids in (pa.array(np.arange(4096)), pa.array([f"user-{i}" for i in range(4096)], TEXT)):
        bits = np.unpackbits(hash_ids(ids).view(np.uint8)).reshape(4096, 64).mean(axis=0)
        assert np.abs(bits - 0.5).max() < 0.05


@pytest.mark.parametrize(
    ("given_type", "expected"),
    [(pa.int8(), INTEGER), (pa.uint32(), INTEGER), (pa.string(), TEXT), (pa.dictionary(pa.int8(), pa.string()), TEXT)],
)
def test_ids_take_one_of_two_types(given_type: pa.DataType, expected: pa.DataType) -> None:
    values = pa.array(["1", "2", "1"] if expected == TEXT else [1, 2, 1])
    assert canonical(values.cast(given_type)).type == expected


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (pa.array([1, None]), "1 of 2 ids are null"),
        (pa.array([1.5]), "text or integers, these are double"),
        (pa.array([2**64 - 1], pa.uint64()), "does not fit into 64 bits"),
    ],
)
def test_other_ids_are_refused_with_a_sentence(ids: pa.Array, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence):
        canonical(ids)


def test_asking_integers_of_text_ids_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="stored here are text, the request has integers"):
        index_of(pa.array(["a"], TEXT)).rows(pa.array([1]))
