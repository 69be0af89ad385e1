from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenization.codes.counting import Seen
from tokenization.codes.vocabulary import ABSENT, UNKNOWN, Vocabulary
from tokenization.errors import VocabularyError
from tokenization.ids import Ids


def fitted(ids: list[object], times: list[float] | None = None) -> Vocabulary:
    return Vocabulary.fit(Seen.of(Ids.of(pa.array(ids), "id"), np.array(times or range(len(ids)), np.float64)))


def test_codes_follow_first_sight_and_ties_the_ids_themselves() -> None:
    vocabulary = fitted(["soap", "tea", "milk", "tea", None], [2.0, 5.0, 2.0, 1.0, 0.0])
    assert vocabulary.ids.to_pylist() == ["tea", "milk", "soap"]
    assert vocabulary.counts.tolist() == [2, 1, 1]
    assert vocabulary.first_seen.tolist() == [1.0, 2.0, 2.0]


def test_the_order_of_the_rows_has_no_influence() -> None:
    rng = np.random.default_rng(0)
    ids, times = rng.integers(0, 20, 200), rng.integers(0, 9, 200).astype(float)
    first = fitted(ids.tolist(), times.tolist())
    shuffle = rng.permutation(200)
    second = fitted(ids[shuffle].tolist(), times[shuffle].tolist())
    assert first.ids.equals(second.ids)
    assert first.prefix_hash() == second.prefix_hash()


def test_absent_and_unknown_have_codes_of_their_own() -> None:
    vocabulary = fitted(["tea", "milk"])
    assert vocabulary.encode(pa.array(["milk", None, "rope"])).tolist() == [3, ABSENT, UNKNOWN]
    assert vocabulary.size == 4


def test_decode_undoes_encode() -> None:
    vocabulary = fitted([30, 10, 20])
    ids = pa.array([20, 30, None, 10])
    assert vocabulary.decode(vocabulary.encode(ids)).equals(ids)
    with pytest.raises(VocabularyError, match="code 5 is outside of this vocabulary of 5 codes"):
        vocabulary.decode(np.array([5], np.int32))
    with pytest.raises(VocabularyError, match="code -1"):
        vocabulary.decode(np.array([-1], np.int32))


def test_few_ids_and_many_ids_get_the_same_codes() -> None:
    vocabulary = fitted(list(range(1000)))
    ids = pa.array([999, 5, None, 1000])
    many = pa.concat_arrays([ids] * 100)
    assert vocabulary.encode(ids).tolist() == [1001, 7, ABSENT, UNKNOWN]
    assert vocabulary.encode(many).tolist() == [1001, 7, ABSENT, UNKNOWN] * 100
    column = Ids.of(many, "id")
    np.testing.assert_array_equal(vocabulary.encode_ids(column), vocabulary.encode(many))


def test_ids_of_another_type_are_read_as_this_one() -> None:
    numbers = fitted([7, 12])
    for ids in (pa.array(["12", "7", "07", "x"]), pa.array([12.0, 7.0, 7.5, 1.0]), pa.array([12, 7, 8, 9], pa.int8())):
        assert numbers.encode(ids).tolist() == [3, 2, UNKNOWN, UNKNOWN]
    words = fitted(["7", "x"])
    assert words.encode(pa.array([7, 8])).tolist() == [2, UNKNOWN]


@given(st.data())
def test_values_that_are_found_at_once_have_the_codes_of_those_that_are_looked_up(data: st.DataObject) -> None:
    vocabulary = fitted(data.draw(st.sampled_from([["tea", "7", "milk"], [7, 1, 0, 12]])))
    known = [*vocabulary.ids.to_pylist(), None]
    others = ["7", "rope", 7, 1, True, 1.0, b"tea"]
    values = data.draw(st.lists(st.sampled_from(known) | st.sampled_from(others), max_size=8))
    found = vocabulary.find(values)
    exact = all(any(value is id_ or (type(value) is type(id_) and value == id_) for id_ in known) for value in values)
    assert (found is not None) == exact
    if found is not None:
        looked_up = vocabulary.encode(pa.array(values, vocabulary.ids.type))
        np.testing.assert_array_equal(vocabulary.encode_ids(found), looked_up)


def test_a_large_vocabulary_is_not_handed_on() -> None:
    assert fitted(list(range(5000))).find([7]) is None


def test_an_empty_vocabulary_knows_nothing() -> None:
    vocabulary = fitted([None, None])
    assert len(vocabulary) == 0
    assert vocabulary.encode(pa.array([None, 3])).tolist() == [ABSENT, UNKNOWN]
    assert vocabulary.grow(pa.array([5, 3])).encode(pa.array([3])).tolist() == [3]


