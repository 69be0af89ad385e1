"""What besides text makes an item's content vector: metadata, and vectors that a user brings, of an image or a sound.

Each modality is a matrix whose rows have length 1, so that none outweighs another in what they are joined to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Vectors
from tokenization.errors import SourceError
from tokenization.ids import Ids, one_chunk

METADATA_WIDTH = 64


def metadata_vectors(table: pa.Table, columns: Sequence[str]) -> Vectors:
    """[n, 64] of length 1; zeros where a row has no value in any column.

    Each value of each column has a direction of its own, drawn by a hash, and an item's vector is their sum: so the
    product of two is the share of values that they have in common, but for some noise. Nothing is fitted, and values
    that come later need nothing that is there to change. Feature hashing with signs, Weinberger et al.,
    arXiv:0902.2206.

    Raises:
        SourceError: a column holds what can't be an id.
    """
    out = np.zeros((table.num_rows, METADATA_WIDTH), np.float32)
    for name in columns:
        column = Ids.of(table.column(name), name)
        directions = [_direction(name, value) for value in column.values.to_pylist()]
        out += np.stack([*directions, np.zeros(METADATA_WIDTH, np.float32)])[column.index]
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    np.divide(out, norms, out=out, where=norms > 0)
    return out


def _direction(column: str, value: object) -> Vectors:
    """[64] of 1 and -1."""
    digest = hashlib.blake2b(f"{column}={value}".encode(), digest_size=METADATA_WIDTH // 8).digest()
    bits = np.unpackbits(np.frombuffer(digest, np.uint8))
    return np.where(bits, np.float32(1), np.float32(-1))


def unit_vectors(column: pa.Array | pa.ChunkedArray, name: str, width: int | None = None) -> Vectors:
    """A column of lists of numbers, all of one length w → [n, w] of length 1; zeros where a row has none.

    Args:
        width: the length that they must have, where that is known; then none need be there.

    Raises:
        SourceError: the column holds no lists of numbers, lists of several lengths, a gap, NaN or infinity, or nothing.
    """
    lists = one_chunk(column)
    if width and lists.null_count == len(lists):
        return np.zeros((len(lists), width), np.float32)
    if not _is_list(lists.type) or not _is_number(lists.type.value_type):
        raise SourceError(
            f"column {name!r} of the items table holds {lists.type}; vectors must be lists of numbers of one length"
        )
    there = lists.is_valid().to_numpy(zero_copy_only=False)
    given = lists.drop_null()
    lengths = pc.list_value_length(given).to_numpy(zero_copy_only=False)
    if not lengths.any():
        raise SourceError(f"column {name!r} of the items table holds no vector; leave it out of `items.vectors`")
    rows = np.flatnonzero(there)
    if (lengths != lengths[0]).any():
        odd = int(np.flatnonzero(lengths != lengths[0])[0])
        raise SourceError(
            f"column {name!r} of the items table has {lengths[0]} numbers in row {rows[0]} and {lengths[odd]} in row "
            f"{rows[odd]}; write vectors of one length"
        )
    if width and lengths[0] != width:
        raise SourceError(
            f"column {name!r} of the items table has vectors of length {lengths[0]}, before it was {width}; "
            "write the same length"
        )
    # A missing number becomes NaN.
    flat = pc.list_flatten(given).cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(len(given), lengths[0])
    if not np.isfinite(flat).all():
        odd = int(rows[np.flatnonzero(~np.isfinite(flat).all(axis=1))[0]])
        raise SourceError(
            f"row {odd} of the items table has NaN, infinity or a gap in {name!r}; leave such a vector out whole"
        )
    out = np.zeros((len(lists), int(lengths[0])), np.float32)
    # By the largest first, so that squares neither overflow nor vanish.
    largest = np.abs(flat).max(axis=1, keepdims=True)
    scaled = np.divide(flat, largest, out=np.zeros_like(flat), where=largest > 0)
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    out[there] = np.divide(scaled, norms, out=np.zeros_like(scaled), where=norms > 0)
    return out


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
