"""What is known about users beside their events: a row a user, categories as codes and numbers by quantile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Codes
from tokenization.codes.codecs import NumberCodec
from tokenization.codes.counting import Seen, Tally
from tokenization.codes.vocabulary import ABSENT, Vocabulary
from tokenization.errors import SourceError
from tokenization.events.columns import numbers_of
from tokenization.ids import Ids, as_type, one_chunk
from tokenization.schema.rules import UsersRule


@dataclass(frozen=True)
class UserCodecs:
    """How users' attributes become codes: vocabularies of the categories, bins of the numbers, by column."""

    vocabularies: Mapping[str, Vocabulary]
    numbers: Mapping[str, NumberCodec]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of codes of each attribute, with 0 and 1."""
        categories = {name: vocabulary.size for name, vocabulary in self.vocabularies.items()}
        return categories | {name: codec.size for name, codec in self.numbers.items()}

    @classmethod
    def fit(cls, rule: UsersRule, table: pa.Table, seen: pa.Array) -> UserCodecs:
        """On the users seen before the split; what only later users have is unknown.

        Raises:
            SourceError: a row without an id, one id twice, or a column that can't be read as declared.
        """
        known = _rows_of(rule, table, seen)
        # In the order of the table: that of the users depends on how the log was cut.
        fitted = table.take(np.sort(known.drop_null().to_numpy()))
        row = np.arange(fitted.num_rows, dtype=np.float64)
        vocabularies = {
            name: Vocabulary.fit(Seen.of(Ids.of(fitted.column(name), name), row)) for name in rule.categories
        }
        numbers = {name: NumberCodec.fit(Tally.of(numbers_of(one_chunk(fitted.column(name))))) for name in rule.numbers}
        return cls(vocabularies, numbers)

    def encode(self, rule: UsersRule, table: pa.Table | None, users: pa.Array) -> dict[str, Codes]:
        """[u] codes by name; absent for users without a row.

        Raises:
            SourceError: as `fit`.
        """
        if table is None:
            return {name: np.full(len(users), ABSENT, np.int32) for name in self.sizes}
        rows = table.take(_rows_of(rule, table, users))
        codes = {name: v.encode_ids(Ids.of(rows.column(name), name)) for name, v in self.vocabularies.items()}
        codes |= {name: c.encode(numbers_of(one_chunk(rows.column(name)))) for name, c in self.numbers.items()}
        return codes


def _rows_of(rule: UsersRule, table: pa.Table, users: pa.Array) -> pa.Array:
    """[u] the row of each user, null where there is none."""
    ids = Ids.of(table.column(rule.id), rule.id)
    if ids.missing.any():
        row = int(np.flatnonzero(ids.missing)[0])
        raise SourceError(f"row {row} of the users table has no {rule.id}; give every user an id")
    often = np.bincount(ids.index, minlength=len(ids.values))
    if (often > 1).any():
        raise SourceError(f"the users table has a {rule.id} {often.max()} times; keep one row a user")
    return pc.index_in(users, value_set=as_type(ids.decode(), users.type)) if len(users) else pa.array([], pa.int32())
