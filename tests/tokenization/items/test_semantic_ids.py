from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tokenization.errors import SourceError, VocabularyError
from tokenization.items.semantic_ids import ResidualKMeans, revive, tell_apart


@pytest.fixture(scope="module")
def vectors(clustered: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return clustered[0]


@pytest.fixture(scope="module")
def fitted(vectors: np.ndarray) -> ResidualKMeans:
    return ResidualKMeans.fit(vectors, 3, 16)


def test_every_level_leaves_less_over(vectors: np.ndarray, fitted: ResidualKMeans) -> None:
    codes = fitted.encode(vectors)
    assert codes.dtype == np.int32
    assert codes.shape == (2000, 3)
    left = [((vectors - fitted.decode(codes[:, :levels])) ** 2).sum() for levels in (0, 1, 2, 3)]
    assert left[1] < 0.1 * left[0]
    assert left[3] < left[2] < left[1]


def test_a_code_is_the_nearest_centroid_of_what_is_left(vectors: np.ndarray, fitted: ResidualKMeans) -> None:
    rest = vectors.astype(np.float64)
    for level, code in enumerate(fitted.encode(vectors).T):
        far = np.linalg.norm(rest[:, None] - fitted.codebooks[level], axis=2)
        np.testing.assert_allclose(far[np.arange(len(rest)), code], far.min(axis=1), atol=1e-4)
        rest = rest - fitted.codebooks[level][code]


def test_first_codes_name_the_clusters(fitted: ResidualKMeans, clustered: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, shelf = clustered
    first = fitted.encode(vectors)[:, 0]
    alike = np.mean([np.bincount(shelf[first == code]).max() / (first == code).sum() for code in np.unique(first)])
    assert alike > 0.8  # of 16 shelves


def test_a_seed_gives_one_result_whatever_the_order_of_rows(vectors: np.ndarray, fitted: ResidualKMeans) -> None:
    again = ResidualKMeans.fit(vectors[::-1], 3, 16)
    other = ResidualKMeans.fit(vectors, 3, 16, seed=7)
    for one, same in zip(fitted.codebooks, again.codebooks, strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(fitted.codebooks[0], other.codebooks[0])


def test_another_process_gives_the_same_result(vectors: np.ndarray, fitted: ResidualKMeans, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    script = (
        "import sys, numpy as np; from tokenization.items.semantic_ids import ResidualKMeans\n"
        "path = sys.argv[1]\n"
        "np.savez(path + '/out.npz', **ResidualKMeans.fit(np.load(path + '/vectors.npy'), 3, 16).to_arrays())"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=Path(__file__).parents[3])
    with np.load(tmp_path / "out.npz") as there:
        for name, array in fitted.to_arrays().items():
            np.testing.assert_array_equal(there[name], array)


@settings(deadline=None, max_examples=40)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 40), st.integers(1, 5)),
        elements=st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, width=32)),
    ),
    st.integers(1, 4),
    st.integers(1, 9),
)
def test_any_vectors_have_codes_that_do_not_depend_on_their_neighbours(
    vectors: np.ndarray, levels: int, codes: int
) -> None:
    fitted = ResidualKMeans.fit(vectors, levels, codes)
    together = fitted.encode(vectors)
    assert max(fitted.sizes) <= codes
    assert (together >= 0).all()
    assert (together < np.array(fitted.sizes)).all()
    for row in range(len(vectors)):
        np.testing.assert_array_equal(fitted.encode(vectors[row : row + 1])[0], together[row])
    assert fitted.decode(together).shape == vectors.shape


def test_what_stands_beside_a_vector_in_a_wide_matrix_does_not_matter() -> None:
    vectors = np.random.default_rng(3).normal(size=(700, 256)).astype(np.float32)
    fitted = ResidualKMeans.fit(vectors[:300], 2, 32)
    together = fitted.encode(vectors)
    for size in (1, 3, 64):
        apart = np.concatenate([fitted.encode(vectors[i : i + size]) for i in range(0, 700, size)])
        np.testing.assert_array_equal(apart, together)


