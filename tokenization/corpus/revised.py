"""A part of a corpus read under another revision of its schema than the one it was written under."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from tokenization.arrays import Longs
from tokenization.corpus.parts import OPEN, Part
from tokenization.tokenizer.translation import Column, Translation


@dataclass(frozen=True, eq=False)
class RevisedPart:
    """A part of a corpus with the columns of another revision; its rows are where they were."""

    part: Part
    translation: Translation

    @property
    def path(self) -> Path:
        """Of the part itself."""
        return self.part.path

    @property
    def rows(self) -> int:
        """As many as it has."""
        return self.part.rows

    @property
    def borders(self) -> Longs:
        """Those of the part."""
        return self.part.borders

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the wanted columns; what an older part lacks is lacking here too."""
        return self._told.apply(self.part.schema.empty_table()).schema

    def stream(self, begin: int, end: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows from `begin` to `end`, in pieces."""
        for table in self.part.stream(begin, end, self._told.sources(columns)):
            yield self._told.apply(table, columns)

    def take(self, rows: Longs, columns: Sequence[str]) -> pa.Table:
        """The given rows, in that order."""
        return self._told.apply(self.part.take(rows, self._told.sources(columns)), columns)

    @cached_property
    def _told(self) -> Translation:
        there = self.part.schema.names
        columns = {**self.translation.columns, OPEN: Column(OPEN)}.items()
        return Translation({name: told for name, told in columns if told.source is None or told.source in there})
