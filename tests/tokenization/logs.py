"""A magazine's log with every kind of facet, and rows of it that nobody wrote."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from tokenization.schema.event_schema import EventSchema
from tokenization.sources.tables import from_rows

Row = dict[str, Any]
BEGIN = datetime(2024, 3, 1, tzinfo=UTC)

MAGAZINE: dict[str, Any] = {
    "schema": 1,
    "name": "magazine",
    "user": "reader",
    "time": {
        "column": "at",
        "zone": "Europe/Berlin",
        "facets": ["hour", "weekday", "month", "gap", "tenure", "age"],
    },
    "action": {"column": "what", "aliases": {"tap": "open"}},
    "group": "visit",
    "entities": {
        "article": {"candidates": True, "admit": 2, "buckets": 64},
        "author": {},
    },
    "context": {
        "device": {"kind": "category"},
        "query": {"kind": "text", "most": 3, "admit": 1},
        "campaign": {"kind": "id", "admit": 2, "buckets": 32},
    },
    "outcome": {
        "seconds": {"kind": "duration", "unit": "ms"},
        "stars": {"kind": "number", "combine": "mean"},
        "published": {"kind": "timestamp"},
        "tags": {"kind": "set", "most": 4},
        "cover": {"kind": "vector", "levels": 2},
    },
    "drop": {"action": ["beat"]},
    "items": {"categories": ["section"], "released": "released"},
    "users": {"categories": ["plan"], "numbers": ["age_of_account"]},
    "targets": {"article": 1.0, "seconds": 0.1},
    "split": {"time": "2024-03-20"},
}
ITEMS = pa.table(
    {
        "article": ["a1", "a2", "a3", "a9"],
        "section": ["news", "news", "sport", "sport"],
        "released": [None, BEGIN - timedelta(days=10), BEGIN + timedelta(days=12), BEGIN + timedelta(days=90)],
    }
)
USERS = pa.table({"reader": ["ann", "bob"], "plan": ["free", "paid"], "age_of_account": [3.0, 40.0]})


def magazine(**changes: Any) -> EventSchema:
    """The schema with some of its keys changed; a key set to None is left out."""
    return EventSchema.from_dict({key: value for key, value in {**MAGAZINE, **changes}.items() if value is not None})


def _row(minutes: int, values: Row) -> Row:
    return {**values, "at": BEGIN + timedelta(minutes=minutes)}


_values = st.fixed_dictionaries(
    {
        "reader": st.sampled_from(["ann", "bob", "cem"]),
        "what": st.sampled_from(["open", "tap", "read", "share", None]),
        "visit": st.sampled_from([None, None, 1, 2]),
        "article": st.sampled_from([None, "a1", "a1", "a2", "a3", "x", "y"]),
        "device": st.sampled_from([None, "phone", "desk"]),
        "query": st.sampled_from([None, "", "the big WAVE", "wave, wave", "Ünder das Meer des Nordens"]),
        "campaign": st.sampled_from([None, "c1", "c2", "once"]),
        "seconds": st.sampled_from([None, 0, 1500, 250, 125]),
        "stars": st.sampled_from([None, 1.0, 4.5]),
        "published": st.sampled_from([None, BEGIN - timedelta(days=3), BEGIN + timedelta(days=40)]),
        "tags": st.sampled_from(
            [None, [], ["sea"], ["sea", "wind", "sea"], ["a", "b", "c", "d", "e"], ["wind", "rare"]]
        ),
        "cover": st.sampled_from([None, [0.0, 1.0], [0.5, 0.25], [-1.0, 0.125]]),
    }
)
rows = st.lists(st.builds(_row, st.integers(0, 30 * 24 * 60), _values), min_size=1, max_size=24)
"""Rows of a month, in which three readers meet few articles in few minutes."""
dense = st.lists(st.builds(_row, st.integers(0, 90), _values), min_size=1, max_size=24)
"""Rows of ninety minutes: what adjacent events do is tested on them."""
crowded = st.lists(
    st.builds(_row, st.integers(0, 3), _values).map(lambda row: {**row, "reader": "ann"}), min_size=4, max_size=12
)
"""Rows of one reader in four minutes, so that many are at one time, and declared groups go on."""


def minutes(*values: Row) -> list[Row]:
    """Events of one reader, by the minute at which each is."""
    return [
        {"reader": "ann", "what": "open", **value, "at": BEGIN + timedelta(minutes=value["at"])} for value in values
    ]


def table_of(log: list[Row], schema: EventSchema) -> pa.Table:
    """Rows as a table, without what the schema does not declare."""
    return from_rows([{name: row[name] for name in row if name in schema.columns} for row in log], schema)


def whole(rows: list[Row], schema: EventSchema) -> list[Row]:
    """Rows with one early event of everybody, so that something lies before the split."""
    first = [{"reader": who, "at": BEGIN, "what": "open", "article": "a1"} for who in ("ann", "bob", "cem")]
    return [*first, *rows]
