from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tokenization.errors import SourceError, VocabularyError
from tokenization.items import rq_vae
from tokenization.items.rq_vae import RqVae
from tokenization.items.semantic_ids import Quantizer, ResidualKMeans

pytest.importorskip("vector_quantize_pytorch", reason="pip install 'userfm[model]'")


@pytest.fixture(scope="module", autouse=True)
def brief() -> object:
    """Fewer steps than a catalogue is given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rq_vae, "_STEPS", 120)
        yield


@pytest.fixture(scope="module")
def vectors(clustered: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return clustered[0]


@pytest.fixture(scope="module")
def fitted(brief: object, vectors: np.ndarray) -> RqVae:
    return RqVae.fit(vectors, 2, 16)


def test_codes_name_most_of_a_vector(vectors: np.ndarray, fitted: RqVae) -> None:
    quantizer: Quantizer = fitted
    codes = quantizer.encode(vectors)
    assert (quantizer.levels, quantizer.width, quantizer.sizes) == (2, 12, (16, 16))
    assert codes.shape == (2000, 2)
    left = [((vectors - fitted.decode(codes[:, :levels])) ** 2).sum() / (vectors**2).sum() for levels in (1, 2)]
    assert left[1] < left[0] < 0.3


def test_first_codes_name_the_clusters(fitted: RqVae, clustered: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, shelf = clustered
    first = fitted.encode(vectors)[:, 0]
    alike = np.mean([np.bincount(shelf[first == code]).max() / (first == code).sum() for code in np.unique(first)])
    assert alike > 0.7


def test_a_vector_has_its_codes_whatever_stands_beside_it(vectors: np.ndarray, fitted: RqVae) -> None:
    together = fitted.encode(vectors)
    for size in (1, 7, 500):
        apart = np.concatenate([fitted.encode(vectors[i : i + size]) for i in range(0, 2000, size)])
        np.testing.assert_array_equal(apart, together)


def test_a_seed_gives_one_result_and_leaves_the_callers_random_numbers_alone(
    vectors: np.ndarray, fitted: RqVae
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    again = RqVae.fit(vectors, 2, 16)
    assert torch.rand(1) == expected
    for name, array in again.to_arrays().items():
        np.testing.assert_array_equal(array, fitted.to_arrays()[name])


def test_every_code_is_in_use(vectors: np.ndarray, fitted: RqVae) -> None:
    assert [len(np.unique(code)) for code in fitted.encode(vectors).T] == [16, 16]


def test_codebooks_that_collapsed_are_revived(vectors: np.ndarray) -> None:
    collapsed = [np.full((16, 12), 9e3, np.float32), np.full((16, 12), -9e3, np.float32)]
    revived = ResidualKMeans.revived(collapsed, vectors)
    assert [len(np.unique(code)) for code in revived.encode(vectors).T] == [16, 16]


def test_arrays_hold_all_of_it_and_reading_them_needs_no_torch(
    vectors: np.ndarray, fitted: RqVae, tmp_path: Path
) -> None:
    np.savez(tmp_path / "in.npz", **fitted.to_arrays())
    np.save(tmp_path / "vectors.npy", vectors)
    script = (
        "import sys, numpy as np\n"
        "from tokenization.items.rq_vae import RqVae\n"
        "path = sys.argv[1]\n"
        "loaded = RqVae.from_arrays(np.load(path + '/in.npz'))\n"
        "np.save(path + '/codes.npy', loaded.encode(np.load(path + '/vectors.npy')))\n"
        "assert 'torch' not in sys.modules and 'faiss' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=Path(__file__).parents[3])
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), fitted.encode(vectors))
    partly = {name: array for name, array in fitted.to_arrays().items() if name != "decoder.1.bias"}
    with pytest.raises(VocabularyError, match=r"these arrays lack 'decoder.1.bias': take what to_arrays gave, whole"):
        RqVae.from_arrays(partly)


def test_few_vectors_and_none(brief: object) -> None:
    few = np.array([[1, 2], [3, -4], [1, 2], [0, 0]], np.float32)
    codes = RqVae.fit(few, 2, 8).encode(few)
    assert codes[0].tolist() == codes[2].tolist()
    assert RqVae.fit(few[:0], 2, 8).encode(few).shape == (4, 2)
    assert np.isfinite(RqVae.fit(np.zeros((5, 3)), 1, 4).encode(np.zeros((5, 3)))).all()


def test_what_is_no_matrix_of_numbers_is_refused(fitted: RqVae) -> None:
    with pytest.raises(SourceError, match="row 0 of the vectors holds NaN"):
        RqVae.fit(np.full((1, 2), np.nan), 1, 2)
    with pytest.raises(SourceError, match="vectors of width 5 have no codes here; give the width 12 of the fit"):
        fitted.encode(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="1 levels of 0 codes make no semantic ID"):
        RqVae.fit(np.zeros((3, 5)), 1, 0)
