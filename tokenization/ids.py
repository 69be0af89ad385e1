"""A column of ids as distinct values with an index: whatever is done to an id is done once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tokenization.arrays import Codes, Mask
from tokenization.errors import SourceError

_LARGEST = "9223372036854775807"
_BELOW_LARGEST = "|".join(
    rf"{_LARGEST[:place]}[0-{int(digit) - 1}]\d{{{18 - place}}}" for place, digit in enumerate(_LARGEST) if digit > "0"
)
WHOLE_NUMBER = rf"^(0|-?([1-9]\d{{0,17}}|{_BELOW_LARGEST}|{_LARGEST}))$"
"""Text that is an int64 and would be written the same again."""
_EXACT = {pa.float16(): 2.0**11, pa.float32(): 2.0**24, pa.float64(): 2.0**53}
"""From here on, whole numbers are no longer told apart."""


@dataclass(frozen=True, eq=False)
class Ids:
    """`values` [d] distinct ids, int64 or string; `index` [n] into them, -1 where a row has none."""

    values: pa.Array
    index: Codes

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray, name: str) -> Ids:
        """A column of any type that can be an id; see `canonical`, which raises what this raises."""
        encoded = pc.dictionary_encode(canonical(one_chunk(column), name))
        index = encoded.indices.fill_null(-1) if encoded.null_count else encoded.indices
        found = cls(encoded.dictionary, index.to_numpy(zero_copy_only=False))
        return found._without_empty() if pa.types.is_string(found.values.type) else found

    def _without_empty(self) -> Ids:
        """The empty text is no id, as it is none in a CSV file."""
        empty = pc.index(self.values, "").as_py()
        return self if empty < 0 else Ids(self.values, np.where(self.index == empty, np.int32(-1), self.index))

    @property
    def missing(self) -> Mask:
        """[n] rows without an id."""
        return np.asarray(self.index < 0)

    def take(self, rows: NDArray[Any]) -> Ids:
        """The given rows, by mask or by number."""
        return Ids(self.values, self.index[rows])

    def where(self, values: Mask) -> Mask:
        """[n] rows whose id is one of those [d] that are marked."""
        if not values.any():
            return np.zeros(len(self.index), np.bool_)
        return np.asarray(np.append(values, False)[self.index])

    def renamed(self, aliases: Mapping[str, str]) -> Ids:
        """The same with some ids read as others."""
        if not aliases:
            return self
        texts = self.values.cast(pa.string()).to_pylist()
        if not any(text in aliases for text in texts):
            return self
        told = Ids.of(pa.array([aliases.get(text, text) for text in texts], pa.string()), "id")
        return Ids(told.values, np.append(told.index, np.int32(-1))[self.index])

    def decode(self) -> pa.Array:
        """[n] the ids themselves, null where there is none."""
        return self.values.take(pa.array(self.index, mask=self.missing))

    def rank(self) -> tuple[pa.Array, Codes]:
        """Distinct ids in use, sorted, and [n] the place of each row's id among them (-1 stays)."""
        if len(self.values) == 1 and len(self.index) and (self.index == 0).all():
            return self.values, self.index
        used = np.flatnonzero(np.bincount(self.index[self.index >= 0], minlength=len(self.values)))
        values = self.values.take(pa.array(used))
        order = pc.array_sort_indices(values)
        place = np.full(len(self.values) + 1, -1, np.int32)
        place[used[order.to_numpy()]] = np.arange(len(used), dtype=np.int32)
        return values.take(order), place[self.index]


def canonical(column: pa.Array, name: str) -> pa.Array:
    """Ids in one of two types, so that 7 from Parquet and 7 from CSV are one id.

    Whole numbers, also written as floats, which is what pandas makes of integers with gaps, become int64;
    everything else becomes text. That of a time is the one that Python writes, of a time with a zone in UTC, so that
    a live event tells the same.

    Raises:
        SourceError: a type that has no text, such as a list; a float so large that it may have lost digits.
    """
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_int64(kind):
        return column
    if pa.types.is_dictionary(kind):
        return canonical(column.dictionary_decode(), name)
    if pa.types.is_floating(kind):
        return _from_floats(column, name)
    try:
        if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
            return _from_times(column)
        whole = pa.types.is_integer(kind) and is_whole(column, name)
        return column.cast(pa.int64() if whole else pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise SourceError(f"column {name!r} holds {kind}, which can't be an id; cast it to text") from None


def _from_floats(column: pa.Array, name: str) -> pa.Array:
    wide = column.cast(pa.float64())
    wide = pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.float64()), wide)
    numbers = pc.if_else(pc.equal(wide, pc.trunc(wide)), wide, pa.scalar(None, pa.float64()))
    numbers = pc.if_else(pc.is_finite(numbers), numbers, pa.scalar(None, pa.float64()))
    if is_whole(column, name):
        return numbers.cast(pa.int64())
    told = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column  # which has no text of its own
    fractions = pc.if_else(pc.is_valid(wide), told.cast(pa.string()), pa.scalar(None, pa.string()))
    return pc.coalesce(numbers.cast(pa.int64()).cast(pa.string()), fractions)


def _from_times(column: pa.Array) -> pa.Array:
    zone = getattr(column.type, "tz", None)
    if pa.types.is_time(column.type):
        text = column.cast(pa.time64("us"), safe=False).cast(pa.string())
    else:
        exact = column.type.unit != "ns"  # nanoseconds are cut off, as they are where Python has the time
        micros = column.cast(pa.timestamp("us", zone), safe=exact).cast(pa.int64()).cast(pa.timestamp("us"))
        text = pc.replace_substring(micros.cast(pa.string()), " ", "T")
    text = pc.replace_substring_regex(text, r"\.000000$", "")
    return text if zone is None else pc.binary_join_element_wise(text, "+00:00", "")


def is_whole(column: pa.Array | pa.ChunkedArray, name: str) -> bool:
    """Whether a column of numbers, in which NaN is no value, holds nothing but whole numbers of 64 bits.

    Raises:
        SourceError: floats so large that they may have lost digits.
    """
    kind = column.type
    if pa.types.is_integer(kind):
        return kind != pa.uint64() or bool(pc.all(pc.less(column, pa.scalar(2**63, pa.uint64())), min_count=0).as_py())
    floats = column.cast(pa.float64())
    size = pc.abs(floats)
    exact = _EXACT[kind]
    if pc.any(pc.and_(pc.greater_equal(size, exact), pc.is_finite(size))).as_py():
        raise SourceError(
            f"column {name!r} holds ids as {kind}, some of {exact:,.0f} or more, where it has no room for every digit; "
            "write them as whole numbers or as text"
        )
    whole = pc.and_(pc.equal(floats, pc.trunc(floats)), pc.is_finite(floats))
    return bool(pc.all(pc.or_(whole, pc.is_nan(floats)), min_count=0).as_py())


def as_type(ids: pa.Array, kind: pa.DataType) -> pa.Array:
    """Ids as int64 or string, whichever `kind` is: "7" and 7 are one id. Text that is no whole number becomes null."""
    ids = canonical(ids, "id")
    if pa.types.is_string(ids.type) and pa.types.is_int64(kind):
        whole = pc.match_substring_regex(ids, WHOLE_NUMBER)
        ids = pc.if_else(whole, ids, pa.scalar(None, ids.type))
    return ids.cast(kind)


def column_of(values: Sequence[object], name: str) -> pa.Array:
    """Python values, None = absent, as an array.

    Raises:
        SourceError: they are of types that no column can hold together.
    """
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise SourceError(f"the values of {name!r} are of several types; write them as one: {error}") from None


def one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The same values as one array, whatever the chunking."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