def test_growing_changes_no_code_and_no_prefix() -> None:
    small = fitted(["tea", "milk"])
    large = small.grow(pa.array(["rope", "tea", None, "rope", "axe"]))
    assert large.ids.to_pylist() == ["tea", "milk", "rope", "axe"]
    assert large.counts.tolist() == [1, 1, 0, 0]
    assert np.isnan(large.first_seen[2:]).all()
    assert large.prefix_hash(2) == small.prefix_hash()
    assert large.prefix_hash() != small.prefix_hash()
    with pytest.raises(VocabularyError, match="has 2 ids, fewer than 4"):
        small.prefix_hash(4)


def test_the_hash_tells_apart_what_reads_alike() -> None:
    assert fitted(["ab", "c"]).prefix_hash() != fitted(["a", "bc"]).prefix_hash()
    assert fitted([1, 2]).prefix_hash() != fitted(["1", "2"]).prefix_hash()


@pytest.mark.parametrize("ids", [["tea", "milk"], [7, -3], [None]], ids=str)
def test_saving_and_loading_changes_nothing(ids: list[object], tmp_path: Path) -> None:
    vocabulary = fitted(ids)
    vocabulary.save(tmp_path / "v.arrow")
    loaded = Vocabulary.load(tmp_path / "v.arrow")
    assert loaded.ids.equals(vocabulary.ids)
    assert loaded.counts.tolist() == vocabulary.counts.tolist()
    assert loaded.first_seen.tolist() == vocabulary.first_seen.tolist()


def test_a_file_that_is_no_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"v.arrow is no vocabulary"):
        Vocabulary.load(tmp_path / "v.arrow")
    (tmp_path / "v.arrow").write_bytes(b"junk")
    with pytest.raises(VocabularyError, match=r"v.arrow is no vocabulary"):
        Vocabulary.load(tmp_path / "v.arrow")


@given(ids=st.lists(st.text(max_size=3), unique=True, max_size=9), data=st.data())
def test_the_hash_of_a_prefix_is_that_of_its_ids_one_by_one(ids: list[str], data: st.DataObject) -> None:
    vocabulary = Vocabulary(pa.array(["odd", *ids], pa.string()).slice(1), np.zeros(0, np.int64), np.zeros(0))
    length = data.draw(st.integers(0, len(ids)))
    told = [len(text.encode()).to_bytes(4, "little") for text in ids[:length]] + [t.encode() for t in ids[:length]]
    digest = hashlib.sha256(b"".join([b"string" if length else b"empty", *told])).hexdigest()
    assert vocabulary.prefix_hash(length) == digest


def test_whole_numbers_and_their_text_have_different_hashes() -> None:
    numbers, texts = fitted([7, 8]), fitted(["7", "8"])
    assert numbers.prefix_hash() != texts.prefix_hash()


def test_who_is_seen_too_seldom_waits_and_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    seen = Seen.of(Ids.of(pa.array([3, 1, 3, 2]), "id"), np.array([5.0, 6.0, 7.0, 8.0]))
    vocabulary = Vocabulary.fit(seen, 2)
    assert (vocabulary.ids.to_pylist(), vocabulary.waiting.ids.to_pylist()) == ([3], [1, 2])
    vocabulary.save(tmp_path / "ids.arrow")
    vocabulary.save_waiting(tmp_path / "waiting.arrow")
    read = Vocabulary.load(tmp_path / "ids.arrow")
    assert len(read.waiting) == 0
    assert read.with_waiting(tmp_path / "waiting.arrow").waiting_hash == vocabulary.waiting_hash != read.waiting_hash
    with pytest.raises(VocabularyError, match=r"none\.arrow is no vocabulary"):
        read.with_waiting(tmp_path / "none.arrow")


def test_numbers_and_text_wait_together() -> None:
    def once(ids: list[object]) -> Seen:
        return Seen.of(Ids.of(pa.array(ids), "id"), np.zeros(len(ids)))

    vocabulary = Vocabulary.fit(once([7, 7, 8]), 2).meet(once(["8", "x", "7"])).admit(2)
    assert vocabulary.ids.to_pylist() == [7, 8]
    assert vocabulary.waiting.ids.to_pylist() == ["x"]
    assert vocabulary.meet(once([8, 7])) is vocabulary
    with pytest.raises(VocabularyError, match="'x' is text, but the ids so far are whole numbers"):
        vocabulary.meet(once(["x"])).admit(2)
