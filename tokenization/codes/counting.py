"""Counts of a part of a log that join exactly: however a log is cut, the whole is the same to the last bit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenization.arrays import Floats, Longs, Mask, Vectors
from tokenization.errors import SourceError
from tokenization.hashing import mixed
from tokenization.ids import Ids

CODES_OF_A_VECTOR = 256
"""Centroids a level of a vector facet."""
_SAMPLED = 2**16
"""Vectors that centroids are fitted on."""
_CELLS = 2**16
"""So many stretches of time are told apart, which in a year are nine minutes each."""
_NARROWEST = -20
"""Cells of a microsecond."""
_EXACT = 2**20
"""So many distinct values of a number are told apart; of more, those that agree in their first 12 bits are one."""


@dataclass(frozen=True, eq=False)
class Moments:
    """When n events took effect, in d cells of time: first [d] moment in each, in their order, counts [d] of events.

    Cells are 2**level seconds wide (or positions), as narrow as keeps them few: a stamp that is far from all others
    takes a cell and widens none. last: of all moments; -inf where there is none.
    """

    first: Floats
    counts: Longs
    level: int
    last: float

    @classmethod
    def of(cls, times: Floats) -> Moments:
        """Of times [n]."""
        return _few(np.sort(times), np.ones(len(times), np.int64), _NARROWEST)

    def __or__(self, other: Moments) -> Moments:
        """Both together."""
        first = np.append(self.first, other.first)
        order = np.argsort(first, kind="stable")
        level = max(self.level, other.level)
        both = _few(first[order], np.append(self.counts, other.counts)[order], level)
        return replace(both, last=max(self.last, other.last))


def _few(first: Floats, counts: Longs, level: int) -> Moments:
    """Of moments in their order. The cells of a level are halves of those of the next, and a part has no more of them
    than the whole: so the whole is at one level, however it is cut."""
    step = 1
    lowest = level
    while len(_begins(first, level)) > _CELLS:
        lowest, level, step = level + 1, level + step, 2 * step
    while lowest < level:
        middle = (lowest + level) // 2
        if len(_begins(first, middle)) > _CELLS:
            lowest = middle + 1
        else:
            level = middle
    begins = _begins(first, level)
    last = float(first[-1]) if len(first) else -math.inf
    return Moments(first[begins], np.add.reduceat(counts, begins) if len(begins) else counts, level, last)


def _begins(first: Floats, level: int) -> Longs:
    """Where cells of a level begin among moments in their order."""
    cell = np.floor(np.ldexp(first, -level))
    return np.flatnonzero(np.append(np.ones(min(len(cell), 1), np.bool_), cell[1:] != cell[:-1]))


@dataclass(frozen=True, eq=False)
class Seen:
    """d distinct ids, in their order: counts [d] of events, first [d] times they were seen at."""

    ids: pa.Array
    counts: Longs
    first: Floats

    @classmethod
    def of(cls, column: Ids, times: Floats) -> Seen:
        """From a column of ids [n] and the times [n] they were seen at; the order of the rows has no influence."""
        ids, place = column.rank()
        seen = place >= 0
        counts = np.bincount(place[seen], minlength=len(ids)).astype(np.int64)
        first = np.full(len(ids), np.inf)
        np.minimum.at(first, place[seen], times[seen])
        return cls(ids, counts, first)

    @classmethod
    def joined(cls, ids: pa.Array, counts: Longs, first: Floats) -> Seen:
        """Of ids [n] that may be there several times: counts are summed, of the times the first one is kept."""
        distinct, place = Ids.of(ids, "id").rank()
        given = place >= 0
        summed = np.zeros(len(distinct), np.int64)
        np.add.at(summed, place[given], counts[given])
        earliest = np.full(len(distinct), np.inf)
        np.minimum.at(earliest, place[given], first[given])
        return cls(distinct, summed, earliest)

    @classmethod
    def nothing(cls) -> Seen:
        """No id at all."""
        return cls(pa.array([], pa.string()), np.zeros(0, np.int64), np.zeros(0))

    def __len__(self) -> int:
        return len(self.ids)

    def __or__(self, other: Seen) -> Seen:
        """Both together. Where one has numbers and the other text, the ids are text."""
        if len(self) == 0 or len(other) == 0:
            return other if len(self) == 0 else self
        kind = self.ids.type if self.ids.type == other.ids.type else pa.string()
        ids = pa.concat_arrays([self.ids.cast(kind), other.ids.cast(kind)])
        return Seen.joined(ids, np.append(self.counts, other.counts), np.append(self.first, other.first))

    def take(self, rows: Longs | Mask) -> Seen:
        """Some of them, by number or by mask, in the order of the numbers."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return Seen(self.ids.take(pa.array(rows)), self.counts[rows], self.first[rows])


