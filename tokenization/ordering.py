"""Rows in the order of several keys, and where these change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenization.arrays import Integers, Longs, Mask

_FEW = 1024
"""Rows of which packing the keys costs more than it saves."""


def order_by(keys: Sequence[Integers]) -> tuple[Longs, Mask]:
    """Sort n rows by keys [n] of non-negative integers, the first key first.

    Returns:
        [n] the rows in order, ties in any; and [n] which of the rows so ordered differ in a key from the row before.
    """
    if len(keys[0]) <= _FEW:
        order = np.lexsort(tuple(reversed(keys)))
        return order, begins(np.stack(keys)[:, order])
    words = _packed(keys)
    order = np.argsort(words[0]) if len(words) == 1 else np.lexsort(tuple(reversed(words)))
    fresh = begins(words[0][order])
    for word in words[1:]:
        fresh |= begins(word[order])
    return order, fresh


def begins(ordered: NDArray[Any]) -> Mask:
    """[n] which of values [n], or columns of [k, n], differ from the one before; the first does."""
    fresh = np.ones(ordered.shape[-1], np.bool_)
    if ordered.ndim == 1:
        np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    else:
        np.any(ordered[:, 1:] != ordered[:, :-1], axis=0, out=fresh[1:])
    return fresh


def _packed(keys: Sequence[Integers]) -> list[Longs]:
    """As few integers of 63 bits as hold all keys: most logs need one, which sorts in a single pass."""
    words: list[Longs] = []
    room = 0
    for key in keys:
        width = int(key.max(initial=0)).bit_length()
        if not words or width > room:
            words.append(key.astype(np.int64))
            room = 63 - width
        else:
            words[-1] = (words[-1] << width) | key
            room -= width
    return words
