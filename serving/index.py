"""The k nearest vectors of a matrix, exactly.

Shapes: Q queries, N rows, D width. Ties are broken by the lower row, so the same question has the same answer
whatever the block size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from serving.rows import Float32s, Int64s

BLOCK = 65_536
"""Rows scored at a time: bounds the scores held to Q x 65,536 and streams the matrix through the cache once."""


@dataclass(frozen=True)
class Hits:
    """The best rows of one query: `rows_K` int64 and `scores_K` float32, best first."""

    rows_K: Int64s
    scores_K: Float32s


@dataclass(frozen=True)
class Ranking:
    """Items of one answer, best first: canonical `ids` and `scores_K` float32."""

    ids: pa.Array
    scores_K: Float32s


@dataclass(frozen=True)
class ExactIndex:
    """Dot-product search over every row of `vectors_ND`, which may be a mapped file."""

    vectors_ND: Float32s

    def search(self, queries_QD: Float32s, k: int) -> list[Hits]:
        """The `min(k, N)` rows with the largest dot product, for each query."""
        best = [Hits(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(queries_QD)
        for start in range(0, len(self.vectors_ND), BLOCK):
            scores_QN = queries_QD @ self.vectors_ND[start : start + BLOCK].T
            best = [_better(old, top(new, k), start, k) for old, new in zip(best, scores_QN, strict=True)]
        return best


def top(scores_N: Float32s, k: int) -> Hits:
    """The `k` largest scores, best first and the lower row first among equals; rows of −inf are no candidates."""
    candidates = np.flatnonzero(scores_N > -np.inf)
    if k < len(candidates):
        kept_N = scores_N[candidates]
        edge = np.partition(kept_N, len(kept_N) - k)[len(kept_N) - k]
        candidates = candidates[kept_N >= edge]
    order = np.lexsort((candidates, -scores_N[candidates]))[:k]
    return Hits(candidates[order], scores_N[candidates[order]])


def _better(old: Hits, new: Hits, start: int, k: int) -> Hits:
    rows_K = np.concatenate([old.rows_K, new.rows_K + start])
    scores_K = np.concatenate([old.scores_K, new.scores_K])
    order = np.lexsort((rows_K, -scores_K))[:k]
    return Hits(rows_K[order], scores_K[order])
