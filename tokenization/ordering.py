"""Orders by several keys at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Longs = NDArray[np.int64]


def packed(keys: Sequence[NDArray[Any]]) -> Longs | None:
    """Keys [n] of non-negative integers as one [n] that sorts as they do; None where 63 bits are too few."""
    if len(keys[0]) == 0:
        return np.zeros(0, np.int64)
    bits = [int(key.max()).bit_length() for key in keys]
    if sum(bits) > 63:
        return None
    out = keys[0].astype(np.int64)
    for key, width in zip(keys[1:], bits[1:], strict=True):
        out <<= width
        out |= key
    return out


def argsort(keys: Sequence[NDArray[Any]]) -> Longs:
    """[n] rows in the order of keys [n] of non-negative integers, the first key first; ties in any order."""
    one = packed(keys)
    return np.lexsort(tuple(reversed(keys))) if one is None else np.argsort(one)


def dense(keys: Longs) -> tuple[Longs, Longs]:
    """Distinct keys in the order of first sight, and [n] the place of each: by hashing, which sorts
    nothing."""
    encoded = pc.dictionary_encode(pa.array(keys))
    distinct = encoded.dictionary.to_numpy(zero_copy_only=False)
    return distinct, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
