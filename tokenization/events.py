"""The events of a log in canonical columns: ids as distinct values with an index, numbers and times as
floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tokenization.clock import Floats, Mask
from tokenization.errors import SourceError

Indices = NDArray[np.int32]


@dataclass(frozen=True)
class Ids:
    """A column of ids: `values` [d] distinct, int64 or string; `index` [n] into them, -1 where there is
    none."""

    values: pa.Array
    index: Indices

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray, name: str) -> Ids:
        """Any hashable column in one of two types, so that 7 from Parquet and 7 from CSV are one id.

        Whole numbers (also as floats, which is what pandas makes of integers with gaps) become int64,
        everything else text.

        Raises:
            SourceError: a type that has no text, such as a list.
        """
        encoded = pc.dictionary_encode(_canonical(one_chunk(column), name))
        index = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        return cls(encoded.dictionary, index.astype(np.int32, copy=False))

    @property
    def missing(self) -> Mask:
        """[n] rows without an id."""
        return np.asarray(self.index < 0)

    def take(self, rows: NDArray[Any]) -> Ids:
        """The given rows, by mask or by number."""
        return Ids(self.values, self.index[rows])

    def decode(self) -> pa.Array:
        """[n] the ids themselves, null where there is none."""
        return self.values.take(pa.array(self.index, mask=self.missing))

    def rank(self) -> tuple[pa.Array, Indices]:
        """Distinct ids in use, sorted, and [n] the place of each row's id among them (-1 stays)."""
        used = np.flatnonzero(np.bincount(self.index[self.index >= 0], minlength=len(self.values)))
        values = self.values.take(pa.array(used))
        order = pc.array_sort_indices(values)
        place = np.full(len(self.values) + 1, -1, np.int32)
        place[used[order.to_numpy()]] = np.arange(len(used), dtype=np.int32)
        return values.take(order), place[self.index]


def one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The same values as one array, whatever the chunking."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _canonical(column: pa.Array, name: str) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _canonical(column.dictionary_decode(), name)
    if pa.types.is_string(kind) or pa.types.is_int64(kind):
        return column
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
        whole = pc.all(pc.equal(column, pc.trunc(column)), min_count=0).as_py()
        return column.cast(pa.int64()) if whole else column.cast(pa.string())
    try:
        return column.cast(pa.int64() if pa.types.is_integer(kind) else pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise SourceError(f"column {name!r} holds {kind}, which can't be an id; cast it to text") from None


@dataclass(frozen=True)
class Events:
    """n sound events, in any order.

    users: whose. times: [n] when they take effect, seconds since 1970 UTC (or positions). groups: declared
    group ids, None where the schema has none. ids: action, entities and categories by facet name. numbers:
    [n] float64 by facet name, NaN = absent.
    """

    users: Ids
    times: Floats
    groups: Ids | None
    ids: Mapping[str, Ids]
    numbers: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.times)

    def take(self, rows: NDArray[Any]) -> Events:
        """The given rows, by mask or by number."""
        return Events(
            self.users.take(rows),
            self.times[rows],
            None if self.groups is None else self.groups.take(rows),
            {name: column.take(rows) for name, column in self.ids.items()},
            {name: values[rows] for name, values in self.numbers.items()},
        )
