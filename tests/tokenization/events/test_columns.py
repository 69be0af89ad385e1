from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tokenization.errors import SourceError
from tokenization.events.columns import bags_of_lists, bags_of_texts, numbers_of, vectors_of
from tokenization.events.events import Bags


def members(bags: Bags) -> list[list[object]]:
    names = bags.members.decode().to_pylist()
    found: list[list[object]] = [[] for _ in bags.index]
    for row, place in zip(*bags.of_rows(), strict=True):
        found[row].append(names[place])
    return found


def test_numbers_of_reads_every_column_that_can_hold_numbers() -> None:
    for column in (pa.array(["1.5", "-2e3", "x"]), pa.array([1.5, -2000.0, None])):
        np.testing.assert_array_equal(numbers_of(column), [1.5, -2000.0, np.nan])
    assert np.isnan(numbers_of(pa.nulls(2))).all()
    np.testing.assert_array_equal(numbers_of(pa.array(["7", "x"]).dictionary_encode()), [7.0, np.nan])
    with pytest.raises(SourceError, match="can't be read as numbers"):
        numbers_of(pa.array([[1]]))


def test_words_are_letters_and_digits_of_any_script_in_lower_case() -> None:
    bags = bags_of_texts(pa.array(["The BIG wave!", None, "", " - ", "Ünder 2 Meere, naïve"]), "q", 3)
    assert members(bags) == [["the", "big", "wave"], [], [], [], ["ünder", "2", "meere"]]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.string())], ids=str)
def test_lists_of_any_kind_are_sets(kind: pa.DataType) -> None:
    column = pa.array([["sea", "wind", "sea"], None, [], ["sea", None]], kind)
    assert members(bags_of_lists(column, "tags")) == [["sea", "wind", "sea"], [], [], ["sea", None]]
    assert members(bags_of_lists(column.slice(2), "tags")) == [[], ["sea", None]]


def test_some_rows_of_bags_are_bags_too() -> None:
    bags = bags_of_lists(pa.array([["a"], None, ["b", "c"]]), "tags")
    assert members(bags.take(np.array([2, 1]))) == [["b", "c"], []]
    assert members(bags_of_lists(pa.nulls(2), "tags")) == [[], []]


def test_vectors_of_another_length_than_most_are_none() -> None:
    vectors = vectors_of(pa.array([[1.0, 2.0], None, [3.0], [4.0, None], [5.0, 6.0]]), "cover")
    np.testing.assert_array_equal(
        vectors, np.array([[1, 2], [np.nan, np.nan], [np.nan, np.nan], [4, np.nan], [5, 6]], np.float32)
    )
    fixed = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    np.testing.assert_array_equal(vectors_of(fixed, "cover"), np.array([[1, 2], [np.nan, np.nan]], np.float32))
    assert vectors_of(pa.nulls(3), "cover").shape == (3, 0)


@pytest.mark.parametrize(("column", "sentence"), [(pa.array([1.0]), "not vectors"), (pa.array([["a"]]), "no vectors")])
def test_what_is_no_vector_is_said(column: pa.Array, sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence):
        vectors_of(column, "cover")


def test_what_is_no_list_is_no_set() -> None:
    with pytest.raises(SourceError, match="'tags' holds string, not sets; declare it as a list"):
        bags_of_lists(pa.array(["a"]), "tags")
