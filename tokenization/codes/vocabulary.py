"""Ids ↔ codes. Codes never change: a vocabulary grows at its end, so the shorter one is a prefix of the longer.

An id that was not seen often enough for a code waits, with its count, until later events make it so many: however the
log is cut, the same ids have codes in the end. They are given in the order of admission: fit first, then append by
append, and within one of these in the order of first sight since the id was met at all, ties by the ids themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import NoneType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather

from tokenization.arrays import Codes, Floats, Longs
from tokenization.codes.counting import Seen
from tokenization.errors import VocabularyError, first_line
from tokenization.ids import Ids, as_type

ABSENT = 0
"""Code of a facet that an event does not have."""
UNKNOWN = 1
"""Code of an id that the vocabulary does not have."""
FIRST = 2
"""Code of the first id."""
_FEW = 16
"""So many times fewer ids than a vocabulary has are looked up one by one."""
_HANDFUL = 64
"""So many ids are looked up one by one in any case: a call to Arrow costs as much."""
_SMALL = 4096
"""Ids of a vocabulary that is small enough to be the values of a column."""
_WHOLE_OR_TEXT = {pa.int64(): {int, NoneType}, pa.string(): {str, NoneType}}


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """v ids in the order of admission, see above.

    ids: [v] int64 or string; the id at place i has code i + 2. counts: [v] events before the split, 0 of ids that got
    their code otherwise. first_seen: [v] since when an id is known, seconds since 1970 UTC: when it was first seen, or
    what the items table says of it; NaN where neither was known when it got its code. waiting: ids without a code, with
    the counts and times of everything fitted and appended.
    """

    ids: pa.Array
    counts: Longs
    first_seen: Floats
    waiting: Seen = field(default_factory=Seen.nothing)

    @classmethod
    def fit(cls, seen: Seen, admit: int = 1) -> Vocabulary:
        """Of the ids seen at least `admit` times; the others wait."""
        often = np.flatnonzero(seen.counts >= admit)
        order = often[np.argsort(seen.first[often], kind="stable")]
        waiting = seen.take(seen.counts < admit) if admit > 1 else Seen.nothing()
        return cls(seen.ids.take(pa.array(order)), seen.counts[order], seen.first[order], waiting)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Number of codes, with 0 (absent) and 1 (unknown)."""
        return len(self.ids) + FIRST

    def encode(self, ids: pa.Array) -> Codes:
        """[n] ids, null = absent → [n] codes. Ids of the other type are read as this one's: "7" as 7."""
        given = pc.is_valid(ids).to_numpy(zero_copy_only=False)
        ids = as_type(ids, self.ids.type) if len(self.ids) else ids.slice(0, 0)
        if len(ids) * _FEW < len(self.ids):
            known = self._few(ids)
        else:
            known = pc.index_in(ids, value_set=self.ids).fill_null(UNKNOWN - FIRST).to_numpy() + FIRST
        return np.where(given, known if len(ids) else UNKNOWN, ABSENT).astype(np.int32)

    @cached_property
    def _places(self) -> dict[object, int]:
        """For a few ids at a time: Arrow would hash the whole vocabulary on every call."""
        return {key: place for place, key in enumerate(self.ids.to_pylist())} | {None: -1}

    def _few(self, ids: pa.Array) -> Codes:
        """Codes of ids of which none is null."""
        places = [self._places.get(key, UNKNOWN - FIRST) for key in ids.to_pylist()]
        return np.array(places, np.int32) + np.int32(FIRST)

    def encode_ids(self, column: Ids) -> Codes:
        """The same for a column of distinct values with an index: each distinct id is looked up once."""
        if column.values is self.ids:  # as `find` gives them: there is nothing to look up
            codes: Codes = column.index + np.int32(FIRST)
            codes[column.index < 0] = ABSENT
            return codes
        if len(column.values) == 0:
            return np.full(len(column.index), ABSENT, np.int32)
        few = len(column.values) <= _HANDFUL and column.values.type == self.ids.type
        codes = self._few(column.values) if few else self.encode(column.values)
        return np.append(codes, np.int32(ABSENT))[column.index]

    def find(self, values: Sequence[object]) -> Ids | None:
        """A few plain values, None = absent, as a column over the ids of this vocabulary: [n] values → [n].

        None where one is not among them, or is of another type, and where the vocabulary is so large that it should
        not be handed on.
        """
        if len(self.ids) > _SMALL or set(map(type, values)) - _WHOLE_OR_TEXT[self.ids.type]:
            return None
        places = list(map(self._places.get, values))
        return None if None in places else Ids(self.ids, np.array(places, np.int32))

    def decode(self, codes: Codes) -> pa.Array:
        """[n] codes → [n] ids; absent and unknown become null.

        Raises:
            VocabularyError: a code that this vocabulary has not given.
        """
        if len(codes) and not (codes.min() >= 0 and codes.max() < self.size):
            worst = int(codes.max()) if codes.max() >= self.size else int(codes.min())
            raise VocabularyError(f"code {worst} is outside of this vocabulary of {self.size} codes; load a newer one")
        return self.ids.take(pa.array(codes - FIRST, mask=codes < FIRST))

    def meet(self, seen: Seen) -> Vocabulary:
        """Count ids of later events: those without a code wait for one. Of those with one nothing changes."""
        fresh = seen.take(self.encode(seen.ids) == UNKNOWN)
        return replace(self, waiting=self.waiting | fresh) if len(fresh) else self

    def admit(self, least: int) -> Vocabulary:
        """Codes for those waiting that were seen at least so often in all, in the order of first sight.

        Raises:
            VocabularyError: as `grow`.
        """
        often = np.flatnonzero(self.waiting.counts >= least)
        order = often[np.argsort(self.waiting.first[often], kind="stable")]
        return self.grow(self.waiting.ids.take(pa.array(order))) if len(order) else self

    def grow(self, ids: pa.Array) -> Vocabulary:
        """Append the ids that are new, in the order given; codes given before stay. Who was waiting was seen before.

        Raises:
            VocabularyError: an id is text where the ids so far are whole numbers.
        """
        given = ids.drop_null()
        new = as_type(given, self.ids.type if len(self.ids) else ids.type)
        if new.null_count:
            other = given.filter(pc.is_null(new))[0].as_py()
            raise VocabularyError(
                f"{other!r} is text, but the ids so far are whole numbers; tokenize the whole log again"
            )
        new = pc.unique(new)
        if len(self.ids):
            new = new.filter(pc.invert(pc.is_in(new, value_set=self.ids)))
        if not len(new) and new.type == self.ids.type:
            return self
        waited = pc.index_in(new, value_set=as_type(self.waiting.ids, new.type)).fill_null(-1).to_numpy()
        waits = np.ones(len(self.waiting) + 1, np.bool_)
        waits[waited] = False
        return Vocabulary(
            pa.concat_arrays([self.ids.cast(new.type), new]),
            np.append(self.counts, np.zeros(len(new), np.int64)),
            np.append(self.first_seen, np.append(self.waiting.first, np.nan)[waited]),
            self.waiting.take(waits[:-1]) if len(self.waiting) else self.waiting,
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
        digest = hashlib.sha256(str(self.ids.type if length else "empty").encode())
        return _hash_ids(digest, self.ids.slice(0, length)).hexdigest()

    @property
    def waiting_hash(self) -> str:
        """SHA-256 (hex) of who waits, how often and since when they were seen."""
        digest = _hash_ids(hashlib.sha256(str(self.waiting.ids.type).encode()), self.waiting.ids)
        digest.update(self.waiting.counts.astype("<i8").tobytes() + self.waiting.first.astype("<f8").tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write an Arrow file with columns id, count, first_seen; who waits is not in it."""
        _write(path, self.ids, self.counts, self.first_seen)

    def save_waiting(self, path: Path) -> None:
        """Write who waits, as an Arrow file with the same columns."""
        _write(path, self.waiting.ids, self.waiting.counts, self.waiting.first)

    def with_waiting(self, path: Path) -> Vocabulary:
        """The same with those who wait as `save_waiting` wrote them.

        Raises:
            VocabularyError: no such file, or not such a file.
        """
        return replace(self, waiting=Seen(*_read(path)))

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            VocabularyError: no such file, or not such a file.
        """
        return cls(*_read(path))


def _hash_ids(digest: hashlib._Hash, ids: pa.Array) -> hashlib._Hash:
    """With the lengths of all ids, then their letters one after another, as Arrow holds them."""
    texts = ids.cast(pa.string())
    if len(texts):
        _, offsets, letters = texts.buffers()
        ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        digest.update(np.diff(ends).astype("<i4").tobytes())
        digest.update(memoryview(letters or b"")[ends[0] : ends[-1]])
    return digest


def _write(path: Path, ids: pa.Array, counts: Longs, first_seen: Floats) -> None:
    table = pa.table({"id": ids, "count": counts, "first_seen": first_seen})
    pyarrow.feather.write_feather(table, path, compression="zstd")


def _read(path: Path) -> tuple[pa.Array, Longs, Floats]:
    try:
        table = pyarrow.feather.read_table(path).combine_chunks()
        columns = [table.column(name).combine_chunks() for name in ("id", "count", "first_seen")]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise VocabularyError(f"{path} is no vocabulary: {first_line(error)}") from error
    return columns[0], columns[1].to_numpy(), columns[2].to_numpy()
