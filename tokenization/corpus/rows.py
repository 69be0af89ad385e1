"""One row a user out of parts that each have some: whose rows lie where, and lists put one after another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Codes, Longs
from tokenization.codes.vocabulary import ABSENT
from tokenization.corpus.parts import OPEN, Part, ids_ascend
from tokenization.ids import Ids, one_chunk

_LENGTHS = "group"
"""A column that every part has, and so the one that says how long the lists of a missing column are."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where one part has its users. user: [r] numbers of users, ascending. row: [r] their rows; None where these are
    0, 1, 2.. themselves."""

    user: Longs
    row: Longs | None

    @classmethod
    def of(cls, user: Longs) -> Self:
        """From the user of each row [r]."""
        if (np.diff(user) >= 0).all():
            return cls(user, None)
        row = np.argsort(user, kind="stable")
        return cls(user[row], row)

    def rows(self, begin: int, end: int) -> Longs:
        """Rows of the places from `begin` to `end`."""
        return np.arange(begin, end) if self.row is None else self.row[begin:end]

    def find(self, users: Longs) -> tuple[Longs, Longs]:
        """Rows of distinct ascending users, and whose each is."""
        begin, end = np.searchsorted(self.user, users), np.searchsorted(self.user, users, side="right")
        sizes = end - begin
        at = np.repeat(begin - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
        return (at if self.row is None else self.row[at]), np.repeat(users, sizes)


def place_users(ids: Sequence[pa.Array]) -> tuple[pa.Array, tuple[Place, ...]]:
    """Whose rows the parts have.

    Args:
        ids: of each part, one a row. Where some are text and some numbers, all are read as text.

    Returns:
        [u] the ids of all, in order; and for each part the place of each user by number.
    """
    if len(ids) == 1 and ids_ascend(ids[0]):
        return ids[0], (Place(np.arange(len(ids[0])), None),)
    kind = next((column.type for column in ids if not pa.types.is_int64(column.type)), ids[0].type)
    users, number = Ids.of(pa.concat_arrays([column.cast(kind) for column in ids]), "user_id").rank()
    ends = np.cumsum([len(column) for column in ids])[:-1]
    return users, tuple(Place.of(part.astype(np.int64)) for part in np.split(number, ends))


def join(tables: Sequence[pa.Table], users: Sequence[Longs]) -> pa.Table:
    """Rows of several parts, all with the same columns, as one row a user in the order of the users' numbers.

    Args:
        tables: in the order of the parts; a user's lists are put one after another in that order, each without the
            tokens at its end that the next one says again (`OPEN`). Of an attribute (`user.<name>`) the last that is
            known is kept.
        users: of each table, the number of the user of each row, ascending.
    """
    held = [(table, user) for table, user in zip(tables, users, strict=True) if table.num_rows]
    if len(held) <= 1:
        table, user = held[0] if held else (tables[0], users[0])
        if (np.diff(user) > 0).all():
            return table
    number = np.concatenate([user for _, user in held])
    order = np.argsort(number, kind="stable")
    firsts = np.flatnonzero(np.diff(number[order], prepend=-1))
    whole = pa.concat_tables([table for table, _ in held])
    tokens, offsets = _gathered(whole, order, firsts)
    columns = []
    for name, column in zip(whole.column_names, whole.columns, strict=True):
        if pa.types.is_list(column.type):
            values = pa.concat_arrays([chunk.flatten() for chunk in column.chunks]).take(tokens)
            columns.append(pa.ListArray.from_arrays(offsets, values, type=column.type))
        elif name == OPEN:
            columns.append(one_chunk(column).take(pa.array(order[np.append(firsts[1:], len(order)) - 1])))
        elif pa.types.is_int32(column.type):
            columns.append(_last_known(column.to_numpy()[order], firsts))
        else:  # the user's id
            columns.append(one_chunk(column).take(pa.array(order[firsts])))
    return pa.table(columns, names=whole.column_names)


def _gathered(table: pa.Table, order: Longs, firsts: Longs) -> tuple[pa.Array, pa.Array]:
    """Which tokens come one after another when rows are put in `order`, and where the lists of each user begin. The
    lists of a row are all as long, so this is found once, and each column takes its values in one go."""
    column = next((column for column in table.columns if pa.types.is_list(column.type)), None)
    sizes = np.zeros(len(order), np.int64) if column is None else pc.list_value_length(column).to_numpy()
    starts, sizes = (np.cumsum(sizes) - sizes)[order], sizes[order].astype(np.int64)
    if OPEN in table.column_names and column is not None:
        again = np.ones(len(order), np.bool_)  # all rows of a user but the last
        again[np.append(firsts[1:], len(order)) - 1] = False
        sizes -= np.where(again, table.column(OPEN).to_numpy()[order], 0)
    ends = np.cumsum(sizes)
    tokens = np.repeat(starts - (ends - sizes), sizes) + np.arange(sizes.sum())
    return pa.array(tokens), pa.array(np.append((ends - sizes)[firsts], sizes.sum()), pa.int32())


def _last_known(codes: Codes, firsts: Longs) -> pa.Array:
    """Of the codes from each of `firsts` to the next the last that is not absent."""
    known = np.where(codes != ABSENT, np.arange(len(codes)), -1)
    last = np.maximum.reduceat(known, firsts)
    return pa.array(codes[np.where(last >= 0, last, firsts)])


def read_as(schema: pa.Schema, have: pa.Schema) -> list[str]:
    """The columns to read of a part that has `have`, so that `complete` makes `schema` of them."""
    there = [name for name in schema.names if name in have.names]
    return there if len(there) == len(schema.names) or _LENGTHS in there else [*there, _LENGTHS]


def complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its order: a facet that is not there is absent, code 0; a value is null."""
    columns = []
    for field in schema:
        if field.name in table.column_names:
            column = table.column(field.name)
            columns.append(column if column.type == field.type else column.cast(field.type))
        else:
            columns.append(_absent(table.column(_LENGTHS), field))
    return pa.table(columns, schema=schema)


