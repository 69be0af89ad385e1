"""A log in parts of whole users that each fit into memory, in the order of the users' ids.

Every user's rows are in one part, so a part can be cleaned, grouped, counted and turned into tokens by itself; and what
comes of the parts, one after another, is what comes of the whole log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Codes, Longs
from tokenization.ids import Ids, one_chunk

PART_ROWS = 1_000_000
"""Rows of a part: they take some hundred megabytes while they become tokens."""
_PART_BYTES = 512 << 20
"""Of a part, as Arrow holds it."""
MOST_PARTS = 256
"""Files that are written at a time. A log that would need more has larger parts."""
_ROUTED = 524_288
"""Rows that are sent to their parts at a time: fewer would make small batches in each."""
_HELD = 4_000_000
"""Users whose counts wait to be added up."""


@dataclass(frozen=True, eq=False)
class Borders:
    """Where parts begin. first: [p - 1] the first user of every part but the first, in the order of ids."""

    first: pa.Array

    @property
    def parts(self) -> int:
        """p, how many there are."""
        return len(self.first) + 1

    def part_of(self, users: Ids) -> Codes:
        """[n] the part of each row; rows of nobody are spread over all."""
        both = pa.concat_arrays([self.first, users.values.cast(self.first.type)])
        order = pc.array_sort_indices(both).to_numpy()  # stable, so a border stands before the user it names
        part = np.empty(len(both) + 1, np.int32)
        part[order] = np.cumsum(order < len(self.first))
        rows = np.arange(len(users.index), dtype=np.int32)
        return np.where(users.missing, rows % self.parts, part[len(self.first) :][users.index]).astype(np.int32)


def find_borders(users: pa.Array, counts: Longs, part_rows: int = PART_ROWS) -> Borders:
    """Borders between parts of about so many rows; a user with more is a part alone.

    Args:
        users, counts: [u] users in the order of their ids, and how many rows each has; see `sum_counts`.
    """
    before = np.cumsum(counts) - counts
    part = before // max(part_rows, -(-int(counts.sum()) // MOST_PARTS), 1)
    return Borders(users.take(pa.array(np.flatnonzero(np.diff(part)) + 1)))


def count_users(users: Ids) -> pa.Table:
    """Distinct users of a batch: `user`, and `rows`, how many each has."""
    counts = np.bincount(users.index[~users.missing], minlength=len(users.values))
    return pa.table({"user": users.values, "rows": counts})


def sum_counts(batches: Iterable[pa.Table]) -> tuple[pa.Array, Longs]:
    """Distinct users of all batches that `count_users` made, in the order of their ids, and [u] the rows of each."""
    waiting: list[pa.Table] = []
    rows, limit = 0, _HELD
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows > limit:
            waiting = [_summed(waiting)]
            rows = waiting[0].num_rows
            limit = rows + _HELD
    if not waiting:
        return pa.array([], pa.int64()), np.zeros(0, np.int64)
    users = _summed(waiting).sort_by("user").combine_chunks()
    return one_chunk(users.column("user")), users.column("rows").to_numpy()


def part_rows_of(batches: Iterable[pa.Table], part_rows: int = PART_ROWS) -> int:
    """Rows of a part: `part_rows`, or fewer where the rows of the first batch are wide."""
    for batch in batches:
        return min(part_rows, max(1, _PART_BYTES * int(batch.num_rows) // max(int(batch.nbytes), 1)))
    return part_rows


def _summed(waiting: list[pa.Table]) -> pa.Table:
    summed = pa.concat_tables(waiting).group_by("user").aggregate([("rows", "sum")])
    return summed.rename_columns({"rows_sum": "rows"}).select(["user", "rows"])


def route(batches: Iterable[pa.Table], user: str, borders: Borders) -> Iterator[list[tuple[int, pa.Table]]]:
    """Some hundred thousand rows after others, by the number of the part they belong to; in each they keep their order.

    Args:
        user: name of the column of users.
    """
    for batch in _gathered(batches):
        yield list(split(batch, borders.part_of(Ids.of(batch.column(user), user))))


def split(table: pa.Table, part: Codes) -> Iterator[tuple[int, pa.Table]]:
    """A table by the number [n] of each row's part, the rows of each in their order."""
    order = np.argsort(part.astype(np.int16), kind="stable")
    sorted_ = part[order]
    if not np.array_equal(order, np.arange(len(order))):
        table = table.take(pa.array(order))
    starts = np.flatnonzero(np.append(np.ones(min(len(part), 1), np.bool_), np.diff(sorted_) != 0))
    for start, rows in zip(starts, np.diff(np.append(starts, len(part))), strict=True):
        yield int(sorted_[start]), table.slice(start, rows)


def _gathered(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer tables of one chunk each."""
    waiting: list[pa.Table] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= _ROUTED:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, rows = [], 0
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()