def test_few_vectors_are_told_exactly_and_none_by_zero() -> None:
    few = np.array([[1, 2], [3, -4], [1, 2], [0, 0]], np.float32)
    fitted = ResidualKMeans.fit(few, 2, 8)
    assert fitted.sizes == (3, 1)
    np.testing.assert_array_equal(fitted.decode(fitted.encode(few)), few)
    nothing = ResidualKMeans.fit(few[:0], 2, 8)
    assert nothing.sizes == (1, 1)
    assert nothing.encode(few).tolist() == [[0, 0]] * 4


def test_an_outlier_does_not_blur_the_others(vectors: np.ndarray) -> None:
    wild = vectors.copy()
    wild[5] *= 1e12
    fitted = ResidualKMeans.fit(wild, 3, 16)
    others = np.delete(np.arange(2000), 5)
    left = ((vectors - fitted.decode(fitted.encode(wild))) ** 2)[others].sum() / (vectors[others] ** 2).sum()
    assert left < 0.05


def test_every_centroid_is_in_use_even_where_most_rows_are_alike() -> None:
    draw = np.random.default_rng(0)
    alike = np.repeat(draw.normal(size=(3, 6)), 500, axis=0) + 1e-3 * draw.normal(size=(1500, 6))
    rows = np.concatenate([alike, 100 * draw.normal(size=(40, 6))]).astype(np.float32)
    fitted = ResidualKMeans.fit(rows, 2, 32)
    used = [len(np.unique(code)) for code in fitted.encode(rows).T]
    assert used == [32, 32]


def test_a_dead_centroid_moves_to_the_row_told_worst() -> None:
    rows = np.array([[0.0, 0], [1, 0], [0, 9], [0, 9]])
    centroids = np.array([[0.0, 0], [500, 500], [-500, 500]])
    np.testing.assert_array_equal(revive(rows, centroids), [[0, 0], [0, 9], [1, 0]])
    only = rows[:1]  # no other row is there to move to
    assert set(np.unique(revive(only, centroids[1:]), axis=0)[:, 0]) == {0.0}


def test_arrays_hold_all_of_it(vectors: np.ndarray, fitted: ResidualKMeans) -> None:
    loaded = ResidualKMeans.from_arrays(fitted.to_arrays())
    np.testing.assert_array_equal(loaded.encode(vectors), fitted.encode(vectors))
    partly = {name: array for name, array in fitted.to_arrays().items() if name != "codebook.1"}
    with pytest.raises(VocabularyError, match="these arrays are no codebooks: take what to_arrays gave, whole"):
        ResidualKMeans.from_arrays(partly)


def test_the_collision_code_counts_and_growth_changes_none() -> None:
    codes = np.array([[1, 2], [0, 5], [1, 2], [1, 2], [0, 5], [2, 1]])
    assert tell_apart(codes).tolist() == [0, 0, 1, 2, 1, 0]
    draw = np.random.default_rng(0).integers(0, 4, (500, 3))
    whole = tell_apart(draw)
    np.testing.assert_array_equal(tell_apart(draw[:321]), whole[:321])
    assert len(np.unique(np.c_[draw, whole], axis=0)) == 500
    assert tell_apart(codes[:0]).tolist() == []


def test_what_is_no_matrix_of_numbers_is_refused(fitted: ResidualKMeans) -> None:
    bad = np.zeros((3, 12), np.float32)
    bad[1, 4] = np.nan
    with pytest.raises(SourceError, match="row 1 of the vectors holds NaN or infinity; leave such rows out"):
        fitted.encode(bad)
    with pytest.raises(SourceError, match="row 1 of the vectors holds NaN"):
        ResidualKMeans.fit(bad, 2, 2)
    with pytest.raises(SourceError, match="vectors of width 5 have no codes here; give the width 12 of the fit"):
        fitted.encode(np.zeros((3, 5)))
    with pytest.raises(SourceError, match=r"float64 of shape \(3,\) is no matrix of vectors"):
        ResidualKMeans.fit(np.zeros(3), 2, 2)
    with pytest.raises(ValueError, match="0 levels of 4 codes make no semantic ID"):
        ResidualKMeans.fit(bad[:1], 0, 4)
    with pytest.raises(VocabularyError, match="level 0 has codes 0 to 15, not 16"):
        fitted.decode(np.array([[16, 0, 0]], np.int32))
    with pytest.raises(VocabularyError, match=r"codes of shape \(1, 4\) are not \[n, at most 3\]"):
        fitted.decode(np.zeros((1, 4), np.int32))