def _absent(lengths: pa.ChunkedArray, field: pa.Field) -> pa.Array:
    if not pa.types.is_list(field.type):
        return pa.array(np.full(len(lengths), ABSENT), field.type)
    sizes = pc.list_value_length(lengths).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    inner, count = field.type.value_type, int(sizes.sum())
    nothing = pa.nulls(count, inner) if pa.types.is_floating(inner) else pa.array(np.full(count, ABSENT), inner)
    return pa.ListArray.from_arrays(offsets, nothing, type=field.type)


def stream_users(part: Part, place: Place, cuts: Longs, schema: pa.Schema) -> Iterator[tuple[pa.Table, Longs]]:
    """A part's rows of the users from each cut to the next, with whose they are; what is read is held no longer than
    until the cut after it."""
    bounds = np.searchsorted(place.user, cuts)
    columns = read_as(schema, part.schema)
    if place.row is None:
        tables = _regrouped(part, int(bounds[0]), int(bounds[-1]), columns, np.diff(bounds))
    else:
        tables = (part.take(place.rows(begin, end), columns) for begin, end in itertools.pairwise(bounds))
    for table, (begin, end) in zip(tables, itertools.pairwise(bounds), strict=True):
        yield complete(table, schema), place.user[begin:end]


def _regrouped(part: Part, begin: int, end: int, columns: list[str], sizes: Longs) -> Iterator[pa.Table]:
    held = part.schema.empty_table().select(columns)
    pieces = part.stream(begin, end, columns)
    for size in sizes.tolist():
        while held.num_rows < size:
            held = pa.concat_tables([held, next(pieces)]) if held.num_rows else next(pieces)
        yield held.slice(0, size)
        held = held.slice(size)


def ends_of(rows: pa.Table) -> pa.Table:
    """How far users had come before what is open.

    Args:
        rows: columns user_id, time, group and `OPEN`, one row a user.

    Returns:
        Columns user_id; first and last, the times of the user's first and last closed group, float64, null where
        there is none; groups, how many are closed, int64; open, how many tokens are not, int32.
    """
    time, group = (_one(rows.column(name)) for name in ("time", "group"))
    sizes, opened = pc.list_value_length(time).to_numpy(), rows.column(OPEN).to_numpy()
    there, end = sizes > opened, np.cumsum(sizes) - opened
    first, last = np.full((2, len(sizes)), np.nan)
    groups = np.zeros(len(sizes), np.int64)
    times = time.flatten().to_numpy()
    first[there], last[there] = times[(end + opened - sizes)[there]], times[end[there] - 1]
    groups[there] = group.flatten().to_numpy()[end[there] - 1] + 1
    spans = {"first": pa.array(first, mask=~there), "last": pa.array(last, mask=~there)}
    return pa.table({"user_id": _one(rows.column("user_id")), **spans, "groups": groups, "open": opened})


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
