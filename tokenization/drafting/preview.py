"""A sample of a log of which nothing is declared yet: every column, as its files have it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from tokenization.errors import SourceError
from tokenization.sources.files import File, files
from tokenization.sources.formats import Text, Typed, open_file

_FILES = 8
"""Of a folder with more files, so many evenly spaced ones are looked at."""
_STRETCH = 1024
"""Rows that are taken together, so that what follows one another in the log does so in the sample."""


def preview(source: str | Path, rows: int) -> pa.Table:
    """Stretches from all over a file, or over files of a folder, in order: at most so many rows of all columns, and no
    fewer than half as many where there are. All of each file that is looked at is read.

    Args:
        source: a path or a URL.

    Raises:
        SourceError: there is no such file or folder, its format isn't known, it can't be read, or it has no rows.
    """
    found = files(source)
    looked = found[:: -(-len(found) // _FILES)]
    parts = [thinned(_batches(file), -(-rows // len(looked))) for file in looked]
    try:
        table = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowTypeError as error:
        said = str(error).splitlines()[0]
        raise SourceError(f"{source}: its files hold a column as different types: {said}; give one of them") from error
    if table.num_rows == 0:
        raise SourceError(f"{source} has no rows; give a table with at least one event")
    return table


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


def _batches(file: File) -> Iterator[pa.Table]:
    columns = _column_names(file)
    return open_file(file, columns, keep=False).batches(columns)


def _column_names(file: File) -> list[str]:
    """All columns of a file; of JSON lines, those of its first block."""
    opened = open_file(file, (), keep=False)
    try:
        if isinstance(opened, Typed):
            return list(opened.look(file)[0].names)
        assert isinstance(opened, Text)
        return next((list(batch.column_names) for batch in opened.read(file, [])), [])
    except (pa.ArrowException, OSError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise SourceError(f"{file.name} can't be read as {file.format}: {said}") from error
