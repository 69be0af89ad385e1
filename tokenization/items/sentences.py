"""Text → vectors by a sentence-transformers model that the user names, where that package is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from tokenization.arrays import Vectors
from tokenization.errors import UserfmError, first_line

_CHUNK = 4096


class Encoder(Protocol):
    """What turns item texts, and the queries that are to meet them, into vectors."""

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Vectors:
        """[n] texts → [n, w] of length 1; a text that says nothing becomes zeros."""


class SentenceEncoder:
    """A model of sentence-transformers (Reimers & Gurevych, Sentence-BERT, arXiv:1908.10084)."""

    def __init__(self, model: str) -> None:
        """Load a model.

        Args:
            model: a folder that `SentenceTransformer.save` wrote, or a name in its cache; the library may fetch a name
                that is not there, unless HF_HUB_OFFLINE is set.

        Raises:
            UserfmError: the package is not installed, or there is no such model.
        """
        if importlib.util.find_spec("sentence_transformers") is None:
            raise UserfmError(
                f"the text encoder {model!r} needs the package sentence-transformers; "
                "run: pip install sentence-transformers, or leave `encoder` out for WordLlama"
            )
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(model)
        except (OSError, ValueError) as error:
            said = first_line(error)
            raise UserfmError(f"the text encoder {model!r} can't be read: {said}; give a folder with one") from error
        self._width = self._vectors(["a word"]).shape[1]

    def encode(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Vectors:
        """[n] texts → [n, w] float32 of length 1; a text of nothing but spaces becomes zeros.

        Args:
            progress: called with (texts done, texts in all).
        """
        out = np.zeros((len(texts), self._width), np.float32)
        for begin in range(0, len(texts), _CHUNK):
            part = texts[begin : begin + _CHUNK]
            said = [begin + place for place, text in enumerate(part) if text.strip()]
            if said:
                out[said] = self._vectors([texts[place] for place in said])
            if progress:
                progress(begin + len(part), len(texts))
        return out

    def _vectors(self, texts: list[str]) -> Vectors:
        vectors = self._model.encode(texts, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)