@dataclass(frozen=True, eq=False)
class Tally:
    """d distinct numbers in their order, with counts [d]. coarse: they were too many, and are rounded."""

    values: Floats
    counts: Longs
    coarse: bool = False

    @classmethod
    def of(cls, values: Floats) -> Tally:
        """Of numbers [n]; NaN is left out."""
        distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
        return _bounded(cls(distinct, counts.astype(np.int64)))

    def __or__(self, other: Tally) -> Tally:
        """Both together."""
        if self.coarse or other.coarse:
            self, other = _rounded(self), _rounded(other)
        values, counts = np.append(self.values, other.values), np.append(self.counts, other.counts)
        return _bounded(_summed(values, counts, self.coarse))


def _bounded(tally: Tally) -> Tally:
    # The whole has more distinct values than any part of it, so that a part which is rounded rounds the whole in
    # whatever order they are joined.
    return _rounded(tally) if len(tally.values) > _EXACT else tally


def _rounded(tally: Tally) -> Tally:
    """Towards minus infinity, so that no number lies below the edge that it was counted at."""
    fraction, exponent = np.frexp(tally.values)
    return _summed(np.ldexp(np.floor(fraction * 4096) / 4096, exponent), tally.counts, True)


def _summed(values: Floats, counts: Longs, coarse: bool) -> Tally:
    distinct, place = np.unique(values, return_inverse=True)
    summed = np.zeros(len(distinct), np.int64)
    np.add.at(summed, place, counts)
    return Tally(distinct, summed, coarse)


@dataclass(frozen=True, eq=False)
class Sample:
    """Vectors [n, w] by which centroids are fitted: those with the smallest `keys` [n], which a hash of each gives."""

    vectors: Vectors
    keys: NDArray[np.uint64]

    @classmethod
    def of(cls, vectors: Vectors) -> Sample:
        """From vectors [n, w]; those with NaN are left out."""
        vectors = np.ascontiguousarray(vectors[np.isfinite(vectors).all(axis=1)] if vectors.shape[1] else vectors[:0])
        return _smallest(vectors + np.float32(0), _hashes(vectors + np.float32(0)))

    def __or__(self, other: Sample) -> Sample:
        """Both together.

        Raises:
            SourceError: their vectors are of different length.
        """
        if len(self.vectors) == 0 or len(other.vectors) == 0:
            return self if len(self.vectors) else other
        if self.vectors.shape[1] != other.vectors.shape[1]:
            widths = f"{self.vectors.shape[1]} and {other.vectors.shape[1]}"
            raise SourceError(f"a vector facet has vectors of length {widths}; write one length everywhere")
        return _smallest(np.concatenate([self.vectors, other.vectors]), np.append(self.keys, other.keys))


def _smallest(vectors: Vectors, keys: NDArray[np.uint64]) -> Sample:
    order = np.lexsort((*vectors.T[::-1], keys))[:_SAMPLED]
    return Sample(vectors[order], keys[order])


def _hashes(vectors: Vectors) -> NDArray[np.uint64]:
    """[n] mixed sums of the bits of each vector, as `hashing.mixed` does."""
    factors = np.random.default_rng(0).integers(1, 2**63, vectors.shape[1], dtype=np.uint64) | np.uint64(1)
    return mixed((vectors.view(np.uint32).astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64))
