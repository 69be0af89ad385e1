"""A log of any size, the same on every machine: sessions of some users who meet a few of many items very often.

It is written file by file and never held as a whole. `python -m benchmarks.generated EVENTS FOLDER` writes one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

EVENTS_A_USER = 100
ITEMS = 100_000
_SLICE = 1_000_000
"""Events of a file; each file is one slice of time."""
_SESSION = 5
"""Events of a session on average."""
_FIRST, _SPAN = 1_700_000_000, 365 * 86_400

SCHEMA = {
    "schema": 1,
    "name": "generated",
    "user": "user",
    "time": {"column": "time", "zone": "Europe/Berlin"},
    "action": {"column": "action"},
    "group": "session",
    "entities": {"item": {"column": "item", "candidates": True}},
    "context": {"surface": {"kind": "category"}},
    "outcome": {"price": {"kind": "number"}, "dwell": {"kind": "duration"}},
    "merge": {"same_item_in_group": True},
    "split": {"fraction": 0.9},
}


@dataclass(frozen=True, eq=False)
class _World:
    """Users with their ids and how active they are, items with how popular and how dear they are."""

    users: pa.Array
    activity: NDArray[np.float64]
    popularity: NDArray[np.float64]
    price: NDArray[np.float64]


def write_log(
    folder: Path, events: int, seed: int = 0, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Path, Path]:
    """Write schema.yaml and events/*.parquet of so many events; a hundredth as many users, 100,000 items.

    Returns:
        Paths of both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schema, log = folder / "schema.yaml", folder / "events"
    schema.write_text(yaml.safe_dump(SCHEMA, sort_keys=False))
    log.mkdir(exist_ok=True)
    draw = np.random.default_rng(seed)
    world = _world(max(events // EVENTS_A_USER, 1), draw)
    slices = -(-events // _SLICE)
    for number in range(slices):
        rows = min(_SLICE, events - number * _SLICE)
        begin, length = _FIRST + number * _SPAN / slices, _SPAN / slices
        pq.write_table(_sessions(world, rows, number, begin, length, draw), log / f"{number:05d}.parquet")
        progress(number + 1, slices)
    return schema, log


def write_long_log(folder: Path, users: int, events: int, items: int = 2_000, seed: int = 0) -> tuple[Path, Path]:
    """Write schema.yaml and events.parquet of a few users with so many events each, over a year, in baskets.

    Two of three events are of the user's own favourites, a twentieth of all items: there is something to learn. Nothing
    merges, so each event is a token.

    Returns:
        Paths of both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schema, log = folder / "schema.yaml", folder / "events.parquet"
    schema.write_text(
        yaml.safe_dump({**SCHEMA, "name": "long", "merge": {"same_item_in_group": False}}, sort_keys=False)
    )
    draw = np.random.default_rng(seed)
    world = _world(users, draw)
    rows = users * events
    user = np.repeat(np.arange(users), events)
    basket = np.arange(rows) // (2 * _SESSION)
    begin = _FIRST + np.tile(np.arange(events) // (2 * _SESSION) * (2 * _SESSION) / events * _SPAN, users)
    favourites = np.stack([draw.choice(items, max(items // 20, 1), replace=False) for _ in range(users)])
    own = favourites[user, draw.integers(0, favourites.shape[1], rows)]
    item = np.where(draw.random(rows) < 2 / 3, own, draw.integers(0, items, rows))
    columns = {
        "user": world.users.take(pa.array(user)),
        "time": pa.array((begin * 1e6).astype(np.int64)).cast(pa.timestamp("us")),
        "action": _choice(["view", "cart", "buy"], [0.85, 0.1, 0.05], rows, draw),
        "session": user * events + basket,
        "item": item,
        "surface": _choice(["home", "search", "item", "mail"], [0.4, 0.3, 0.25, 0.05], rows, draw),
        "price": world.price[item],
        "dwell": np.round(draw.exponential(40.0, rows), 1),
    }
    pq.write_table(pa.table(columns), log)
    return schema, log


def _world(users: int, draw: np.random.Generator) -> _World:
    names = draw.permutation(users) * 2_654_435_761 % 2**40
    return _World(
        pa.array([f"u{name:013d}" for name in names.tolist()]),
        _cumulated(users, 0.5),
        _cumulated(ITEMS, 1.0),
        np.asarray(np.round(np.exp(draw.normal(2.5, 1.0, ITEMS)), 2), np.float64),
    )


def _cumulated(number: int, power: float) -> NDArray[np.float64]:
    """Shares of so many, each of rank ** -power, added up."""
    sums = np.cumsum(np.arange(1, number + 1, dtype=np.float64) ** -power)
    return np.asarray(sums / sums[-1])


def _sessions(
    world: _World, rows: int, number: int, begin: float, length: float, draw: np.random.Generator
) -> pa.Table:
    """So many events in the order of time, in sessions that begin in one slice of it."""
    sizes = draw.geometric(1 / _SESSION, rows)
    sessions = int(np.searchsorted(np.cumsum(sizes), rows)) + 1
    session = np.repeat(np.arange(sessions), sizes[:sessions])[:rows]
    user = np.searchsorted(world.activity, draw.random(sessions))[session]
    gap = draw.exponential(40.0, rows)
    first = np.append(True, np.diff(session) != 0)
    within = np.cumsum(gap) - np.maximum.accumulate(np.where(first, np.cumsum(gap), 0.0))
    seconds = begin + length * draw.random(sessions)[session] + within
    item = np.searchsorted(world.popularity, draw.random(rows))
    order = np.argsort(seconds, kind="stable")
    columns = {
        "user": world.users.take(pa.array(user)).take(pa.array(order)),
        "time": pa.array((seconds[order] * 1e6).astype(np.int64)).cast(pa.timestamp("us")),
        "action": _choice(["view", "cart", "buy"], [0.85, 0.1, 0.05], rows, draw),
        "session": number * _SLICE + session[order],
        "item": 1_000_000 + 7 * item[order],
        "surface": _choice(["home", "search", "item", "mail"], [0.4, 0.3, 0.25, 0.05], rows, draw),
        "price": world.price[item[order]],
        "dwell": np.round(gap[order], 1),
    }
    return pa.table(columns)


def _choice(names: list[str], shares: list[float], rows: int, draw: np.random.Generator) -> pa.Array:
    codes = np.searchsorted(np.cumsum(shares[:-1]), draw.random(rows), side="right")
    return pa.array(names).take(pa.array(codes))


if __name__ == "__main__":
    write_log(Path(sys.argv[2]), int(sys.argv[1]))
