"""Semantic IDs of items: fitted once, on items met before the split, and given to whoever comes later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from tokenization.arrays import Codes, Vectors
from tokenization.codes.vocabulary import ABSENT, FIRST
from tokenization.errors import SourceError, VocabularyError
from tokenization.items.array_files import load_arrays, save_arrays
from tokenization.items.rq_vae import RqVae
from tokenization.items.semantic_ids import Quantizer, ResidualKMeans, distinct_rows, tell_apart
from tokenization.schema.rules import Method, SemanticIdsRule

_KINDS: Mapping[Method, type[ResidualKMeans] | type[RqVae]] = {
    Method.RESIDUAL_KMEANS: ResidualKMeans,
    Method.RQ_VAE: RqVae,
}
_NONE = -1
_FILE = "semantic_ids.arrow"


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """codes: [V, levels] of each item, from 0; -1 where nothing is known of it that could be told in codes."""

    quantizer: Quantizer
    codes: Codes

    @classmethod
    def fit(cls, rule: SemanticIdsRule, vectors: Vectors, seen: int) -> Self:
        """Fit on the first `seen` of the vectors [V, w], each distinct one counting once: items with one text would
        need one code, however many they are. Then give codes to all.

        Raises:
            SourceError: none of the first has a vector other than zero.
        """
        known = vectors[:seen][vectors[:seen].any(axis=1)]
        if not len(known):
            raise SourceError(
                "no item met before the split has text or a vector to fit semantic IDs on; leave `semantic_ids` out"
            )
        quantizer = _KINDS[rule.method].fit(known[distinct_rows(known)], rule.levels, rule.codes)
        return cls(quantizer, _codes(quantizer, vectors))

    def grow(self, vectors: Vectors) -> Self:
        """With more items, of vectors [n, w]; the codes of those before stay, the last one included."""
        return replace(self, codes=np.concatenate([self.codes, _codes(self.quantizer, vectors)]))

    @cached_property
    def last(self) -> Codes:
        """[V] the code that settles collisions: how many items before have the same codes; -1 where there are none."""
        return np.where(self.codes[:, 0] == _NONE, np.int32(_NONE), tell_apart(self.codes))

    @property
    def embedded(self) -> Codes:
        """[V, levels] as the model reads them: 0 absent, 1 unknown, then the codes. The last code is left out: it
        numbers items that content can't tell apart, so the n-th of one have nothing in common with the n-th of
        another."""
        return np.where(self.codes == _NONE, np.int32(ABSENT), self.codes + np.int32(FIRST))

    @property
    def embedded_sizes(self) -> tuple[int, ...]:
        """Number of codes of each level as the model reads them."""
        return tuple(size + FIRST for size in self.quantizer.sizes)

    def save(self, folder: Path) -> None:
        """Write semantic_ids.arrow."""
        save_arrays({"codes": self.codes, **self.quantizer.to_arrays()}, folder / _FILE)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """What `save` wrote; None where there is no such file.

        Raises:
            VocabularyError: the file is damaged.
        """
        if not (folder / _FILE).exists():
            return None
        arrays = load_arrays(folder / _FILE)
        if "codes" not in arrays:
            raise VocabularyError(f"{folder / _FILE} has no codes of items: copy the whole folder again")
        codes = arrays.pop("codes")
        kind = RqVae if any(name.startswith("encoder.") for name in arrays) else ResidualKMeans
        return cls(kind.from_arrays(arrays), codes)


def _codes(quantizer: Quantizer, vectors: Vectors) -> Codes:
    known = vectors.any(axis=1)
    codes = np.full((len(vectors), quantizer.levels), _NONE, np.int32)
    codes[known] = quantizer.encode(vectors[known])
    return codes
