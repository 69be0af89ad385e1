"""How good semantic IDs are: codes in use, what they leave over, and how alike items with the same first codes are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenization.arrays import Codes, Longs, Vectors
from tokenization.errors import SourceError
from tokenization.items.semantic_ids import Quantizer, plain_clusters, tell_apart

_FEWEST = 2
"""A prefix that fewer rows have, on average, is nearly a name: it says nothing about what is alike."""


@dataclass(frozen=True)
class Level:
    """One level of codes.

    used: share of its codes that any row has. perplexity: exp of the entropy of their use, at most their number.
    left: squared error with the codes up to here, over the squared length of the vectors.
    """

    used: float
    perplexity: float
    left: float


@dataclass(frozen=True)
class Likeness:
    """How alike rows are whose first `length` codes are the same.

    groups: so many such prefixes are in use. same: of the other rows of a row's group, the share that has its
    category, averaged over rows that have others. by_chance: the same for random groups of whatever sizes.
    clusters: the same for plain k-means clusters, as many as there are groups.
    """

    length: int
    groups: int
    same: float
    by_chance: float
    clusters: float


@dataclass(frozen=True)
class Quality:
    """levels: from the first. colliding: share of rows whose codes another row has too. most: rows with one set of
    codes. alike: by category, for prefixes of length 1, 2, ... while at least two rows have one, on average."""

    levels: tuple[Level, ...]
    colliding: float
    most: int
    alike: Mapping[str, tuple[Likeness, ...]]


def quality(quantizer: Quantizer, vectors: Vectors, categories: Mapping[str, NDArray[Any]], seed: int = 0) -> Quality:
    """Judge a quantizer on vectors [n, w].

    Args:
        categories: by name, an integer [n]: the category of each row; negative where it has none, and then the row
            counts for nothing.
        seed: of the plain clusters.

    Raises:
        SourceError: no vectors, or they don't fit the quantizer.
    """
    if not len(vectors):
        raise SourceError("there are no vectors to judge semantic IDs on; give at least one")
    codes = quantizer.encode(vectors)
    alike: dict[str, tuple[Likeness, ...]] = dict.fromkeys(categories, ())
    for length in range(1, quantizer.levels + 1):
        group = _groups(codes[:, :length])
        number = int(group.max()) + 1
        if number * _FEWEST > len(vectors):
            break
        cluster = plain_clusters(vectors, number, seed)
        for name, category in categories.items():
            same, clusters = likeness(group, category), likeness(cluster, category)
            found = Likeness(length, number, same, likeness(np.zeros_like(group), category), clusters)
            alike[name] = (*alike[name], found)
    sizes = np.bincount(_groups(codes))
    return Quality(
        tuple(_level(quantizer, vectors, codes, level) for level in range(quantizer.levels)),
        float(sizes[sizes > 1].sum() / len(codes)),
        int(tell_apart(codes).max()) + 1,
        alike,
    )


def likeness(group: Longs, category: NDArray[Any]) -> float:
    """Of the other rows in a row's group [n], the share that has its category [n], averaged over rows that have
    others; 0 where none has. With one group for all it is what groups drawn by chance have, whatever their sizes."""
    known = category >= 0
    if not known.any():
        return 0.0
    pair, rows = np.unique(np.c_[group[known], category[known]], axis=0, return_counts=True)
    size = np.bincount(pair[:, 0], weights=rows)
    others = size[pair[:, 0]] - 1
    share = np.divide(rows * (rows - 1.0), others, out=np.zeros(len(rows)), where=others > 0)
    together = float(size[size > 1].sum())
    return float(share.sum()) / together if together else 0.0


def _level(quantizer: Quantizer, vectors: Vectors, codes: Codes, level: int) -> Level:
    use = np.bincount(codes[:, level], minlength=quantizer.sizes[level])
    share = use[use > 0] / len(codes)
    error = np.square(vectors - quantizer.decode(codes[:, : level + 1]), dtype=np.float64).sum()
    length = np.square(vectors, dtype=np.float64).sum()
    return Level(
        float((use > 0).mean()),
        float(np.exp(-(share * np.log(share)).sum())),
        float(error / length) if length else 0.0,
    )


def _groups(codes: Codes) -> Longs:
    """[n] the number of each row's codes among those in use."""
    group: Longs = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    return group
