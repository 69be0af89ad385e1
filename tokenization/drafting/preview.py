"""A sample of a log of which nothing is declared yet: every column, as its files have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tokenization.errors import SourceError, first_line
from tokenization.sources.files import File, files
from tokenization.sources.formats import Text, Typed, open_file, reading
from tokenization.sources.texts import UNREAD

_FILES = 8
"""Of a folder with more files, so many evenly spaced ones are looked at."""
_STRETCH = 1024
"""Rows that are taken together, so that what follows one another in the log does so in the sample."""


@dataclass(frozen=True, eq=False)
class Preview:
    """Some rows of a log. unread: why rows of what was looked at could not be read, how many of them for each."""

    table: pa.Table
    unread: Counter[str]


def preview(source: str | Path, rows: int) -> Preview:
    """Stretches from all over a file, or over files of a folder, in order: at most so many rows of all columns, and no
    fewer than half as many where there are. All of each file that is looked at is read.

    Args:
        source: a path or a URL.

    Raises:
        SourceError: there is no such file or folder, its format isn't known, it can't be read, or it has no rows.
    """
    found = files(source)
    looked = found[:: -(-len(found) // _FILES)]
    unread: Counter[str] = Counter()
    parts = [thinned(_batches(file, unread), -(-rows // len(looked))) for file in looked]
    try:
        table = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowTypeError as error:
        said = first_line(error)
        raise SourceError(f"{source}: its files hold a column as different types: {said}; give one of them") from error
    if table.num_rows == 0:
        told = f"{source} has no rows"
        if unread:
            reason, count = unread.most_common(1)[0]
            told = f"{source} has no row that can be read, {count:,} of {unread.total():,}: {reason}"
        raise SourceError(f"{told}; give a table with at least one event")
    return Preview(table, unread)


def thinned(batches: Iterable[pa.Table], rows: int) -> pa.Table:
    """Evenly spaced stretches of a stream of rows, half of `rows` of them at least where there are so many.

    Twice as many are held at most: whenever there are more, every other one goes, and from then on half as many come.
    """
    kept: list[pa.Table] = []
    step, number, most = 1, 0, max(rows // _STRETCH, 1)
    for batch in batches:
        for start in range(0, batch.num_rows, _STRETCH):
            if number % step == 0:
                kept.append(batch.slice(start, _STRETCH))
            number += 1
            if len(kept) > most:
                kept, step = kept[::2], step * 2
    return pa.concat_tables(kept, promote_options="permissive") if kept else pa.table({})


def _batches(file: File, unread: Counter[str]) -> Iterator[pa.Table]:
    """Of all columns, without the rows that can't be read, which are counted."""
    columns = _column_names(file)
    opened = open_file(file, columns, keep=False)
    if isinstance(opened, Typed):
        yield from opened.batches(columns)
        return
    for batch in opened.batches([*columns, UNREAD]):
        lost = batch[UNREAD].combine_chunks()
        if lost.null_count < len(lost):
            unread.update(lost.drop_null().field("reason").to_pylist())
            batch = batch.filter(lost.is_null())
        yield batch.drop_columns([UNREAD])


def _column_names(file: File) -> list[str]:
    """All columns of a file; of JSON lines, those of its first block."""
    opened = open_file(file, (), keep=False)
    with reading(file):
        if isinstance(opened, Typed):
            return list(opened.look(file)[0].names)
        assert isinstance(opened, Text)
        found = (list(batch.column_names) for batch in opened.read(file, []))
        return next((names for names in found if names != [UNREAD]), [])
