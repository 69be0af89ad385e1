from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tokenization.errors import UserfmError
from tokenization.items.content import encoder_of
from tokenization.items.sentences import SentenceEncoder

installed = importlib.util.find_spec("sentence_transformers") is not None


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A small model on disk, as `SentenceTransformer.save` writes it: WordLlama's pieces with random vectors."""
    library = pytest.importorskip("sentence_transformers", reason="run: pip install sentence-transformers")
    parts = pytest.importorskip("sentence_transformers.sentence_transformer.modules", reason="it is too old")
    from tokenizers import Tokenizer

    home = Path(importlib.util.find_spec("wordllama").submodule_search_locations[0])  # type: ignore[union-attr, index]
    pieces = Tokenizer.from_file(str(home / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    weights = np.random.default_rng(0).normal(size=(pieces.get_vocab_size(), 8)).astype(np.float32)
    module = parts.StaticEmbedding(pieces, embedding_weights=weights)
    library.SentenceTransformer(modules=[module], device="cpu").save(str(tmp_path / "model"))
    return str(tmp_path / "model")


def test_a_model_from_disk_gives_vectors_of_length_one(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoder = encoder_of(model)
    assert isinstance(encoder, SentenceEncoder)
    told: list[tuple[int, int]] = []
    vectors = encoder.encode(["green tea", " ", "ski wax", "green tea"], lambda done, total: told.append((done, total)))
    assert vectors.shape == (4, 8)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1, 1], atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-6)
    assert told == [(4, 4)]


def test_a_folder_without_a_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers", reason="run: pip install sentence-transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserfmError, match=r"the text encoder '.*nothing' can't be read: .*; give a folder with one"):
        SentenceEncoder(str(tmp_path / "nothing"))


@pytest.mark.skipif(installed, reason="sentence-transformers is installed")
def test_without_the_package_the_mend_is_told() -> None:
    with pytest.raises(UserfmError, match="'some/model' needs the package sentence-transformers; run: pip install"):
        encoder_of("some/model")
