from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pytest

from tokenization.errors import SourceError
from tokenization.events.cleaning import clean
from tokenization.events.columns import numbers_of
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.tables import from_rows, read_events

Declare = Callable[..., EventSchema]

BAD = [
    ({"user": None}, "user is missing"),
    ({"at": None}, "at is missing"),
    ({"at": "yesterday"}, "at is no time"),
    ({"at": "2024-02-30"}, "at is no time"),
    ({"coupon": "c1"}, "more than one entity"),
    ({"quantity": "two"}, "quantity is no finite number"),
    ({"quantity": "nan"}, "quantity is no finite number"),
    ({"user": None, "at": None}, "user is missing"),
]


@pytest.mark.parametrize(("change", "reason"), BAD, ids=[f"{change}" for change, _ in BAD])
def test_a_row_that_makes_no_sense_is_kept_aside_with_its_reason(
    schema: EventSchema, change: dict[str, object], reason: str
) -> None:
    sound = {"user": "ann", "at": "2024-03-01T15:00", "what": "buy", "sku": "tea", "quantity": "2"}
    cleaned = clean(from_rows([sound, {**sound, **change}, sound], schema), schema)
    events, refused = cleaned.events, cleaned.quarantined
    assert len(events) == 2
    assert events.ids["product"].decode().to_pylist() == ["tea", "tea"]
    assert refused["reason"].to_pylist() == [reason]
    kept = {name: value for name, value in refused.to_pylist()[0].items() if name != "reason" and value is not None}
    assert kept == {name: value for name, value in {**sound, **change}.items() if value is not None}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_kept_aside(schema: EventSchema, log: pa.Table, value: float) -> None:
    place = log.column_names.index("quantity")
    quantity = pa.array([value, *log["quantity"].to_pylist()[1:]], pa.float64())
    cleaned = clean(log.set_column(place, "quantity", quantity), schema)
    events, refused = cleaned.events, cleaned.quarantined
    assert refused["reason"].to_pylist() == ["quantity is no finite number"]
    assert len(events) == len(log) - 1


def test_a_log_by_position_needs_no_times(declare: Declare) -> None:
    schema = declare(time=None, position="at", action=None, split={"last_items": 1})
    table = pa.table({name: [None, None] for name in schema.columns})
    table = table.set_column(0, "user", pa.array([1, 1])).set_column(1, "at", pa.array([4, None]))
    cleaned = clean(table, schema)
    events, refused = cleaned.events, cleaned.quarantined
    assert events.times.tolist() == [4.0]
    assert refused["reason"].to_pylist() == ["at is missing"]


def test_day_level_actions_take_effect_when_their_day_is_over(schema: EventSchema, log: pa.Table) -> None:
    events = clean(log, schema).events
    redeemed = events.ids["action"].decode().to_pylist().index("redeem")
    assert events.times[redeemed] == datetime(2024, 3, 2, 5).timestamp() - 1e-6  # in UTC: see conftest's zone


def test_numbers_of_reads_every_column_that_can_hold_numbers() -> None:
    for column in (pa.array(["1.5", " -2e3 ", None]), pa.array([1.5, -2000.0, None], pa.float32())):
        np.testing.assert_array_equal(numbers_of(column), [1.5, -2000.0, np.nan])
    assert np.isnan(numbers_of(pa.nulls(2))).all()
    np.testing.assert_array_equal(numbers_of(pa.array(["7", "x"]).dictionary_encode()), [7.0, np.nan])
    with pytest.raises(SourceError, match="can't be read as numbers"):
        numbers_of(pa.array([[1]]))


def test_pandas_missing_values_are_absent_and_not_refused(schema: EventSchema, log: pa.Table) -> None:
    frame: pd.DataFrame = log.to_pandas()
    cleaned = clean(read_events(frame, schema), schema)
    events, refused = cleaned.events, cleaned.quarantined
    assert refused.num_rows == 0
    assert np.isnan(events.numbers["quantity"]).sum() == 1


def test_an_event_that_is_there_twice_is_one_event_but_two_users_may_share_an_id(declare: Declare) -> None:
    schema = declare(event_id="id")
    sound = {"user": "ann", "at": "2024-03-01T15:00", "what": "buy", "sku": "tea"}
    ids = [("ann", "e1"), ("bob", "e1"), ("ann", None), ("ann", "e1"), ("ann", None), ("bob", "e2"), ("bob", "e1")]
    cleaned = clean(from_rows([{**sound, "user": user, "id": id_} for user, id_ in ids], schema), schema)
    assert cleaned.quarantined["reason"].to_pylist() == ["id is there twice"] * 2
    assert cleaned.quarantined["user"].to_pylist() == ["ann", "bob"]
    assert len(cleaned.events) == 5
