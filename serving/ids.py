"""Ids of users and items: text or integers, in and out unchanged, found without a Python dict.

The index is an ascending array of 64-bit hashes, mapped from a file, so a billion ids cost no start-up and no
heap: a lookup is one binary search for the whole request. The hash is multilinear over the bytes modulo 2^64
(Lemire and Kaser, "Strongly universal string hashing is fast", 2014), then mixed; two ids of equal hash are
told apart by the ids themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from serving.errors import InvalidRequest, StoreError

UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

INTEGER = pa.int64()
TEXT = pa.large_string()


def canonical(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Ids as one array of `int64` or `large_string`.

    Raises StoreError for another type, for nulls and for integers beyond 64 bits with sign.
    """
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if ids.null_count:
        raise StoreError(f"{ids.null_count} of {len(ids)} ids are null; every row needs an id")
    kind = ids.type.value_type if pa.types.is_dictionary(ids.type) else ids.type
    if pa.types.is_integer(kind):
        target = INTEGER
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        target = TEXT
    else:
        raise StoreError(f"ids must be text or integers, these are {kind}")
    try:
        return ids.cast(target)
    except pa.ArrowInvalid as error:
        raise StoreError("an integer id does not fit into 64 bits with sign; declare the id column as text") from error


def kind_name(kind: pa.DataType) -> str:
    """`integers` or `text`, for sentences."""
    return "integers" if kind == INTEGER else "text"


def mix(x: UInt64s) -> UInt64s:
    """Spread 64-bit words evenly and reversibly (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash_ids(ids: pa.Array) -> UInt64s:
    """One 64-bit hash for each canonical id; integers never collide."""
    if ids.type == INTEGER:
        return mix(ids.to_numpy().view(np.uint64))
    offsets = np.frombuffer(ids.buffers()[1], dtype=np.int64)[ids.offset : ids.offset + len(ids) + 1]
    text = ids.buffers()[2]
    letters = np.frombuffer(text if text is not None else b"", dtype=np.uint8)[offsets[0] : offsets[-1]]
    ends = offsets[1:] - offsets[0]
    lengths = np.diff(offsets)
    place = np.arange(len(letters)) - np.repeat(ends - lengths, lengths)
    words = (letters.astype(np.uint64) + np.uint64(1)) * _multipliers(place)
    # A running sum and a difference, because np.add.reduceat is wrong for empty strings. Both wrap modulo 2^64.
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words, dtype=np.uint64)])
    return mix(total[ends] - total[ends - lengths] + lengths.view(np.uint64))


def _multipliers(place: Int64s) -> UInt64s:
    """A random word for each place in an id; from a table while ids are short, since lookups are hot."""
    if not len(place) or place.max() < len(_FIRST_MULTIPLIERS):
        return _FIRST_MULTIPLIERS[place]
    return mix(place.view(np.uint64))


_FIRST_MULTIPLIERS = mix(np.arange(256, dtype=np.uint64))


@dataclass(frozen=True)
class IdIndex:
    """Where each id stands: `keys_N` ascending hashes, `ids` in the same order, `longest_run` equal hashes in a row."""

    keys_N: UInt64s
    ids: pa.Array
    longest_run: int

    def rows(self, ids: pa.Array) -> Int64s:
        """The row of each canonical id, -1 where there is none: int64 [len(ids)].

        Raises InvalidRequest when integers are asked of text ids or the other way round.
        """
        if ids.type != self.ids.type:
            have, got = kind_name(self.ids.type), kind_name(ids.type)
            raise InvalidRequest(f"the ids stored here are {have}, the request has {got}")
        found = np.full(len(ids), -1, dtype=np.int64)
        if not len(self.keys_N):
            return found
        wanted = hash_ids(ids)
        first = np.searchsorted(self.keys_N, wanted)
        for step in range(self.longest_run):
            place = np.minimum(first + step, len(self.keys_N) - 1)
            same = self._same(place, wanted, ids)
            found[same] = place[same]
        return found

    def _same(self, place_Q: Int64s, wanted_Q: UInt64s, ids: pa.Array) -> npt.NDArray[np.bool_]:
        equal: npt.NDArray[np.bool_] = self.keys_N[place_Q] == wanted_Q
        if self.ids.type == INTEGER:
            return equal
        same: npt.NDArray[np.bool_] = pc.equal(self.ids.take(pa.array(place_Q)), ids).to_numpy(zero_copy_only=False)
        return equal & same


def longest_run(keys_N: UInt64s) -> int:
    """The largest number of equal neighbours in an ascending array: 1 unless hashes collide, 0 when empty."""
    borders = np.flatnonzero(np.concatenate([[True], keys_N[1:] != keys_N[:-1], [True]]))
    return int(np.diff(borders).max()) if len(keys_N) else 0
