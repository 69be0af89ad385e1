"""Events of groups that were open when a part was written: what comes next of their users is read together with them.

A file beside the tokens of the parts that were written at once, a row an event as `events.stored` has it, users in any
order. Of a user counts what stands beside the newest part that has tokens of the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tokenization.arrays import Longs, Mask
from tokenization.events.stored import USER, from_table, to_table
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.evolution import origins

KEY = "key"
"""The one column of a file of keys of event ids, int64: the file tells what was there before."""
_ROWS = 65_536
"""Of a row group: what looking one user up has to read."""


@dataclass(frozen=True)
class Onward:
    """What a corpus keeps for what comes next. opened: the events of open tokens, as `events.stored` has them. keys: of
    the event ids that it has had, in a column `KEY`. Both are tables of one schema each, read after the tokens."""

    opened: Iterable[pa.Table] = ()
    keys: Iterable[pa.Table] = ()


NOTHING = Onward()


def write_keys(path: Path, tables: Iterable[pa.Table]) -> bool:
    """Write keys as a file, those of a row group in order, if there is one; and whether there is."""
    in_order = (table.sort_by(KEY) for table in tables)
    # Keys have no dictionary; the distances of so many in order take two thirds of the bits of one.
    return _write(path, in_order, 2**20, use_dictionary=False, column_encoding={KEY: "DELTA_BINARY_PACKED"})


def known_keys(path: Path, keys: Longs) -> Mask:
    """[n] whether a file holds each of these keys, which ascend; it is read a row group at a time."""
    found = np.zeros(len(keys) + 1, np.bool_)
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            there = file.read_row_group(number).column(KEY).to_numpy()
            place = np.searchsorted(keys, there)
            found[place[np.append(keys, there[:1])[place] == there]] = True
    return found[: len(keys)]


def read_keys(paths: Iterable[Path]) -> Iterator[pa.Table]:
    """All keys of some files, a row group at a time."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            yield from (file.read_row_group(number) for number in range(file.num_row_groups))


def write_open(path: Path, tables: Iterable[pa.Table]) -> bool:
    """Write open events as a file, if there are some; and whether there are."""
    return _write(path, tables, _ROWS)


def _write(path: Path, tables: Iterable[pa.Table], rows: int, **options: Any) -> bool:
    writer: pq.ParquetWriter | None = None
    try:
        for table in tables:
            if not table.num_rows:
                continue
            if writer is None:
                path.parent.mkdir(exist_ok=True)
                writer = pq.ParquetWriter(path, table.schema, compression="zstd", **options)
            writer.write_table(table, row_group_size=rows)
    finally:
        if writer is not None:
            writer.close()
    return writer is not None


def read_open(path: Path, users: pa.Array) -> pa.Table:
    """The rows of the users asked for; the rest of the file but for whose rows these are is not read."""
    with pq.ParquetFile(path) as file:
        found = [file.schema_arrow.empty_table()]
        asked = users.cast(pa.string())
        for number in range(file.num_row_groups):
            whose = file.read_row_group(number, columns=[USER]).column(USER)
            wanted = pc.is_in(whose, value_set=asked)
            if pc.any(wanted, min_count=0).as_py():
                found.append(file.read_row_group(number).filter(wanted))
    return pa.concat_tables(found)


def revised(table: pa.Table, old: EventSchema, new: EventSchema) -> pa.Table:
    """The same events under a later revision: facets by their new names, values by their new spellings."""
    names = {was: name for name, was in origins(old, new).items() if was is not None}
    kept = [name for name in table.column_names if "." not in name or name.split(".", 1)[1] in names]
    told = table.select(kept).rename_columns([_renamed(name, names) for name in kept])
    events = from_table(told, new, pa.string())
    aliases = {"action": new.action.aliases} if new.action else {}
    aliases |= {name: rule.aliases for name, rule in new.facets.items()}
    return to_table(replace(events, ids={n: ids.renamed(aliases.get(n, {})) for n, ids in events.ids.items()}))


def _renamed(column: str, names: dict[str, str]) -> str:
    kind, dot, name = column.partition(".")
    return f"{kind}.{names[name]}" if dot else column


def newest_part(users: Longs, of_parts: Iterable[Longs]) -> Longs:
    """[u] the last part that has a row of each user, -1 where none has.

    Args:
        users: [u] numbers. of_parts: of each part, the numbers of the users who have a row there, ascending.
    """
    newest = np.full(len(users), -1)
    for number, there in enumerate(of_parts):
        newest[np.isin(users, there)] = number
    return newest
