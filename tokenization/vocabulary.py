"""Ids ↔ codes. Codes never change: a vocabulary grows at its end, so the shorter one is a prefix of the
longer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
from numpy.typing import NDArray

from tokenization.clock import Floats
from tokenization.errors import VocabularyError
from tokenization.events import Ids

ABSENT = 0
"""Code of a facet that an event does not have."""
UNKNOWN = 1
"""Code of an id that the vocabulary does not have."""
FIRST = 2
"""Code of the first id."""

Codes = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """v ids in the order of first sight, ties in the order of the ids themselves.

    ids: [v] int64 or string; the id at place i has code i + 2. counts: [v] events before the split.
    first_seen: [v] when an id was first seen before the split, seconds since 1970 UTC; NaN where it was not.
    """

    ids: pa.Array
    counts: NDArray[np.int64]
    first_seen: Floats

    @classmethod
    def fit(cls, column: Ids, times: Floats) -> Vocabulary:
        """From a column of ids [n] and the times [n] they were seen at; the order of the rows has no
        influence."""
        ids, place = column.rank()
        seen = place >= 0
        counts = np.bincount(place[seen], minlength=len(ids)).astype(np.int64)
        first = np.full(len(ids), np.inf)
        np.minimum.at(first, place[seen], times[seen])
        order = np.argsort(first, kind="stable")
        return cls(ids.take(pa.array(order)), counts[order], first[order])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Number of codes, with 0 (absent) and 1 (unknown)."""
        return len(self.ids) + FIRST

    def encode(self, ids: pa.Array) -> Codes:
        """[n] ids, null = absent → [n] codes. Ids of the other type are read as this one's: "7" as 7."""
        if len(self.ids) == 0:
            return np.where(pc.is_valid(ids).to_numpy(zero_copy_only=False), UNKNOWN, ABSENT).astype(np.int32)
        place = pc.index_in(_as_type(ids, self.ids.type), value_set=self.ids)
        codes = pc.fill_null(place, UNKNOWN - FIRST).to_numpy(zero_copy_only=False) + FIRST
        absent = pc.is_null(ids).to_numpy(zero_copy_only=False)
        return np.where(absent, ABSENT, codes).astype(np.int32)

    def encode_ids(self, column: Ids) -> Codes:
        """The same for a column of distinct values with an index: each distinct id is looked up once."""
        codes = np.append(self.encode(column.values), np.int32(ABSENT))
        return codes[column.index]

    def decode(self, codes: Codes) -> pa.Array:
        """[n] codes → [n] ids; absent and unknown become null.

        Raises:
            VocabularyError: a code that this vocabulary has not given.
        """
        if len(codes) and not (codes.min() >= 0 and codes.max() < self.size):
            worst = int(codes.max()) if codes.max() >= self.size else int(codes.min())
            raise VocabularyError(f"code {worst} is outside of this vocabulary of {self.size} codes; load a newer one")
        return self.ids.take(pa.array(codes - FIRST, mask=codes < FIRST))

    def grow(self, ids: pa.Array) -> Vocabulary:
        """Append the ids that are new, in the order given; codes given before stay."""
        new = pc.unique(_as_type(ids.drop_null(), self.ids.type if len(self.ids) else ids.type)).drop_null()
        if len(self.ids):
            new = new.filter(pc.invert(pc.is_in(new, value_set=self.ids)))
        return Vocabulary(
            pa.concat_arrays([self.ids.cast(new.type), new]),
            np.concatenate([self.counts, np.zeros(len(new), np.int64)]),
            np.concatenate([self.first_seen, np.full(len(new), np.nan)]),
        )

    def prefix_hash(self, length: int | None = None) -> str:
        """SHA-256 (hex) of the first `length` ids in order, by default all: equal for a vocabulary and its
        growth.

        Raises:
            VocabularyError: there are fewer ids.
        """
        length = len(self.ids) if length is None else length
        if length > len(self.ids):
            raise VocabularyError(f"this vocabulary has {len(self.ids)} ids, fewer than {length}; load a newer one")
        head = self.ids.slice(0, length).cast(pa.string())
        digest = hashlib.sha256(str(self.ids.type if length else "empty").encode())
        digest.update(pc.binary_length(head).to_numpy(zero_copy_only=False).astype("<i4").tobytes())
        digest.update("".join(head.to_pylist()).encode())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write an Arrow file with columns id, count, first_seen."""
        table = pa.table({"id": self.ids, "count": self.counts, "first_seen": self.first_seen})
        pyarrow.feather.write_feather(table, path, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            VocabularyError: no such file, or not such a file.
        """
        try:
            table = pyarrow.feather.read_table(path).combine_chunks()
            columns = [table.column(name).combine_chunks() for name in ("id", "count", "first_seen")]
        except (OSError, KeyError, pa.ArrowException) as error:
            raise VocabularyError(f"{path} is no vocabulary: {str(error).splitlines()[0]}") from error
        return cls(columns[0], columns[1].to_numpy(), columns[2].to_numpy())


def _as_type(ids: pa.Array, kind: pa.DataType) -> pa.Array:
    """`ids` in the type of a vocabulary; what has no such form becomes a value that no vocabulary has:
    null."""
    if ids.type == kind:
        return ids
    if pa.types.is_dictionary(ids.type):
        return _as_type(ids.dictionary_decode(), kind)
    if kind == pa.int64() and pa.types.is_string(ids.type):
        whole = pc.match_substring_regex(ids, r"^(0|-?[1-9]\d{0,17})$")
        ids = pc.if_else(whole, ids, pa.scalar(None, ids.type))
    return Ids.of(ids, "id").decode().cast(kind) if kind == pa.string() else ids.cast(kind)
