from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tokenization.codes.counting import Span
from tokenization.errors import SourceError
from tokenization.events.grouping import group
from tokenization.ids import Ids
from tokenization.schema.rules import SplitRule
from tokenization.tokenizer.split import Split, resolve

GROUPS = group(Ids.of(pa.array(["a"] * 4 + ["b"]), "user"), np.array([0.0, 50.0, 90.0, 100.0, 95.0]), None)
SPAN = Span.of(GROUPS)


def test_a_declared_time_is_midnight_utc() -> None:
    split = resolve(SplitRule(time="1970-01-01T00:01:30", validation="1970-01-01T00:00:50Z"), SPAN)
    assert split == Split("time", 90.0, 50.0, None)
    assert resolve(SplitRule(time="1970-01-02"), SPAN).time == 86_400.0


def test_validation_is_as_long_as_the_test_where_it_is_not_declared() -> None:
    assert resolve(SplitRule(fraction=0.9), SPAN) == Split("time", 90.0, 80.0, None)
    assert resolve(SplitRule(time="1970-01-01T00:01:30"), SPAN) == Split("time", 90.0, 80.0, None)


def test_what_happens_at_the_split_is_for_testing() -> None:
    split = resolve(SplitRule(fraction=0.9), SPAN)
    assert split.trains(GROUPS).tolist() == [True, True, False, False, False]


def test_last_items_are_counted_in_groups_of_each_user() -> None:
    split = resolve(SplitRule(last_items=1), SPAN)
    assert split == Split("last_items", None, None, 1)
    assert split.trains(GROUPS).tolist() == [True, True, True, False, False]


def test_no_events_can_not_be_split() -> None:
    with pytest.raises(SourceError, match="no events to split"):
        resolve(SplitRule(fraction=0.9), Span())
