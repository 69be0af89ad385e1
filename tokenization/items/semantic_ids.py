"""Semantic IDs: a vector as a few codes, each naming a centroid of what the codes before it left over.

Residual quantisation with k-means a level (Chen et al., 2010, Approximate nearest neighbor search by residual vector
quantization, doi 10.3390/s101211259); as names of items: Rajput et al., TIGER, arXiv:2305.05065.

A vector has the same codes whatever stands beside it and wherever they are computed: vectors and centroids lie on a
grid so coarse that every sum of products is exact in float64, so no order of summation can tip a near tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tokenization.arrays import Codes, Floats, Longs, Vectors
from tokenization.errors import SourceError, VocabularyError
from tokenization.items.grid import Grid, bound_of

Arrays = Mapping[str, NDArray[Any]]
_CHUNK = 16_384
_ITERATIONS = 25
_BRIEFLY = 5
_REVIVALS = 3
_SAMPLE = 256
"""Rows a centroid that k-means looks at; more cost time and move centroids little (faiss's own default)."""


class Quantizer(Protocol):
    """What every way to semantic IDs does: `ResidualKMeans` here, `RqVae` in `rq_vae`."""

    @property
    def levels(self) -> int:
        """Codes a vector is told in."""

    @property
    def width(self) -> int:
        """w, the number of components of a vector."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each level."""

    def encode(self, vectors: NDArray[Any]) -> Codes:
        """Vectors [n, w] → codes [n, levels], from 0; of a vector the same whatever stands beside it."""

    def decode(self, codes: Codes) -> Vectors:
        """Codes [n, any number of first levels] → the vectors [n, w] that they name."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Named arrays that hold all of it."""


@dataclass(frozen=True, eq=False)
class ResidualKMeans:
    """Centroids of every level; a vector is the sum of one of each.

    codebooks: [k, w] float32 of each level, k at most the `codes` asked for: fewer where fewer vectors differ.
    bound: a power of two; a component beyond it is read as the bound.
    """

    codebooks: tuple[Vectors, ...]
    bound: float

    @classmethod
    def fit(cls, vectors: NDArray[Any], levels: int, codes: int, seed: int = 0) -> Self:
        """Cluster vectors [n, w] with `codes` centroids, what that leaves over again, and so on.

        Equal rows count as often as they are there; the order of rows has no influence. Without any row, each level
        has one centroid, zero. A centroid that no row is nearest to moves to the row that is told worst.

        Raises:
            SourceError: the vectors are no matrix, or hold NaN or infinity.
            ValueError: levels or codes below 1.
        """
        if levels < 1 or codes < 1:
            raise ValueError(f"{levels} levels of {codes} codes make no semantic ID; take at least 1 of each")
        checked = checked_matrix(vectors)
        grid = _grid(bound_of(checked), checked.shape[1], levels)
        rest, weight = _distinct(checked, grid, _SAMPLE * codes, seed)
        codebooks = []
        for level in range(levels):
            centroids = _centroids(rest, weight, codes, grid, seed + level)
            codebooks.append(grid.values(centroids))
            rest = rest - centroids[_nearest(rest, centroids)[0]]
        return cls(tuple(codebooks), grid.bound)

    @classmethod
    def revived(cls, codebooks: Sequence[NDArray[Any]], vectors: NDArray[Any]) -> Self:
        """Centroids that were learned otherwise; those that none of the vectors [n, w] is nearest to move, level by
        level, to what is told worst."""
        grid = _grid(max(bound_of(vectors), *map(bound_of, codebooks)), vectors.shape[1], len(codebooks))
        rest, moved = grid.units(vectors), []
        for codebook in codebooks:
            centroids = revive(rest, grid.units(codebook))
            moved.append(grid.values(centroids))
            rest = rest - centroids[_nearest(rest, centroids)[0]]
        return cls(tuple(moved), grid.bound)

    @property
    def levels(self) -> int:
        """Codes a vector is told in."""
        return len(self.codebooks)

    @property
    def width(self) -> int:
        """w, the number of components of a vector."""
        return int(self.codebooks[0].shape[1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Centroids of each level."""
        return tuple(map(len, self.codebooks))

    def encode(self, vectors: NDArray[Any]) -> Codes:
        """Vectors [n, w] → codes [n, levels], from 0: level by level the nearest centroid, the first of several.

        Raises:
            SourceError: the vectors are no matrix, of another width, or hold NaN or infinity.
        """
        checked = checked_matrix(vectors, self.width)
        out = np.empty((len(checked), self.levels), np.int32)
        for begin in range(0, len(checked), _CHUNK):
            rest = self._grid.units(checked[begin : begin + _CHUNK])
            for level, centroids in enumerate(self._units):
                code = _nearest(rest, centroids)[0]
                out[begin : begin + _CHUNK, level] = code
                rest = rest - centroids[code]
        return out

    def decode(self, codes: Codes) -> Vectors:
        """Codes [n, any number of first levels] → the vectors [n, w] that they name.

        Raises:
            VocabularyError: more levels than there are, or a code that its level does not have.
        """
        given = codes.shape[1] if codes.ndim == 2 else 0
        if codes.ndim != 2 or given > self.levels:
            raise VocabularyError(f"codes of shape {codes.shape} are not [n, at most {self.levels}]; give one a level")
        total = np.zeros((len(codes), self.width))
        for level, centroids in enumerate(self.codebooks[:given]):
            code = codes[:, level]
            if len(code) and not (code.min() >= 0 and code.max() < len(centroids)):
                raise VocabularyError(f"level {level} has codes 0 to {len(centroids) - 1}, not {_stray(code)}")
            total += centroids[code]
        return total.astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Named arrays that `from_arrays` takes."""
        books = {f"codebook.{level}": centroids for level, centroids in enumerate(self.codebooks)}
        return {"bound": np.array([self.bound]), **books}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `to_arrays` gave.

        Raises:
            VocabularyError: an array is missing.
        """
        levels = sum(name.startswith("codebook.") for name in arrays)
        names = [f"codebook.{level}" for level in range(levels)]
        if not names or any(name not in arrays for name in ("bound", *names)):
            raise VocabularyError("these arrays are no codebooks: take what to_arrays gave, whole")
        return cls(tuple(np.asarray(arrays[name], np.float32) for name in names), float(arrays["bound"][0]))

    @cached_property
    def _grid(self) -> Grid:
        return _grid(self.bound, self.width, self.levels)

    @cached_property
    def _units(self) -> tuple[Floats, ...]:
        return tuple(self._grid.units(centroids) for centroids in self.codebooks)


def _grid(bound: float, width: int, levels: int) -> Grid:
    # A distance is |c|² − 2 r·c: components of r reach levels + 1 bounds, those of c one.
    return Grid.for_sums(bound, width * (2 * levels + 3))


def _stray(code: Codes) -> int:
    return int(code.max() if code.min() >= 0 else code.min())


def checked_matrix(vectors: NDArray[Any], width: int | None = None) -> NDArray[Any]:
    """[n, w] floats.

    Raises:
        SourceError: no matrix of numbers, another width than asked for, or NaN or infinity in it.
    """
    if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype.kind not in "fiu":
        raise SourceError(f"{vectors.dtype} of shape {vectors.shape} is no matrix of vectors; give floats [n, width]")
    if width is not None and vectors.shape[1] != width:
        raise SourceError(f"vectors of width {vectors.shape[1]} have no codes here; give the width {width} of the fit")
    checked = vectors if vectors.dtype.kind == "f" else vectors.astype(np.float64)
    if not np.isfinite(checked).all():
        row = int(np.flatnonzero(~np.isfinite(checked).all(axis=1))[0])
        raise SourceError(f"row {row} of the vectors holds NaN or infinity; leave such rows out, or fill them")
    return checked


def tell_apart(codes: NDArray[Any]) -> Codes:
    """[n, levels] → [n]: 0 for the first row with its codes, 1 for the second, ...; rows after it change no row's."""
    if not len(codes):
        return np.zeros(0, np.int32)
    order = np.lexsort(codes.T[::-1])
    ordered = codes[order]
    first = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    start = np.flatnonzero(first)
    rank = np.arange(len(codes)) - np.repeat(start, np.diff(np.r_[start, len(codes)]))
    out = np.empty(len(codes), np.int32)
    out[order] = rank
    return out


def plain_clusters(vectors: NDArray[Any], number: int, seed: int = 0) -> Longs:
    """[n] the cluster of each vector [n, w] among at most `number`, by k-means in one step: to judge codes by."""
    checked = checked_matrix(vectors)
    grid = _grid(bound_of(checked), checked.shape[1], 1)
    rows, weight = _distinct(checked, grid, _SAMPLE * number, seed)
    if len(rows) > number:
        rows = _clustered(rows, weight, number, grid, seed, None, _BRIEFLY)
    return _nearest(grid.units(checked), rows)[0]


def _distinct(vectors: NDArray[Any], grid: Grid, most: int, seed: int) -> tuple[Floats, Floats]:
    """Rows [d, w] that differ, on the grid and in an order of their own, and how often each is there [d]. Of more
    than `most`, a random part."""
    parts = [grid.units(vectors[i : i + _CHUNK]).astype(np.float32) for i in range(0, len(vectors), _CHUNK)]
    rows = np.concatenate([np.zeros((0, vectors.shape[1]), np.float32), *parts])
    _, first, count = np.unique(_keys(rows), return_index=True, return_counts=True)
    if len(first) > most:
        kept = np.sort(np.random.default_rng(seed).choice(len(first), most, replace=False))
        first, count = first[kept], count[kept]
    return rows[first].astype(np.float64), count.astype(np.float64)


def distinct_rows(vectors: NDArray[Any]) -> Longs:
    """Rows of vectors [n, w] of which no earlier one is the same, in order."""
    if not len(vectors):
        return np.zeros(0, np.int64)
    first: Longs = np.unique(_keys(vectors), return_index=True)[1]
    return np.sort(first)


def _keys(rows: NDArray[Any]) -> NDArray[Any]:
    """[n] the bytes of each row; equal where the rows are, since the grid has no -0."""
    contiguous = np.ascontiguousarray(rows)
    return contiguous.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).reshape(-1)


def _nearest(rows: Floats, centroids: Floats) -> tuple[Longs, Floats]:
    """[n] the nearest centroid of each row, the first of several, and the squared distance to it; all exact."""
    code = np.empty(len(rows), np.int64)
    least = np.empty(len(rows))
    square = (centroids**2).sum(axis=1)
    for begin in range(0, len(rows), _CHUNK):
        part = rows[begin : begin + _CHUNK]
        distance = square - 2 * (part @ centroids.T)
        code[begin : begin + _CHUNK] = best = distance.argmin(axis=1)
        least[begin : begin + _CHUNK] = distance[np.arange(len(part)), best] + (part**2).sum(axis=1)
    return code, least


def _centroids(rows: Floats, weight: Floats, codes: int, grid: Grid, seed: int) -> Floats:
    """At most `codes` centroids [k, w] of rows [d, w], on the grid: of two starts the one that leaves less over.

    From random rows, what is left of wide vectors ends in one great cluster: such rows are nearly orthogonal, and of
    many orthogonal points the shortest is nearest to most. From splits it does not, but is a little worse elsewhere.
    """
    if not len(rows):
        return np.zeros((1, rows.shape[1]))
    _, first = np.unique(_keys(rows), return_index=True)
    if len(first) <= codes:
        return rows[first]
    randomly = _clustered(rows, weight, codes, grid, seed, None, _ITERATIONS)
    found = [_revived(rows, weight, start, grid, seed) for start in (randomly, _split(rows, weight, codes, grid, seed))]
    return min(found, key=lambda centroids: float(weight @ _nearest(rows, centroids)[1]))


def _split(rows: Floats, weight: Floats, codes: int, grid: Grid, seed: int) -> Floats:
    """Centroids by halving those with the most error until there are enough (Linde, Buzo & Gray, 1980, An algorithm
    for vector quantizer design, doi 10.1109/TCOM.1980.1094577)."""
    draw = np.random.default_rng(seed)
    centroids = np.average(rows, axis=0, weights=weight)[None]
    while len(centroids) < codes:
        code, distance = _nearest(rows, centroids)
        mass = np.bincount(code, weights=weight, minlength=len(centroids))
        error = np.bincount(code, weights=weight * distance, minlength=len(centroids))
        worst = np.argsort(-error, kind="stable")[: codes - len(centroids)]
        apart = 0.5 * np.sqrt(error[worst] / np.maximum(mass[worst], 1) / rows.shape[1])
        step = draw.normal(size=(len(worst), rows.shape[1])) * apart[:, None]
        doubled = np.concatenate([centroids, centroids[worst] + step])
        doubled[worst] -= step
        iterations = _BRIEFLY if len(doubled) < codes else _ITERATIONS
        centroids = _clustered(rows, weight, len(doubled), grid, seed, doubled, iterations)
    return centroids


def _revived(rows: Floats, weight: Floats, centroids: Floats, grid: Grid, seed: int) -> Floats:
    for _ in range(_REVIVALS):
        alive = revive(rows, centroids)
        if alive is centroids:
            return centroids
        centroids = _clustered(rows, weight, len(alive), grid, seed, alive, _BRIEFLY)
    return revive(rows, centroids)


def revive(rows: Floats, centroids: Floats) -> Floats:
    """The centroids, each that no row is nearest to moved to another of the rows that are farthest from theirs; the
    very same where none is. A move may leave another centroid without rows, hence the turns."""
    for _ in range(_REVIVALS):
        code, distance = _nearest(rows, centroids)
        dead = np.flatnonzero(np.bincount(code, minlength=len(centroids)) == 0)
        if not len(dead):
            break
        farthest = np.argsort(-distance, kind="stable")
        _, first = np.unique(_keys(rows[farthest]), return_index=True)
        chosen = farthest[np.sort(first)][: len(dead)]
        centroids = centroids.copy()
        centroids[dead[: len(chosen)]] = rows[chosen]
    return centroids


def _clustered(
    rows: Floats, weight: Floats, codes: int, grid: Grid, seed: int, start: Floats | None, iterations: int
) -> Floats:
    """faiss's k-means, from random rows or from `start`."""
    import faiss

    scale = grid.bound / grid.step
    clustering = faiss.Kmeans(
        rows.shape[1],
        codes,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_SAMPLE,
    )
    initial = None if start is None else (start / scale).astype(np.float32)
    clustering.train(
        np.ascontiguousarray(rows / scale, np.float32), weights=weight.astype(np.float32), init_centroids=initial
    )
    centroids = np.asarray(clustering.centroids, np.float64)
    return np.clip(np.rint(centroids * scale), -scale, scale) + 0.0
