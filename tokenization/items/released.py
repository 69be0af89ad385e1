"""Since when items exist, as the items table says it: what their age is counted from, before anybody met them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Floats, Mask
from tokenization.codes.vocabulary import FIRST
from tokenization.errors import SourceError
from tokenization.events import clock
from tokenization.ids import Ids, as_type, one_chunk
from tokenization.items.content import ItemTable
from tokenization.schema.event_schema import EventSchema


def since_release(items: ItemTable, table: pa.Table, schema: EventSchema, known: int = 0) -> ItemTable:
    """The same items, each known since the time that its row of `table` says, where it says one.

    Args:
        table: the columns that `schema.items` declares.
        known: rows of `items` that stay as they are: what a trained model was told of an item is for ever.

    Raises:
        SourceError: a value that is no time.
    """
    if schema.items is None or schema.items.released is None or len(items) <= known:
        return items
    ids = items.ids
    listed = as_type(Ids.of(table.column(schema.items.id), schema.items.id).decode(), ids.ids.type)
    row = pc.index_in(ids.ids, value_set=listed).fill_null(-1).to_numpy()
    released = np.append(_times(table, schema), np.nan)[row]
    told = np.isfinite(released) & (np.arange(FIRST, len(items)) >= known)
    return replace(items, ids=replace(ids, first_seen=np.where(told, released, ids.first_seen)))


def _times(table: pa.Table, schema: EventSchema) -> Floats:
    """[rows] seconds since 1970 UTC, NaN where a row says nothing."""
    assert schema.items is not None
    assert schema.items.released is not None
    assert schema.time is not None  # EventSchema sees to it
    name = schema.items.released
    column = one_chunk(table.column(name))
    try:
        times = clock.instants(column, schema.time.unit, schema.time.zone, np.zeros(len(column), np.bool_))
    except SourceError as error:
        raise SourceError(f"{name!r} of the items table: {error}") from None
    wrong = np.flatnonzero(np.isnan(times) & _given(column))
    if len(wrong):
        # As text: a time that is too far away for Arrow is for Python too.
        item, value = (one_chunk(table.column(of)).take(wrong[:1]).cast(pa.string()) for of in (schema.items.id, name))
        raise SourceError(
            f"the items table says that {item[0].as_py()!r} was released {value[0].as_py()!r}, which is no time; "
            "write a date, a time such as 2024-03-20T12:00Z or a number, or leave it empty"
        )
    return times


def _given(column: pa.Array) -> Mask:
    """[rows] that say something: neither null, nor NaN, nor blank."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    given = pc.is_valid(column)
    if pa.types.is_floating(column.type):
        given = pc.and_(given, pc.invert(pc.is_nan(column).fill_null(True)))
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        given = pc.and_(given, pc.not_equal(pc.utf8_trim_whitespace(column), "").fill_null(False))
    return np.asarray(given.to_numpy(zero_copy_only=False))
