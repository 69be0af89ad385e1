"""Days that come one after another, on the kiosk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.updates import WAYS, Day, Log, difference, figures, simulated
from tests.conftest import DECLARATION, Kiosk


@pytest.fixture
def log(kiosk: Kiosk, tmp_path: Path) -> Log:
    """The kiosk's log as files, with customers that are numbers and times that are stamps."""
    events = kiosk.events
    numbers = pa.array([int(name[1:]) for name in events["customer"].to_pylist()])
    moments = pa.array((events["time"].to_numpy() * 1e6).astype("int64")).cast(pa.timestamp("us"))
    events = events.set_column(0, "customer", numbers)
    events = events.set_column(events.column_names.index("time"), "time", moments)
    pq.write_table(events, tmp_path / "events.parquet")
    pq.write_table(kiosk.items, tmp_path / "items.parquet")
    split = {"time": "1970-03-11T00:00:00", "validation": "1970-02-20T00:00:00"}
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump({**DECLARATION, "split": split}))
    return Log(tmp_path / "schema.yaml", tmp_path / "events.parquet", tmp_path / "items.parquet")


def test_each_day_is_judged_before_it_is_learned(log: Log, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    first, week = datetime(1970, 4, 1, tzinfo=UTC), timedelta(days=7)
    days, seconds, refused = simulated(home, log, lambda *told: None, first, 3, week)
    assert len(days) == 3
    assert all(set(day.ndcg) == set(WAYS) and len(day.users) for day in days)
    # On the first day all three are one model; later ones have learned another log.
    begin, *later = days
    assert np.array_equal(begin.ndcg["update"], begin.ndcg["never"])
    assert np.array_equal(begin.ndcg["retrain"], begin.ndcg["never"])
    assert any(not np.array_equal(day.ndcg["retrain"], day.ndcg["never"]) for day in later)
    assert {way: len(spent) for way, spent in seconds.items()} == {"update": 2, "retrain": 2}
    assert 0 <= refused <= 2
    found = figures(days, seconds, refused)
    assert found["requests"] == sum(len(day.users) for day in days)
    assert found["retrain_over_update_seconds"] > 0


def test_a_household_that_shops_every_day_is_one_witness() -> None:
    once = [Day([1, 2], {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 0.0])})]
    often = [once[0]] * 20
    one, twenty = difference(once, "a", "b"), difference(often, "a", "b")
    assert (one.mean, one.low, one.high) == (twenty.mean, twenty.low, twenty.high)
    assert one.low <= one.mean == 0.5 <= one.high
