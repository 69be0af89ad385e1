from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tokenization.events.events import Events
from tokenization.ids import Ids
from tokenization.job.late import late, put_off

AFTER = pa.table({"user_id": ["ann", "bob"], "first": [0.0, 5.0], "last": [10.0, 5.0], "groups": [4, 1]})


def events(*rows: tuple[str, float, str | None]) -> Events:
    """Of a user, at a time, of a declared group."""
    users, times, declared = zip(*rows, strict=True) if rows else ((), (), ())
    return Events(
        Ids.of(pa.array(users, pa.string()), "user"),
        np.array(times, np.float64),
        Ids.of(pa.array(declared, pa.string()), "basket"),
        {},
        {},
    )


def test_what_is_not_after_all_that_its_user_has_is_late() -> None:
    found = events(("ann", 9.0, None), ("ann", 10.0, None), ("ann", 10.5, None), ("bob", 5.5, None), ("new", 1.0, None))
    assert late(found, AFTER).tolist() == [True, True, False, False, False]


def test_a_declared_group_is_late_as_one() -> None:
    found = events(("ann", 9.0, "a"), ("ann", 11.0, "a"), ("ann", 7.0, "b"), ("ann", 8.0, "b"))
    assert late(found, AFTER).tolist() == [False, False, True, True]


def test_late_events_take_effect_with_the_newest_of_their_user() -> None:
    found = put_off(events(("ann", 3.0, None), ("ann", 20.0, None), ("ann", 15.0, None), ("new", 1.0, None)), AFTER)
    assert found.times.tolist() == [20.0, 20.0, 15.0, 1.0]
    assert found.groups.time.tolist() == [15.0, 20.0, 1.0]


def test_where_all_are_late_they_come_an_instant_after_the_last() -> None:
    found = put_off(events(("ann", 3.0, "a"), ("ann", 9.0, "b"), ("bob", 5.0, None)), AFTER)
    assert found.times.tolist() == pytest.approx([10.000001, 10.000001, 5.000001], abs=1e-9)
    assert len(found.groups.time) == 2
    assert not late(found, AFTER).any()


def test_an_instant_is_told_apart_at_todays_times() -> None:
    now = 1_763_000_000.0
    after = pa.table({"user_id": ["ann"], "last": [now]})
    assert put_off(events(("ann", now, None)), after).times[0] > now


def test_nobody_is_late_where_nobody_was_before() -> None:
    nobody = AFTER.slice(0, 0)
    found = events(("ann", 3.0, None))
    assert not late(found, nobody).any()
    assert put_off(found, nobody) is found
    assert late(events(), AFTER).tolist() == []
    numbers = pa.table({"user_id": pa.array([7], pa.int64()), "last": [10.0]})
    assert late(events(("7", 3.0, None), ("x", 3.0, None)), numbers).tolist() == [True, False]
