"""Mixing bits, so that numbers which are near one another are so no more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


def mixed(words: Words) -> Words:
    """Each bit hangs on all of the same word; [n] → [n], one to one.

    The finalizer of splitmix64 (Guy Steele et al., doi.org/10.1145/2714064.2660195).
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
