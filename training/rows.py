"""Rows of a token table: list columns as flat values and offsets, and their prefixes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def list_values(column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[Any], Ints]:
    """A list column as its values end to end [T] and the offsets of its rows [R + 1], counted from 0."""
    one = whole(column)
    offsets = one.offsets.to_numpy().astype(np.int64)
    values = one.values.slice(offsets[0], offsets[-1] - offsets[0])
    return values.to_numpy(zero_copy_only=False), offsets - offsets[0]


def ranges(start: Ints, length: Ints) -> Ints:
    """start[0], start[0] + 1, … of each range end to end, int64 [length.sum()]."""
    skipped = np.cumsum(length) - length
    return np.asarray(np.arange(length.sum()) + np.repeat(start - skipped, length), dtype=np.int64)


def prefixes(tokens: pa.Table, rows: Ints, known: Ints) -> pa.Table:
    """The named rows of the token table, each with only its first `known` tokens."""
    picked = pa.array(rows)
    offsets = pa.array(np.concatenate([[0], np.cumsum(known)]), pa.int32())
    columns = []
    for column in tokens.columns:
        one = whole(column)
        if not pa.types.is_list(one.type):
            columns.append(one.take(picked))
            continue
        first = one.offsets.to_numpy()[rows].astype(np.int64)
        values = one.values.take(pa.array(ranges(first, known)))
        columns.append(pa.ListArray.from_arrays(offsets, values, type=one.type))
    return pa.table(columns, schema=tokens.schema)


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One contiguous array; free of copies when the column already is one."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
