from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenization.logs import BEGIN, ITEMS, Row, magazine, rows, whole
from tokenization.codes.codecs import span_codes
from tokenization.codes.vocabulary import ABSENT, FIRST
from tokenization.errors import SchemaError, SourceError
from tokenization.events.cleaning import clean
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.tables import from_rows
from tokenization.tokenizer.fingerprint import sizes_of
from tokenization.tokenizer.growing import grow
from tokenization.tokenizer.tokenizer import Tokenizer

Declare = Callable[..., EventSchema]
HOUR = 3600.0
MARCH = datetime(2024, 3, 1, tzinfo=UTC)


def shop(unit: str = "s") -> EventSchema:
    return EventSchema.from_dict(
        {
            "schema": 1,
            "name": "shop",
            "user": "user",
            "time": {"column": "at", "unit": unit, "facets": ["age"]},
            "entities": {"product": {"column": "sku", "candidates": True}},
            "items": {"released": "since"},
            "split": {"time": "2024-03-20"},
        }
    )


def events(*found: tuple[str, float]) -> pa.Table:
    """Items, and the hours since the first of March at which ann met them."""
    stamps = [MARCH + timedelta(hours=hours) for _, hours in found]
    kind = pa.timestamp("us", tz="UTC")
    return pa.table({"user": ["ann"] * len(found), "at": pa.array(stamps, kind), "sku": [sku for sku, _ in found]})


def ages(schema: EventSchema, log: pa.Table, items: pa.Table | None) -> list[int]:
    found: list[int] = Tokenizer.fit(schema, log, items).transform(log)["age"][0].as_py()
    return found


def hours(*spans: float) -> list[int]:
    return [int(code) for code in span_codes(np.array(spans) * HOUR)]


@pytest.mark.parametrize(
    "since",
    [
        pa.array([date(2024, 2, 28)]),
        pa.array([datetime(2024, 2, 28)]),
        pa.array([datetime(2024, 2, 28, 2, tzinfo=timezone(timedelta(hours=2)))], pa.timestamp("s", tz="Asia/Kolkata")),
        pa.array(["2024-02-28"]),
        pa.array(["2024-02-28T05:30+05:30"]).dictionary_encode(),
        pa.array(["1709078400"]),
        pa.array([1_709_078_400]),
        pa.array([1_709_078_400.0]),
    ],
    ids=lambda column: str(column.type),
)
def test_items_are_as_old_as_their_table_says(since: pa.Array) -> None:
    log = events(("tea", 0), ("tea", 5), ("milk", 7))
    items = pa.table({"sku": ["tea"], "since": since})
    assert ages(shop(), log, items) == [*hours(48, 53), FIRST]


def test_numbers_count_what_those_of_the_events_count() -> None:
    items = pa.table({"sku": ["tea"], "since": [1_709_078_400_000]})
    assert ages(shop("ms"), events(("tea", 0)), items) == hours(48)


@pytest.mark.parametrize(
    "since", [pa.array([None], pa.date32()), pa.array([""]), pa.array(["  "]), pa.array([float("nan")]), pa.nulls(1)]
)
def test_of_whom_it_says_nothing_the_first_event_counts(since: pa.Array) -> None:
    items = pa.table({"sku": ["tea"], "since": since})
    assert ages(shop(), events(("tea", 1), ("tea", 5)), items) == hours(0, 4)


