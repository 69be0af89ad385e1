"""Tables in.

A table is a path or URL (Parquet, Arrow/Feather, CSV, JSON lines, Lance; a file or a folder of them) or what is in
memory already: Arrow, pandas, polars, anything with the Arrow stream interface.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from tokenization.errors import SourceError, nearest, with_article
from tokenization.ids import canonical, column_of, is_whole
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import ItemsRule, Kind, UsersRule
from tokenization.sources.columns import Types, joint, require
from tokenization.sources.files import files
from tokenization.sources.formats import InMemory, Stored, open_file, selected
from tokenization.sources.texts import UNREAD

TableLike = object
"""A path or URL, or a table in memory: pyarrow, pandas, polars, or any object with `__arrow_c_stream__`."""

_KEPT = 64 << 20
"""Bytes of text that a scan rather keeps than parses again."""
_NUMBERS = (Kind.NUMBER, Kind.DURATION, Kind.TIMESTAMP, Kind.VECTOR)


@dataclass(frozen=True)
class Scan:
    """Some columns of a table in batches, again and again, without ever holding all of it.

    parts: the files of the table, or the table itself. columns: those asked for. ids: those of them that are ids, which
    come as whole numbers or as text, whichever holds all of them. where: what the table is called in a sentence.
    """

    parts: tuple[Stored, ...]
    columns: tuple[str, ...]
    ids: frozenset[str]
    where: str

    @cached_property
    def rows(self) -> int:
        """How many there are."""
        return sum(part.rows for part in self.parts)

    @property
    def schema(self) -> pa.Schema:
        """The types as a schema, in the order of `columns`; behind them `UNREAD`, where a row can't be read."""
        return pa.schema(self.types.items())

    @cached_property
    def types(self) -> Types:
        """Of each column: what holds all values of all files, and text where nothing else does.

        CSV and JSON lines have to be read for that, and numbers with a fraction where ids should be.
        """
        told = [self.look(part) for part in self.parts]
        lost = [UNREAD] if any(UNREAD in types for types in told) else []
        return {name: joint([types.get(name, pa.null()) for types in told]) for name in (*self.columns, *lost)}

    def look(self, part: Stored) -> Types:
        """What one of the files says of the types; what all of them say is joined."""
        found = {name: _plain(kind) for name, kind in part.types.items()}
        ids = [name for name in self.columns if name in self.ids]
        unsure = [name for name in ids if _unsure(found[name])]
        whole = dict.fromkeys(unsure, True)
        for batch in part.batches(unsure) if unsure else ():
            for name in unsure:
                whole[name] &= is_whole(_decoded(batch.column(name)), name)
        found |= {name: pa.int64() if whole[name] else pa.string() for name in unsure}
        return found | {name: pa.string() for name in ids if pa.types.is_temporal(found[name])}

    def batches(self, columns: Sequence[str] | None = None, part: int | None = None) -> Iterator[pa.Table]:
        """All rows in order, or of some columns, or of one part; a column has one type in all batches."""
        names = list(self.types if columns is None else columns)
        kinds = pa.schema([(name, self.types[name]) for name in names])
        for batch in self._stored(names, self.parts if part is None else self.parts[part : part + 1]):
            if batch.schema.equals(kinds):
                yield batch
            else:
                yield pa.table({name: self._cast(batch.column(name), name) for name in names})

    def read(self) -> pa.Table:
        """All of it at once."""
        return pa.concat_tables([self.schema.empty_table(), *self.batches()])

    def _stored(self, columns: Sequence[str], parts: Sequence[Stored]) -> Iterator[pa.Table]:
        for part in parts:
            for batch in part.batches([name for name in columns if name in part.types]):
                yield selected(batch, columns)

    def _cast(self, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        kind = self.types[name]
        try:
            if name in self.ids and (_unsure(_plain(column.type)) or pa.types.is_temporal(column.type)):
                return pa.chunked_array([canonical(chunk, name).cast(kind) for chunk in column.chunks], kind)
            return pa.chunked_array([pa.nulls(len(column))]) if pa.types.is_null(kind) else column.cast(kind)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            kinds = " and ".join(dict.fromkeys(str(part.types[name]) for part in self.parts))
            raise SourceError(f"{self.where}: its files hold {name!r} as {kinds}; write one type everywhere") from error


def scan_events(source: TableLike, schema: EventSchema) -> Scan:
    """The columns of an event table that `schema` declares, to be read in batches.

    Raises:
        SourceError: there is no such table; reading it may raise what `read_events` raises.
    """
    return _scan(source, schema.columns, frozenset(_id_columns(schema)), "event", _KEPT)


def read_events(source: TableLike, schema: EventSchema) -> pa.Table:
    """The columns of an event table that `schema` declares; and `UNREAD`, where rows of it can't be read.

    Raises:
        SourceError: can't be read, a declared column is missing, or a file has no rows.
    """
    scan = _scan(source, schema.columns, frozenset(_id_columns(schema)), "event", sys.maxsize)
    return _read(scan, source, "event")


def read_items(source: TableLike, schema: EventSchema) -> pa.Table:
    """The columns of the items table that `schema.items` declares.

    Raises:
        SourceError: as `read_events`; also where the schema declares no items.
    """
    rule = items_rule(schema)
    released = () if rule.released is None else (rule.released,)
    columns = tuple(dict.fromkeys((rule.id, *rule.categories, *rule.metadata, *rule.text, *rule.vectors, *released)))
    ids = frozenset({rule.id, *rule.categories, *rule.metadata})
    return _read_all(_scan(source, columns, ids, "item"), source, "item")


def read_users(source: TableLike, rule: UsersRule) -> pa.Table:
    """The columns of the users table that `schema.users` declares.

    Raises:
        SourceError: as `read_events`.
    """
    ids = frozenset({rule.id, *rule.categories})
    return _read_all(_scan(source, columns_of_users(rule), ids, "user"), source, "user")


def columns_of_users(rule: UsersRule) -> tuple[str, ...]:
    """The columns of a users table that are read."""
    return tuple(dict.fromkeys((rule.id, *rule.categories, *rule.numbers)))


def users_rule(schema: EventSchema) -> UsersRule:
    """What the schema says of the users table.

    Raises:
        SourceError: it says nothing.
    """
    if schema.users is None:
        raise SourceError(f"schema {schema.name!r} declares no users; add a `users:` section, or give no users")
    return schema.users


def items_rule(schema: EventSchema) -> ItemsRule:
    """What the schema says of the items table.

    Raises:
        SourceError: it says nothing.
    """
    if schema.items is None:
        raise SourceError(f"schema {schema.name!r} declares no items; add an `items:` section, or give no items")
    return schema.items


def from_rows(rows: Sequence[Mapping[str, object]], schema: EventSchema) -> pa.Table:
    """Events written as mappings of column → value, for instance one user's newest; what is left out is
    absent.

    Raises:
        SourceError: a key that is no column of the schema, or values that no column can hold together.
    """
    known = set(schema.columns)
    for row in rows:
        for key in row:
            if key not in known:
                raise SourceError(f"no column of schema {schema.name!r} is called {key!r}; {nearest(key, known)}")
    return pa.table({name: column_of([row.get(name) for row in rows], name) for name in schema.columns})


def _scan(source: TableLike, columns: tuple[str, ...], ids: frozenset[str], what: str, most: int = sys.maxsize) -> Scan:
    """`most`: bytes of files up to which text that was parsed to find its types is kept, to be parsed only once."""
    if isinstance(source, str | Path):
        found = files(source)
        keep = sum(file.size for file in found) <= most
        parts: tuple[Stored, ...] = tuple(open_file(file, columns, keep) for file in found)
        return Scan(parts, columns, ids, str(source))
    table = _in_memory(source)
    require(table.column_names, columns, f"the {what} table")
    return Scan((InMemory(table.select(list(columns)), f"the {what} table"),), columns, ids, f"the {what} table")


def _read_all(scan: Scan, source: TableLike, what: str) -> pa.Table:
    """A table of which no row is set aside.

    Raises:
        SourceError: it has no rows, or one that can't be read.
    """
    table = _read(scan, source, what)
    if UNREAD in table.column_names:
        lost = table[UNREAD].drop_null()
        name = next(part.name for part in scan.parts if UNREAD in part.types)
        told = f"row {lost[0]['row']} {lost[0]['reason']}"
        more = f", and {len(lost) - 1:,} more can't be read" if len(lost) > 1 else ""
        raise SourceError(f"{name}: {told}{more}; mend the table, of which no {what} can be left out")
    return table


def _read(scan: Scan, source: TableLike, what: str) -> pa.Table:
    table = scan.read()
    if table.num_rows == 0 and isinstance(source, str | Path):
        raise SourceError(f"{source} has no rows; give a table with at least one {what}")
    return table


def _in_memory(source: object) -> pa.Table:
    if isinstance(source, pa.Table):
        return source
    try:
        return pa.table(source)
    except (TypeError, ValueError, pa.ArrowException):
        kind = with_article(type(source).__name__)
        raise SourceError(f"{kind} is no table; give a path, or a pyarrow, pandas or polars table") from None


def _id_columns(schema: EventSchema) -> Iterator[str]:
    """Columns that are known by their values, and not computed with."""
    yield schema.user
    if schema.action:
        yield schema.action.column
    for column in (schema.group, schema.event_id):
        if column:
            yield column
    yield from (rule.column for rule in schema.entities.values())
    yield from (rule.column for rule in schema.facets.values() if rule.kind not in _NUMBERS)


def _unsure(kind: pa.DataType) -> bool:
    """Whether only the values tell if ids of this type are whole numbers."""
    return bool(pa.types.is_floating(kind) or pa.types.is_uint64(kind))


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values, however they are kept."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind
