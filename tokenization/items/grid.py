"""Numbers on a grid so coarse that sums of products are exact: the same on any machine, in any order, in any batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenization.arrays import Floats

_MANTISSA = 53  # bits of whole numbers that float64 holds exactly
_FINEST = 23  # bits of a grid whose points float32 holds exactly


@dataclass(frozen=True)
class Grid:
    """Multiples of a power of two between -bound and bound, itself a power of two."""

    bound: float
    bits: int

    @classmethod
    def for_sums(cls, bound: float, terms: int) -> Grid:
        """The finest on which a sum of `terms` products of two of its numbers is exact in float64."""
        return cls(bound, min((_MANTISSA - math.ceil(math.log2(terms))) // 2, _FINEST))

    @property
    def step(self) -> float:
        """Between two numbers of the grid."""
        return math.ldexp(self.bound, -self.bits)

    def units(self, values: NDArray[Any]) -> Floats:
        """The nearest numbers of the grid, as whole numbers of steps; without -0, so that equal rows have equal
        bytes."""
        clipped = np.clip(values.astype(np.float64), -self.bound, self.bound)
        units: Floats = np.rint(clipped / self.step) + 0.0
        return units

    def values(self, units: Floats) -> NDArray[np.float32]:
        """Whole numbers of steps as numbers again, exactly."""
        return (units * self.step).astype(np.float32)


def bound_of(rows: NDArray[Any]) -> float:
    """The least power of two that no component of rows [n, w] exceeds; a row far above the others does not count,
    since the grid would be too coarse for them."""
    largest = np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0)).astype(np.float64)
    largest = largest[largest > 0]
    if not len(largest):
        return 1.0
    return math.ldexp(1.0, math.frexp(min(float(largest.max()), 4 * float(np.quantile(largest, 0.99))))[1])
