"""Parts of a log on disk, for as long as they are needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa

from tokenization.errors import CorpusError, first_line


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """A folder beside `out` that only its owner may read, and that is gone afterwards, whatever happens.

    What a killed process left there is cleared away.

    Raises:
        CorpusError: it can't be written, for instance because the disk is full.
    """
    folder = out.parent / f".{out.name}.parts"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, mode=0o700)
        yield folder
    except OSError as error:
        said = error.strerror or first_line(error)
        raise CorpusError(f"{folder}: the parts of the log can't be kept here: {said}; free some space") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def spill(routed: Iterable[list[tuple[int, pa.Table]]], parts: int, schema: pa.Schema, folder: Path) -> list[Path]:
    """Write each table to the file of its part; [parts] files, some of which may hold no row.

    They are not compressed: that would take longer than all else that is done with them here.
    """
    paths = [folder / f"{part:05d}.arrows" for part in range(parts)]
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_stream(path, schema)) for path in paths]
        for tables in routed:
            for part, table in tables:
                writers[part].write_table(table)
    return paths


def load(path: Path) -> pa.Table:
    """A file that `spill` wrote."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        return stream.read_all()


class Rows:
    """Tables of one schema put aside, in memory or on disk."""

    def __init__(self, path: Path | None) -> None:
        """path: of the file to keep them in; None keeps them in memory."""
        self._path = path
        self._tables: list[pa.Table] = []
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Put rows aside."""
        if self._path is None:
            self._tables.append(table)
            return
        if self._writer is None:
            self._writer = pa.ipc.new_stream(self._path, table.schema)  # as they are, to be read where they lie
        self._writer.write_table(table)

    def table(self) -> pa.Table:
        """All of them; after this, none can be added. At least one table was."""
        if self._path is None:
            return pa.concat_tables(self._tables)
        assert self._writer is not None
        self._writer.close()
        return pa.ipc.open_stream(pa.memory_map(str(self._path))).read_all()

    def tables(self) -> Iterator[pa.Table]:
        """The same, found when the first is asked for: somebody may put rows aside until then."""
        yield self.table()
