"""A sample of a log of which nothing is declared yet: every column, as its files have it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds

from tokenization.errors import SourceError

_FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".feather": "ipc",
    ".ipc": "ipc",
    ".csv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".lance": "lance",
}
_FILES = 8
"""Of a folder with more files, so many evenly spaced ones are looked at; and of the row groups of a Parquet file."""
_STRETCH = 1024
"""Rows that are taken together, so that what follows one another in the log does so in the sample."""


def preview(source: str | Path, rows: int) -> pa.Table:
    """Stretches from all over a file, or over files of a folder: so many rows or a few more, in order, all columns.

    Raises:
        SourceError: there is no such file or folder, its format isn't known, it can't be read, or it has no rows.
    """
    path = Path(source)
    if not path.exists():
        raise SourceError(f"{source} doesn't exist; give a file or folder of Parquet, Arrow, CSV, JSON lines or Lance")
    files = _files(path)
    try:
        parts = [thinned(_batches(file), -(-rows // len(files))) for file in files]
        table = pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowException, OSError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise SourceError(f"{source} can't be read: {said}") from error
    if table.num_rows == 0:
        raise SourceError(f"{source} has no rows; give a table with at least one event")
    return table


def _files(path: Path) -> list[Path]:
    if path.is_file() or _format(path) == "lance":
        if _format(path) is None:
            raise SourceError(f"{path}: the name must end in one of {', '.join(_FORMATS)} so that its format is known")
        return [path]
    found = sorted(p for p in path.rglob("*") if _format(p) and p.is_file() and not p.name.startswith((".", "_")))
    if not found:
        raise SourceError(f"{path} is a folder without a file named {', '.join(_FORMATS)}; give another")
    return _spread(found)


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


def _spread(found: list[Any]) -> list[Any]:
    step = -(-len(found) // _FILES)
    return found[:: max(step, 1)]


def _format(path: Path) -> str | None:
    suffixes = [suffix for suffix in path.suffixes[-2:] if suffix != ".gz"]
    return _FORMATS.get(suffixes[-1].lower()) if suffixes else None


def _batches(path: Path) -> Iterator[pa.Table]:
    kind = _format(path)
    reader: Any = kind
    if kind == "lance":
        import lance

        yield from map(pa.table, lance.dataset(str(path)).to_batches())
        return
    if kind == "csv":
        # Left to guess, a CSV reader makes 7 of the id "007" and nothing of the country "NA".
        names = ds.dataset(path, format="csv").schema.names
        text = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        reader = ds.CsvFileFormat(convert_options=text)
    (file,) = ds.dataset(path, format=reader).get_fragments()
    for part in _spread(file.split_by_row_group()) if kind == "parquet" else [file]:
        yield from map(pa.table, part.to_batches())
