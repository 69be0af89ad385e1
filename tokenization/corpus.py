"""A tokenized log on disk: one row a user, with the tokenizer that made it and what it refused.

    corpus.json  tokenizer/  tokens.parquet | tokens.lance  quarantine.parquet

It is written under another name and renamed when whole, so a crash leaves the old corpus or none, never half
of one.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokenization.arrays import Longs
from tokenization.errors import CorpusError
from tokenization.split import Split
from tokenization.tokenizer import Tokenizer
from tokenization.vocabulary import FIRST, Vocabulary

FORMAT = 1
Format = Literal["parquet", "lance"]
_ROW_GROUP = 256
"""Users a Parquet row group: what looking one user up has to read."""


def write_corpus(
    folder: str | Path,
    tables: Iterable[pa.Table],
    tokenizer: Tokenizer,
    summary: Mapping[str, Any],
    format: Format = "parquet",
    quarantine: pa.Table | None = None,
) -> Corpus:
    """Write token tables as a corpus; one that is there is replaced.

    Args:
        tables: token tables as `Tokenizer.transform` makes them; a user must be in one of them only.
        summary: JSON-serialisable figures to keep beside the tokens.
        format: "parquet", or "lance" (needs the package `pylance`).
        quarantine: rows that were refused, as `cleaning.clean` returns them.

    Raises:
        CorpusError: the folder holds something else, or can't be written.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "corpus.json").exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CorpusError(f"{folder} holds something that is no corpus; name another folder or empty it")
    fresh = _beside(folder, "new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        tokenizer.save(fresh / "tokenizer")
        _WRITERS[format](fresh, tables)
        pq.write_table(
            pa.table({"reason": pa.array([], pa.string())}) if quarantine is None else quarantine,
            fresh / "quarantine.parquet",
        )
        told = {"format": FORMAT, "schema": tokenizer.schema.name, "tokens": format, "summary": dict(summary)}
        (fresh / "corpus.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        _make_durable(fresh)
        _replace(folder, fresh)
    except OSError as error:
        raise CorpusError(f"{folder} can't be written: {error.strerror or error}") from error
    return Corpus.open(folder)


@dataclass(frozen=True, eq=False)
class Corpus:
    """A tokenized log. folder: where it lies. format: of its tokens. summary: what tokenizing said."""

    folder: Path
    format: Format
    summary: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """Open a corpus; tokens and tokenizer are read when asked for.

        Raises:
            CorpusError: no such folder, no corpus, or one of a newer version.
        """
        folder = Path(folder)
        if not folder.exists() and _beside(folder, "old").exists():
            folder = _beside(folder, "old")  # a replacement was cut off between its two renames
        try:
            told = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CorpusError(f"{folder} is no corpus; make one with `userfm tokenize`") from error
        found = told.get("format") if isinstance(told, dict) else None
        if found != FORMAT:
            raise CorpusError(f"{folder} has corpus format {found}, this userfm reads {FORMAT}")
        return cls(folder, told["tokens"], told["summary"])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made these tokens."""
        return Tokenizer.load(self.folder / "tokenizer")

    @property
    def split(self) -> Split:
        """Where training data ends."""
        return self.tokenizer.split

    @cached_property
    def user_ids(self) -> pa.Array:
        """[u] all users, in the order of the rows."""
        return self._read(["user_id"]).column("user_id").combine_chunks()

    def tokens(self, columns: list[str] | None = None) -> pa.Table:
        """All rows, as `Tokenizer.transform` describes them; of the columns named, where some are."""
        return self._read(columns)

    def users(self, ids: pa.Array) -> pa.Table:
        """The rows of the users asked for, in that order; users without a row are left out."""
        codes = self._everyone.encode(ids)
        return self._take(codes[codes >= FIRST].astype(np.int64) - FIRST)

    @cached_property
    def _everyone(self) -> Vocabulary:
        """A user's code tells the row."""
        return Vocabulary(self.user_ids, np.zeros(0, np.int64), np.zeros(0))

    @property
    def quarantine(self) -> pa.Table:
        """Rows of the log that were refused, as text, with a column `reason`."""
        return pq.read_table(self.folder / "quarantine.parquet")

    def _read(self, columns: list[str] | None) -> pa.Table:
        try:
            if self.format == "lance":
                return _from_lance(_lance(self.folder).to_table(columns=columns and _lance_names(columns)))
            return pq.read_table(self.folder / "tokens.parquet", columns=columns)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise CorpusError(f"{self.folder}: its tokens can't be read: {str(error).splitlines()[0]}") from error

    def _take(self, rows: Longs) -> pa.Table:
        if self.format == "lance":
            return _from_lance(_lance(self.folder).take(rows.tolist()))
        with pq.ParquetFile(self.folder / "tokens.parquet") as file:
            sizes = np.array([file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)])
            starts = np.cumsum(sizes) - sizes
            group_of = np.searchsorted(starts, rows, side="right") - 1
            needed, place = np.unique(group_of, return_inverse=True)
            table = file.read_row_groups(needed.tolist())
        moved = np.cumsum(sizes[needed]) - sizes[needed]
        return table.take(pa.array(rows - starts[group_of] + moved[place]))


def _write_parquet(folder: Path, tables: Iterable[pa.Table]) -> None:
    tables = iter(tables)
    first = _first(tables)
    # Arrow's own name for the inside of a list, so that what is read equals what was written.
    own_names = {"use_compliant_nested_type": False}
    with pq.ParquetWriter(folder / "tokens.parquet", first.schema, compression="zstd", **own_names) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table, row_group_size=_ROW_GROUP)


def _write_lance(folder: Path, tables: Iterable[pa.Table]) -> None:
    import lance

    tables = iter(tables)
    first = _first(tables)
    renamed = (table.rename_columns(_lance_names(table.column_names)) for table in itertools.chain([first], tables))
    batches = (batch for table in renamed for batch in table.to_batches())
    schema = first.schema.empty_table().rename_columns(_lance_names(first.column_names)).schema
    lance.write_dataset(batches, str(folder / "tokens.lance"), schema=schema)


_WRITERS: Mapping[str, Callable[[Path, Iterable[pa.Table]], None]] = {
    "parquet": _write_parquet,
    "lance": _write_lance,
}


def _first(tables: Iterator[pa.Table]) -> pa.Table:
    for table in tables:
        return table
    raise CorpusError("there are no tokens to write; give at least one table")


def _lance_names(names: list[str]) -> list[str]:
    """Lance takes a dot for the way into a struct, so `quantity.value` is `quantity:value` there."""
    return [name.replace(".", ":") for name in names]


def _from_lance(table: pa.Table) -> pa.Table:
    return table.rename_columns([name.replace(":", ".") for name in table.column_names])


def _lance(folder: Path) -> Any:
    import lance

    return lance.dataset(str(folder / "tokens.lance"))


def _beside(folder: Path, what: str) -> Path:
    return folder.parent / f".{folder.name}.{what}"


def _replace(folder: Path, fresh: Path) -> None:
    old = _beside(folder, "old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    fresh.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _make_durable(folder: Path) -> None:
    """Bring every file to the disk before the rename that makes it count: Lance and Parquet writers do not."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
