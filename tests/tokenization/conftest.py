"""A small shop: three users, baskets, coupons known to the day, mailings; every kind of facet once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tokenization.schema.event_schema import EventSchema

Declare = Callable[..., EventSchema]
Clustered = tuple[np.ndarray, np.ndarray]

_SHOP: dict[str, Any] = {
    "schema": 1,
    "name": "shop",
    "user": "user",
    "time": {"column": "at", "zone": "America/New_York"},
    "action": {"column": "what", "day_level": ["redeem"]},
    "group": "basket",
    "entities": {
        "product": {"column": "sku", "candidates": True},
        "coupon": {"column": "coupon"},
    },
    "context": {"store": {"kind": "category"}},
    "outcome": {"quantity": {"kind": "number"}, "shelf": {"kind": "category"}},
    "items": {"categories": ["colour"], "text": ["title"]},
    "merge": {"same_item_in_group": True},
    "targets": {"product": 1.0, "quantity": 0.1},
    "split": {"time": "2024-03-20"},
}

_COLUMNS = ("user", "at", "what", "basket", "sku", "coupon", "store", "quantity", "shelf")
_ROWS: list[tuple[Any, ...]] = [
    ("ann", "2024-03-01T15:00:00", "buy", 1, "tea", None, "s1", 2.0, "top"),
    ("ann", "2024-03-01T15:00:00", "buy", 1, "milk", None, "s1", 1.0, None),
    ("ann", "2024-03-01T15:00:00", "buy", 1, "tea", None, "s1", 3.0, "end"),
    ("ann", "2024-03-01", "redeem", None, None, "c9", None, None, None),
    ("ann", "2024-03-09T23:30:00", "buy", 2, "soap", None, "s2", 1.0, "top"),
    ("ann", "2024-03-25T12:00:00", "buy", 3, "tea", None, "s1", 4.0, "top"),
    ("ann", "2024-03-25T12:00:00", "buy", 3, "cocoa", None, "s3", 1.0, "low"),
    ("bob", "2024-02-28T09:15:00", "buy", 4, "milk", None, "s2", 1.0, "top"),
    ("bob", "2024-03-10T12:00:00", "buy", 5, "bread", None, "s2", 2.0, None),
    ("bob", "2024-03-28T12:00:00", "buy", 6, "milk", None, "s2", 7.0, "top"),
    ("cem", "2024-03-27T12:00:00", "buy", 7, "rope", None, "s9", 1.0, "new"),
    ("cem", "2024-03-27T12:00:00", "buy", 7, "wax", None, "s9", 5.0, "new"),
]


@pytest.fixture(scope="session")
def declare() -> Declare:
    """The shop's schema, with some of its keys changed; a key set to None is left out."""

    def _declare(**changes: object) -> EventSchema:
        values = {key: value for key, value in {**_SHOP, **changes}.items() if value is not None}
        return EventSchema.from_dict(values)

    return _declare


@pytest.fixture(scope="session")
def schema(declare: Declare) -> EventSchema:
    return declare()


@pytest.fixture(scope="session")
def log() -> pa.Table:
    return pa.table({name: [row[i] for row in _ROWS] for i, name in enumerate(_COLUMNS)})


@pytest.fixture(scope="session")
def items() -> pa.Table:
    return pa.table(
        {
            "sku": ["wax", "tea", "milk", "soap", "cocoa"],
            "colour": ["white", "green", "white", None, "brown"],
            "title": ["Ski wax", "Green TEA", "Milk", None, "Cocoa powder"],
        }
    )


@pytest.fixture(scope="session")
def clustered() -> Clustered:
    """Vectors [2000, 12] of 4 departments of 4 shelves each, and the shelf of every row."""
    draw = np.random.default_rng(0)
    department = 4 * draw.normal(size=(4, 12))
    shelf = np.repeat(department, 4, axis=0) + draw.normal(size=(16, 12))
    of_row = draw.integers(0, 16, 2000)
    return (shelf[of_row] + 0.1 * draw.normal(size=(2000, 12))).astype(np.float32), of_row
