"""Rows in the order of several keys, and where these change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokenization.arrays import Integers, Longs, Mask


def order_by(keys: Sequence[Integers]) -> tuple[Longs, Mask]:
    """Sort n rows by keys [n] of non-negative integers, the first key first.

    Returns:
        [n] the rows in order, ties in any; and [n] which of the rows so ordered differ in a key from the row before.
    """
    words = _packed(keys)
    order = np.argsort(words[0]) if len(words) == 1 else np.lexsort(tuple(reversed(words)))
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = False
    for word in words:
        ordered = word[order]
        fresh[1:] |= ordered[1:] != ordered[:-1]
    return order, fresh


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
