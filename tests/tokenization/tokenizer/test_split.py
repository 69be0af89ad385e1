from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenization.codes.counting import Moments
from tokenization.errors import SourceError
from tokenization.events.grouping import group
from tokenization.ids import Ids
from tokenization.schema.rules import SplitRule
from tokenization.tokenizer.split import Split, resolve

GROUPS = group(Ids.of(pa.array(["a"] * 4 + ["b"]), "user"), np.array([0.0, 50.0, 90.0, 100.0, 95.0]), None)
MOMENTS = Moments.of(GROUPS.time)


def test_a_declared_time_is_midnight_utc() -> None:
    split = resolve(SplitRule(time="1970-01-01T00:01:30", validation="1970-01-01T00:00:50Z"), MOMENTS)
    assert split == Split("time", 90.0, 50.0, None)
    assert resolve(SplitRule(time="1970-01-02"), MOMENTS).time == 86_400.0


def test_validation_is_as_long_as_the_test_where_it_is_not_declared() -> None:
    assert resolve(SplitRule(time="1970-01-01T00:01:30"), MOMENTS) == Split("time", 90.0, 80.0, None)


def test_a_fraction_is_one_of_events_and_validation_has_as_many_as_the_test() -> None:
    hundred = Moments.of(np.arange(100.0))
    assert resolve(SplitRule(fraction=0.9), hundred) == Split("time", 90.0, 80.0, None)
    assert resolve(SplitRule(fraction=0.5), hundred) == Split("time", 50.0, 25.0, None)
    twice = Moments.of(np.repeat([3.0, 4.0, 5.0], [80, 15, 5]))
    assert resolve(SplitRule(fraction=0.9), twice) == Split("time", 5.0, 4.0, None)


def test_wrong_stamps_do_not_move_a_split_by_fraction() -> None:
    year = np.linspace(1.7e9, 1.73e9, 100_000)
    told = resolve(SplitRule(fraction=0.9), Moments.of(year))
    for wrong in ([0.0], [-6e10, 0.0], [2e9], [0.0, 2e9]):
        moved = resolve(SplitRule(fraction=0.9), Moments.of(np.append(year, wrong)))
        assert moved.time == pytest.approx(told.time, abs=1_000)
        assert moved.validation == pytest.approx(told.validation, abs=1_000)
    assert told.time == pytest.approx(1.727e9, abs=1_000)


several = st.lists(st.integers(0, 9), min_size=2, max_size=60).filter(lambda times: len(set(times)) > 1)


@given(several, st.floats(0.01, 0.99))
def test_a_fraction_leaves_something_on_either_side(times: list[int], fraction: float) -> None:
    split = resolve(SplitRule(fraction=fraction), Moments.of(np.array(times, np.float64)))
    assert split.time is not None
    assert split.validation is not None
    assert min(times) < split.time <= max(times)
    assert split.validation <= split.time


def test_what_happens_at_the_split_is_for_testing() -> None:
    split = resolve(SplitRule(time="1970-01-01T00:01:30"), MOMENTS)
    assert split.trains(GROUPS).tolist() == [True, True, False, False, False]


def test_last_items_are_counted_in_groups_of_each_user() -> None:
    split = resolve(SplitRule(last_items=1), MOMENTS)
    assert split == Split("last_items", None, None, 1)
    assert split.trains(GROUPS).tolist() == [True, True, True, False, False]


def test_no_events_can_not_be_split() -> None:
    with pytest.raises(SourceError, match="no events to split"):
        resolve(SplitRule(fraction=0.9), Moments.of(np.zeros(0)))