@pytest.mark.parametrize(
    ("since", "said"),
    [
        (pa.array(["soon"]), "says that 'tea' was released 'soon', which is no time; write a date, a time such as"),
        (pa.array(["2024-02-30"]), "was released '2024-02-30', which is no time"),
        (pa.array([float("inf")]), "was released 'inf', which is no time"),
        (pa.array([1e300]), r"was released '1e\+300', which is no time"),
        (pa.array([2**60], pa.timestamp("s")), "was released '.*', which is no time"),
        (pa.array([2**31 - 1], pa.date32()), "was released '.*', which is no time"),
        (pa.array([True]), "was released 'true', which is no time"),
        (pa.array([[1]]), r"'since' of the items table: a column of list<.*> holds no times"),
    ],
)
def test_what_is_no_time_is_one_sentence(since: pa.Array, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        Tokenizer.fit(shop(), events(("tea", 0)), pa.table({"sku": ["tea"], "since": since}))


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(SourceError, match="since"):
        Tokenizer.fit(shop(), events(("tea", 0)), pa.table({"sku": ["tea"], "sinse": [1]}))


def test_before_its_release_an_item_is_of_no_age_whenever_that_will_be() -> None:
    """Rule 1: that something is not released yet is known at the event's time; when it will be is not."""
    log = events(("tea", 0), ("tea", 30))
    found = [
        ages(shop(), log, pa.table({"sku": ["tea"], "since": [MARCH + timedelta(hours=later)]}))
        for later in (31, 1000, 10**5)
    ]
    assert found == [[FIRST, FIRST]] * 3
    assert ages(shop(), log, pa.table({"sku": ["tea"], "since": [MARCH + timedelta(hours=10)]})) == hours(0, 20)


def test_an_item_nobody_met_has_an_age_where_its_release_is_known() -> None:
    log = events(("tea", 0), ("rope", 24 * 30), ("wax", 24 * 30))  # met after the split
    items = pa.table({"sku": ["rope", "wax"], "since": [MARCH, None]})
    assert ages(shop(), log, items) == [FIRST, *hours(24 * 30), ABSENT]


def test_items_of_a_newer_table_have_ages_and_those_that_are_there_keep_theirs() -> None:
    schema, log = shop(), events(("tea", 0), ("milk", 1))
    tokenizer = Tokenizer.fit(schema, log, pa.table({"sku": ["tea", "soap"], "since": [None, MARCH]}))
    newer = pa.table(
        {
            "sku": ["tea", "rope", "wax", "soap"],
            "since": [MARCH - timedelta(days=9), MARCH + timedelta(hours=2), None, None],
        }
    )
    later = events(("rope", 30), ("wax", 31), ("new", 32), ("soap", 33), ("wax", 40), ("new", 50), ("tea", 51))
    grown = grow(tokenizer, clean(later, schema).events, newer)
    assert grown.prefix_fingerprint(sizes_of(tokenizer)) == tokenizer.fingerprint
    assert grown.transform(later)["age"][0].as_py() == hours(28, 0, 0, 33, 9, 18, 51)
    again = grow(grown, clean(events(("wax", 60)), schema).events, pa.table({"sku": ["wax"], "since": [MARCH]}))
    assert again is grown


def test_a_log_of_positions_has_no_ages(declare: Declare) -> None:
    with pytest.raises(SchemaError, match=r"items\.released: positions are no times, so items have no age"):
        declare(time=None, position="at", action=None, split={"last_items": 1}, items={"released": "since"})


@given(log=rows, cut=st.integers(3, 24), released=st.lists(st.integers(-9, 90), min_size=4, max_size=4))
@settings(max_examples=20)
def test_ages_are_the_same_live_in_chunks_and_at_once(log: list[Row], cut: int, released: list[int]) -> None:
    schema = magazine(users=None, group=None)
    table = ITEMS.set_column(2, "released", pa.array([BEGIN + timedelta(days=day) for day in released]))
    log = [{name: value for name, value in row.items() if name != "visit"} for row in whole(log, schema)]
    log.sort(key=lambda row: row["at"])
    first, second = (clean(from_rows(part, schema), schema).events for part in (log[:cut], log[cut:]))
    tokenizer = Tokenizer.fit(schema, first, table)
    grown = grow(tokenizer, second)
    for row in grown.transform(clean(from_rows(log, schema), schema).events).to_pylist():
        mine = [event for event in log if event["reader"] == row["user_id"]]
        assert grown.encode(mine).table()["age"].to_pylist() == [row["age"]]
    before, after = (told(t.transform(first)) for t in (tokenizer, grown))
    assert all(after[key] == age for key, age in before.items() if key[2] >= FIRST)
    assert all(age == ABSENT for key, age in before.items() if key[2] < FIRST)


def told(tokens: pa.Table) -> dict[tuple[str, float, int], int]:
    """Ages by user, time and item."""
    return {
        (row["user_id"], time, item): age
        for row in tokens.to_pylist()
        for time, item, age in zip(row["time"], row["article"], row["age"], strict=True)
    }
