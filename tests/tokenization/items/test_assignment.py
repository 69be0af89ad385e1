from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tokenization.errors import SourceError, VocabularyError
from tokenization.items import rq_vae
from tokenization.items.array_files import load_arrays, save_arrays
from tokenization.items.assignment import SemanticIds
from tokenization.schema.rules import Method, SemanticIdsRule

RULE = SemanticIdsRule(levels=2, codes=8)


@pytest.fixture(scope="module")
def vectors(clustered: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    rows = clustered[0][:600].copy()
    rows[[0, 1, 40]] = 0
    rows[[50, 60, 70]] = rows[50]
    return rows


@pytest.mark.parametrize("method", Method)
def test_later_items_get_codes_and_change_none(
    method: Method, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rq_vae, "_STEPS", 30)
    rule = SemanticIdsRule(levels=2, codes=8, method=method)
    whole = SemanticIds.fit(rule, vectors, 300)
    first = SemanticIds.fit(rule, vectors[:450], 300)
    grown = first.grow(vectors[450:520]).grow(vectors[520:])
    for found in (whole, grown):
        np.testing.assert_array_equal(found.codes[:450], first.codes)
        np.testing.assert_array_equal(found.last[:450], first.last)
    np.testing.assert_array_equal(whole.codes, grown.codes)
    np.testing.assert_array_equal(whole.last, grown.last)


def test_only_what_was_seen_is_fitted_on(vectors: np.ndarray) -> None:
    one = SemanticIds.fit(RULE, vectors, 300).quantizer.to_arrays()
    changed = vectors.copy()
    changed[300:] *= -5
    other = SemanticIds.fit(RULE, changed, 300).quantizer.to_arrays()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_an_item_is_named_by_its_codes_and_the_last_one(vectors: np.ndarray) -> None:
    found = SemanticIds.fit(RULE, vectors, 600)
    known = found.codes[:, 0] >= 0
    assert np.flatnonzero(~known).tolist() == [0, 1, 40]
    assert len(np.unique(np.c_[found.codes, found.last][known], axis=0)) == known.sum()
    assert (found.last[~known] == -1).all()
    assert found.codes[50].tolist() == found.codes[60].tolist() == found.codes[70].tolist()
    assert found.last[50] < found.last[60] < found.last[70]


def test_the_model_reads_nothing_known_as_absent(vectors: np.ndarray) -> None:
    found = SemanticIds.fit(RULE, vectors, 600)
    assert found.embedded_sizes == (10, 10)
    assert (found.embedded[[0, 1, 40]] == 0).all()
    assert found.embedded[2:40].min() >= 2
    assert found.embedded.max() < 10


@pytest.mark.parametrize("method", Method)
def test_saving_and_loading_changes_nothing(
    method: Method, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rq_vae, "_STEPS", 30)
    found = SemanticIds.fit(SemanticIdsRule(levels=2, codes=8, method=method), vectors, 300)
    assert SemanticIds.load(tmp_path) is None
    found.save(tmp_path)
    loaded = SemanticIds.load(tmp_path)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.codes, found.codes)
    np.testing.assert_array_equal(loaded.quantizer.encode(vectors), found.quantizer.encode(vectors))
    (tmp_path / "semantic_ids.arrow").write_bytes(b"ARROW1 torn")
    with pytest.raises(VocabularyError, match=r"semantic_ids\.arrow holds no arrays"):
        SemanticIds.load(tmp_path)
    save_arrays(found.quantizer.to_arrays(), tmp_path / "semantic_ids.arrow")
    with pytest.raises(VocabularyError, match="has no codes of items: copy the whole folder again"):
        SemanticIds.load(tmp_path)


def test_where_nothing_is_known_of_what_was_seen_there_is_nothing_to_fit_on(vectors: np.ndarray) -> None:
    with pytest.raises(SourceError, match="no item met before the split has text or a vector to fit semantic IDs on"):
        SemanticIds.fit(RULE, vectors, 2)


def test_arrays_of_any_shape_come_back(tmp_path: Path) -> None:
    arrays = {
        "none": np.zeros((0, 3), np.int32),
        "one": np.array(2.5),
        "view": np.arange(12.0, dtype=">f4").reshape(3, 4).T,
        "long": np.array([2**62]),
    }
    save_arrays(arrays, tmp_path / "arrays.arrow")
    loaded = load_arrays(tmp_path / "arrays.arrow")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].shape == array.shape
    with pytest.raises(VocabularyError, match=r"nothing\.arrow holds no arrays"):
        load_arrays(tmp_path / "nothing.arrow")
