"""Parts of a corpus: immutable rows of users in the order of their ids, each a Parquet file or a Lance dataset."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tokenization.arrays import Longs

Format = Literal["parquet", "lance"]
_USERS, _TOKENS = 256, 2**20
"""A Parquet row group ends at so many users or tokens: what looking one user up has to read."""
OPEN = "open.tokens"
"""A column of parts alone, int32: how many tokens at the end of a row are open. The user's next row says them again."""


class Part(Protocol):
    """Rows that never change.

    schema: of the columns. rows: how many. borders: [b] ascending row numbers, 0 the first, at which reading may begin
    without reading anything twice.
    """

    @property
    def path(self) -> Path: ...

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def rows(self) -> int: ...

    @property
    def borders(self) -> Longs: ...

    def stream(self, begin: int, end: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows from `begin` to `end`, in pieces as small as the format allows."""
        ...

    def take(self, rows: Longs, columns: Sequence[str]) -> pa.Table:
        """The given rows, in that order, repeated where they are."""
        ...


@dataclass(frozen=True, eq=False)
class ParquetPart:
    """A Parquet file."""

    path: Path

    @cached_property
    def _metadata(self) -> pq.FileMetaData:
        return pq.read_metadata(self.path)

    @property
    def schema(self) -> pa.Schema:
        """Of all columns."""
        return self._metadata.schema.to_arrow_schema()

    @property
    def rows(self) -> int:
        """How many."""
        return int(self._metadata.num_rows)

    @cached_property
    def borders(self) -> Longs:
        """Where row groups begin."""
        sizes = [self._metadata.row_group(g).num_rows for g in range(self._metadata.num_row_groups)]
        return np.cumsum([0, *sizes])[:-1].astype(np.int64) if sizes else np.zeros(1, np.int64)

    def stream(self, begin: int, end: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Row group by row group."""
        if begin >= end:
            return
        first, last = np.searchsorted(self.borders, [begin, end - 1], side="right") - 1
        with pq.ParquetFile(self.path, metadata=self._metadata) as file:
            for number in range(int(first), int(last) + 1):
                start = int(self.borders[number])
                table = file.read_row_group(number, columns=list(columns))
                low = max(begin - start, 0)
                yield table.slice(low, end - start - low)

    def take(self, rows: Longs, columns: Sequence[str]) -> pa.Table:
        """By row group, each read once and held no longer than its rows are picked."""
        distinct, place = np.unique(rows, return_inverse=True)
        group_of = np.searchsorted(self.borders, distinct, side="right") - 1
        found = [self.schema.empty_table().select(list(columns))]
        with pq.ParquetFile(self.path, metadata=self._metadata) as file:
            for number in np.unique(group_of):
                wanted = distinct[group_of == number] - self.borders[number]
                found.append(file.read_row_group(int(number), columns=list(columns)).take(pa.array(wanted)))
        return pa.concat_tables(found).combine_chunks().take(pa.array(place))


@dataclass(frozen=True, eq=False)
class LancePart:
    """A Lance dataset. Lance takes a dot for the way into a struct, so `quantity.value` is `quantity:value` there."""

    path: Path

    @cached_property
    def _dataset(self) -> Any:
        import lance

        return lance.dataset(str(self.path))

    @cached_property
    def schema(self) -> pa.Schema:
        """Of all columns, by the names that the corpus gives them."""
        return _from_lance(self._dataset.schema.empty_table()).schema

    @cached_property
    def rows(self) -> int:
        """How many."""
        return int(self._dataset.count_rows())

    @property
    def borders(self) -> Longs:
        """Lance begins anywhere."""
        return np.arange(0, max(self.rows, 1), _USERS)

    def stream(self, begin: int, end: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Batch by batch."""
        if begin >= end:
            return
        scanner = self._dataset.scanner(
            columns=_lance_names(columns), offset=begin, limit=end - begin, batch_size=_USERS, scan_in_order=True
        )
        for batch in scanner.to_batches():
            yield _from_lance(pa.table(batch))

    def take(self, rows: Longs, columns: Sequence[str]) -> pa.Table:
        """Each row once, whatever is asked."""
        distinct, place = np.unique(rows, return_inverse=True)
        table = _from_lance(self._dataset.take(distinct.tolist(), columns=_lance_names(columns)))
        return table.combine_chunks().take(pa.array(place))


def open_part(path: Path) -> Part:
    """A part that `write_parts` wrote, by the end of its name."""
    return LancePart(path) if path.suffix == ".lance" else ParquetPart(path)


def write_parts(folder: Path, first: int, tables: Iterable[pa.Table], format: Format) -> list[Path]:
    """Write token tables in as few parts as keep each in the order of its ids.

    Args:
        folder: where they go, each called by its number from `first` on.
        tables: token tables; of one that begins before the end of the one before a new part begins.

    Returns:
        The parts; none where there is no table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for number, run in itertools.groupby(_numbered(tables), key=itemgetter(0)):
        paths.append(folder / f"{first + number:05}.{format}")
        _WRITERS[format](paths[-1], map(itemgetter(1), run))
    return paths


def read_ids(part: Part) -> pa.Array:
    """[rows] whose each row is."""
    nobody = part.schema.empty_table().select(["user_id"])
    return pa.concat_tables([nobody, *part.stream(0, part.rows, ["user_id"])]).column(0).combine_chunks()


def ids_ascend(ids: pa.Array | pa.ChunkedArray) -> bool:
    """Whether each id comes after the one before it."""
    return bool(pc.all(pc.less(ids.slice(0, len(ids) - 1), ids.slice(1))).as_py()) if len(ids) > 1 else True


def _numbered(tables: Iterable[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
    """Each table with the number of its part: the next where its ids don't go on ascending, or its columns change."""
    number, last, schema = 0, None, None
    for table in map(_in_order, tables):
        ids = table.column("user_id")
        if schema is not None:
            if not len(ids):
                continue
            goes_on = schema.equals(table.schema) and (last is None or pc.less(last, ids[0]).as_py())
            number += not goes_on
        schema, last = table.schema, ids[len(ids) - 1] if len(ids) else last
        yield number, table


def _in_order(table: pa.Table) -> pa.Table:
    ids = table.column("user_id")
    return table if ids_ascend(ids) else table.take(pc.array_sort_indices(ids.combine_chunks()))


def _write_parquet(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    options = {
        # Arrow's own name for the inside of a list, so that what is read equals what was written.
        "use_compliant_nested_type": False,
        # Nobody looks a token up by what it holds. Codes are small numbers, which zstd packs nearly as well as a
        # dictionary does, and sooner; of amounts many are the same.
        "write_statistics": False,
        "use_dictionary": [f"{name}.list.item" for name in first.column_names if name.endswith(".value")],
    }
    with pq.ParquetWriter(path, first.schema, compression="zstd", **options) as writer:
        _write_row_groups(writer, first)
        for table in tables:
            _write_row_groups(writer, table)


def _write_row_groups(writer: pq.ParquetWriter, table: pa.Table) -> None:
    tokens = pc.list_value_length(table.column("group")).to_numpy().cumsum()
    number = np.arange(table.num_rows) // _USERS + tokens // _TOKENS
    cuts = np.flatnonzero(np.diff(number)) + 1
    for begin, end in itertools.pairwise([0, *cuts, table.num_rows] if table.num_rows else []):
        writer.write_table(table.slice(begin, end - begin))


def _write_lance(path: Path, tables: Iterator[pa.Table]) -> None:
    import lance

    first = next(tables)
    schema = _to_lance(first.schema.empty_table()).schema

    def batches() -> Iterator[pa.RecordBatch]:
        yield from _to_lance(first).to_batches()
        for table in tables:
            yield from _to_lance(table).to_batches()

    lance.write_dataset(batches(), str(path), schema=schema)


_WRITERS: Mapping[str, Callable[[Path, Iterator[pa.Table]], None]] = {
    "parquet": _write_parquet,
    "lance": _write_lance,
}


def _lance_names(names: Sequence[str]) -> list[str]:
    return [name.replace(".", ":") for name in names]


def _to_lance(table: pa.Table) -> pa.Table:
    return table.rename_columns(_lance_names(table.column_names))


def _from_lance(table: pa.Table) -> pa.Table:
    return table.rename_columns([name.replace(":", ".") for name in table.column_names])
