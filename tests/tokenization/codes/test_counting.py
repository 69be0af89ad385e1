from __future__ import annotations

from functools import reduce
from operator import or_

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tokenization.codes import counting
from tokenization.codes.counting import Moments, Sample, Seen, Tally
from tokenization.errors import SourceError
from tokenization.ids import Ids

moments = arrays(np.float64, st.integers(0, 40), elements=st.floats(-1e10, 1e10) | st.integers(0, 50).map(float))


@given(st.lists(moments, min_size=1, max_size=4), st.permutations(range(4)), st.integers(1, 20))
def test_moments_of_parts_join_to_those_of_the_whole_however_few_cells_there_may_be(
    parts: list[np.ndarray], order: list[int], cells: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_CELLS", cells)
        joined = reduce(or_, (Moments.of(parts[number]) for number in order if number < len(parts)))
        whole = Moments.of(np.concatenate(parts))
    assert (joined.level, joined.last) == (whole.level, whole.last)
    np.testing.assert_array_equal(joined.first, whole.first)
    np.testing.assert_array_equal(joined.counts, whole.counts)
    assert len(whole.first) <= cells
    assert whole.counts.sum() == sum(map(len, parts))


def test_a_stamp_that_is_far_from_all_others_widens_no_cell() -> None:
    year = np.linspace(1.7e9, 1.7e9 + 365 * 86_400, 200_000)
    assert Moments.of(np.append(0.0, year)).level == Moments.of(year).level == 9


ids = st.lists(st.tuples(st.sampled_from([None, "a", "b", "7"]), st.floats(0, 9)), max_size=12)


@given(ids, ids)
def test_counts_of_parts_join_to_the_counts_of_the_whole(left: list, right: list) -> None:  # type: ignore[type-arg]
    def seen(rows: list) -> Seen:  # type: ignore[type-arg]
        return Seen.of(Ids.of(pa.array([i for i, _ in rows], pa.string()), "id"), np.array([t for _, t in rows]))

    joined, whole = seen(left) | seen(right), seen(left + right)
    assert joined.ids.to_pylist() == whole.ids.to_pylist()
    assert joined.counts.tolist() == whole.counts.tolist()
    assert joined.first.tolist() == whole.first.tolist()


def test_numbers_and_texts_join_as_texts() -> None:
    parts = [Seen.of(Ids.of(pa.array(column), "id"), np.zeros(2)) for column in ([7, 8], ["7", "x"])]
    joined = parts[0] | parts[1]
    assert dict(zip(joined.ids.to_pylist(), joined.counts.tolist(), strict=True)) == {"7": 2, "8": 1, "x": 1}


@pytest.mark.parametrize("exact", [2, 1000])
@given(st.lists(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=8), min_size=1, max_size=4))
@settings(max_examples=40)
def test_tallies_join_in_any_order_also_where_there_are_too_many_values(exact: int, parts: list[list[float]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_EXACT", exact)
        tallies = [Tally.of(np.array(part, np.float64)) for part in parts]
        forth, back = tallies[0], tallies[-1]
        for tally in tallies[1:]:
            forth = forth | tally
        for tally in tallies[-2::-1]:
            back = back | tally
        whole = Tally.of(np.concatenate([np.array(part, np.float64) for part in parts]))
    for found in (forth, back):
        assert found.values.tolist() == whole.values.tolist()
        assert found.counts.tolist() == whole.counts.tolist()


def test_rounded_numbers_never_grow_and_stay_near() -> None:
    values = np.random.default_rng(0).normal(size=1000) * 1e3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_EXACT", 10)
        rounded = Tally.of(values).values
    nearest = rounded[np.searchsorted(rounded, values, side="right") - 1]
    assert (nearest <= values).all()
    assert (values - nearest <= np.abs(values) / 2048).all()


vectors = arrays(np.float32, st.tuples(st.integers(0, 6), st.just(3)), elements=st.floats(-8, 8, width=32))


@given(vectors, vectors)
def test_samples_join_in_any_order(left: np.ndarray, right: np.ndarray) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_SAMPLED", 4)
        both = [Sample.of(left) | Sample.of(right), Sample.of(right) | Sample.of(left)]
        whole = Sample.of(np.concatenate([left, right]))
    for found in both:
        np.testing.assert_array_equal(found.vectors, whole.vectors)
    assert len(whole.vectors) <= 4


def test_vectors_of_two_lengths_do_not_join() -> None:
    with pytest.raises(SourceError, match="vectors of length 2 and 3; write one length"):
        Sample.of(np.zeros((1, 2), np.float32)) | Sample.of(np.zeros((1, 3), np.float32))
