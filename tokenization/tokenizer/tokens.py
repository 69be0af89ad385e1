"""Tokens as arrays, and as the table that a corpus keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tokenization.arrays import Codes, Floats, Longs, Mask
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import Combine, Kind
from tokenization.tokenizer.facets import LASTED

_ADDED = (Kind.NUMBER, Kind.DURATION)


def sums(table: pa.Table, schema: EventSchema, before: Mapping[str, float]) -> dict[str, float]:
    """Sums of the numbers that merging adds up, which are those of the events whatever merged: of a token table, and
    of what was summed before."""
    added = [name for name, rule in schema.facets.items() if rule.combine is Combine.SUM and rule.kind in _ADDED]
    found = {name: pc.sum(pc.list_flatten(table[f"{name}.value"]).cast(pa.float64())).as_py() for name in added}
    return {name: before.get(name, 0.0) + (total or 0.0) for name, total in found.items()}


@dataclass(frozen=True, eq=False)
class Tokens:
    """t tokens of u users, one user after another, each user's in the order of time.

    users: [u] ids in their order. offsets: [u + 1]; user i owns tokens offsets[i] to offsets[i + 1]. time: [t] seconds
    since 1970 UTC, or positions, at which the token's group takes effect. group: [t] 0, 1, 2.. within the user.
    lasted: [t] seconds, or positions, from the token's first event to that effect, so that the group began the most of
    its tokens' before it; None where the schema lets no group last. codes: [t] by column of `Tokenizer.facets`.
    numbers: [t] by facet, NaN = absent. events: [t] how many events each holds. attributes: [u] codes by name.
    """

    users: pa.Array
    offsets: Longs
    time: Floats
    group: Codes
    lasted: Floats | None
    codes: Mapping[str, Codes]
    numbers: Mapping[str, Floats]
    events: Codes
    attributes: Mapping[str, Codes]

    def table(self) -> pa.Table:
        """One row a user: user_id; time list<double>; group list<int32>; lasted list<double> where groups may last,
        null = 0, which costs nothing on disk; each column of codes list<int32>; `<name>.value` list<double> of each
        number, null = absent; events list<int32>; `user.<name>` int32."""
        offsets = pa.array(self.offsets, pa.int32())

        def lists(values: NDArray[Any]) -> pa.Array:
            return pa.ListArray.from_arrays(offsets, pa.array(values))

        def floats(values: Floats, absent: Mask) -> pa.Array:
            return pa.ListArray.from_arrays(offsets, pa.array(values, mask=absent))

        return pa.table(
            {
                "user_id": self.users,
                "time": lists(self.time),
                "group": lists(self.group),
                **({} if self.lasted is None else {LASTED: floats(self.lasted, self.lasted == 0)}),
                **{name: lists(codes) for name, codes in self.codes.items()},
                **{f"{name}.value": floats(values, np.isnan(values)) for name, values in self.numbers.items()},
                "events": lists(self.events),
                **{f"user.{name}": pa.array(codes) for name, codes in self.attributes.items()},
            }
        )
