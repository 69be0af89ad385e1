"""What one row of the store is, and what makes a set of rows fit to be served.

Shapes: N rows, D width of the space. Times are seconds since 1970 UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from serving.errors import CorruptStore, PublishRefused, StoreError
from serving.ids import UInt64s, canonical, hash_ids, mix

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

CHECKED_AT_ONCE = 16_384
"""Rows widened to 64-bit words at a time, to bound the memory a checksum takes."""
LONGEST_OVER_MEDIAN = 1_000.0
"""A vector this many times longer than the median one is the mark of a diverged model."""
ZERO_VECTORS = 0.01
"""The share of all-zero vectors above which most of a catalogue or population was evidently not encoded."""


class Entity(StrEnum):
    """Whose vectors a dataset holds."""

    USER = "user"
    ITEM = "item"


@dataclass(frozen=True)
class VectorBatch:
    """Vectors to push, one row an id.

    `ids` text or integers without nulls; `vectors_ND` float32; `as_of_N` the moment each vector describes;
    `event_seq_N` how many events it has seen: a push never replaces a vector by one that has seen fewer.
    """

    ids: pa.Array
    vectors_ND: Float32s
    as_of_N: Float64s
    event_seq_N: Int64s

    def to_table(self, width: int) -> pa.Table:
        """The rows as the store keeps them. Raises StoreError when lengths or width disagree."""
        ids = canonical(self.ids)
        vectors_ND = np.ascontiguousarray(self.vectors_ND, dtype=np.float32)
        if vectors_ND.shape != (len(ids), width):
            raise StoreError(
                f"{len(ids)} ids of a space of width {width} came with a matrix of shape {vectors_ND.shape}"
            )
        as_of_N = np.ascontiguousarray(self.as_of_N, dtype=np.float64)
        event_seq_N = np.ascontiguousarray(self.event_seq_N, dtype=np.int64)
        if as_of_N.shape != (len(ids),) or event_seq_N.shape != (len(ids),):
            raise StoreError(f"{len(ids)} ids came with {as_of_N.shape} times and {event_seq_N.shape} event_seq")
        columns = [
            ids,
            pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), width).cast(vector_type(width)),
            pa.array(as_of_N),
            pa.array(event_seq_N),
            pa.array(checksum(ids, vectors_ND, as_of_N, event_seq_N)),
        ]
        return pa.Table.from_arrays(columns, schema=table_schema(ids.type, width))


def vector_type(width: int) -> pa.DataType:
    """`width` floats in a row, none of them null."""
    return pa.list_(pa.field("item", pa.float32(), nullable=False), width)


def table_schema(id_type: pa.DataType, width: int) -> pa.Schema:
    """Columns of a dataset of vectors.

    Lance keeps no unique index: only with this mark on the id does it refuse two writers inserting the same
    new id.
    """
    key = {"lance-schema:unenforced-primary-key": "true"}
    return pa.schema(
        [
            pa.field("id", id_type, nullable=False, metadata=key),
            pa.field("vector", vector_type(width), nullable=False),
            pa.field("as_of", pa.float64(), nullable=False),
            pa.field("event_seq", pa.int64(), nullable=False),
            pa.field("checksum", pa.uint64(), nullable=False),
        ]
    )


@dataclass(frozen=True)
class Rows:
    """Rows as numpy sees them: canonical `ids`, `vectors_ND` float32, `as_of_N` float64, `event_seq_N` int64."""

    ids: pa.Array
    vectors_ND: Float32s
    as_of_N: Float64s
    event_seq_N: Int64s

    @classmethod
    def from_table(cls, table: pa.Table, name: str) -> Rows:
        """Read rows and compare every checksum; raises CorruptStore, naming the dataset, where one disagrees."""
        ids = canonical(table["id"])
        vector = table["vector"].combine_chunks()
        vectors_ND = vector.flatten().to_numpy().reshape(len(ids), vector.type.list_size)
        rows = cls(ids, vectors_ND, table["as_of"].to_numpy(), table["event_seq"].to_numpy())
        wrong = int((rows.checksum() != table["checksum"].to_numpy()).sum())
        if wrong:
            raise CorruptStore(
                f"{wrong} of {len(ids)} rows of {name} differ from what was pushed; push these vectors again"
            )
        return rows

    def checksum(self) -> UInt64s:
        """The checksum of each row, computed from what the row holds now."""
        return checksum(self.ids, self.vectors_ND, self.as_of_N, self.event_seq_N)


def checksum(ids: pa.Array, vectors_ND: Float32s, as_of_N: Float64s, event_seq_N: Int64s) -> UInt64s:
    """64 bits for each row over everything in it: uint64 [N].

    A sum of words times odd constants modulo 2^64, so a change confined to one float is always seen.
    """
    odd_D = mix(np.arange(vectors_ND.shape[1], dtype=np.uint64)) | np.uint64(1)
    words_ND = vectors_ND.view(np.uint32)
    blocks = [
        (words_ND[start : start + CHECKED_AT_ONCE].astype(np.uint64) * odd_D).sum(axis=1, dtype=np.uint64)
        for start in range(0, len(words_ND), CHECKED_AT_ONCE)
    ]
    vector_N = np.concatenate([np.zeros(0, np.uint64), *blocks])
    time_N = mix(as_of_N.view(np.uint64))
    sequence_N = mix(event_seq_N.view(np.uint64) ^ np.uint64(0xA5A5A5A5A5A5A5A5))
    return vector_N + hash_ids(ids) + time_N + sequence_N


def check_servable(rows: Rows, width: int, name: str) -> None:
    """Refuse rows that would harm whoever is served them. Raises PublishRefused, naming the dataset and the fault."""
    if not len(rows.ids):
        raise PublishRefused(f"{name} holds no vectors; push some before publishing")
    if rows.vectors_ND.shape[1] != width:
        raise PublishRefused(f"{name} holds vectors of {rows.vectors_ND.shape[1]}, its space is {width} wide")
    different = len(rows.ids.unique())
    if different != len(rows.ids):
        raise PublishRefused(f"{name} has {len(rows.ids)} rows for {different} ids; push into an empty store")
    broken = int((~np.isfinite(rows.vectors_ND).all(axis=1)).sum())
    if broken or not np.isfinite(rows.as_of_N).all():
        raise PublishRefused(f"{broken} of {len(rows.ids)} vectors of {name} or their times are not finite")
    norm_N = np.sqrt(np.einsum("nd,nd->n", rows.vectors_ND, rows.vectors_ND, dtype=np.float64))
    zero = int((norm_N == 0).sum())
    if zero > ZERO_VECTORS * len(norm_N):
        raise PublishRefused(f"{zero} of {len(norm_N)} vectors of {name} are all zeros")
    median = float(np.median(norm_N[norm_N > 0]))
    if norm_N.max() > LONGEST_OVER_MEDIAN * median:
        raise PublishRefused(
            f"the longest vector of {name} is {norm_N.max():.3g} long, the median one {median:.3g}: the model diverged"
        )
