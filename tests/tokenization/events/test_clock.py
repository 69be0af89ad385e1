from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from tokenization.arrays import Floats
from tokenization.events import clock

NEW_YORK = "America/New_York"


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


def instants(values: list[object] | pa.Array, unit: str = "s", *, day: bool = False, zone: str = NEW_YORK) -> Floats:
    column = values if isinstance(values, pa.Array) else pa.array(values)
    return clock.instants(column, unit, zone, np.full(len(column), day))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([datetime(2017, 3, 4, 10, 11, 12)], pa.timestamp("ns")),
        pa.array([datetime(2017, 3, 4, 10, 11, 12, tzinfo=UTC)], pa.timestamp("ms", "Asia/Tokyo")),
        pa.array(["2017-03-04T10:11:12"]),
        pa.array(["2017-03-04 10:11:12"], pa.large_string()),
        pa.array(["2017-03-04T10:11:12.000Z"]).dictionary_encode(),
        pa.array(["2017-03-04T15:41:12+05:30"]),
        pa.array([" 2017-03-04T02:11:12-0800 "]),
        pa.array([1488622272]),
        pa.array([1488622272.0]),
        pa.array([Decimal("1488622272.00")]),
        pa.array(["1488622272.0"]),
    ],
    ids=lambda column: str(column.type),
)
def test_one_instant_reads_the_same_from_every_kind_of_column(column: pa.Array) -> None:
    assert instants(column).tolist() == [utc(2017, 3, 4, 10, 11, 12)]


def test_numbers_are_read_in_the_declared_unit() -> None:
    for unit, ticks in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        assert instants([1_500_000_000 * ticks], unit).tolist() == [1_500_000_000.0]


def test_a_date_too_far_away_is_no_time() -> None:
    for days in (pa.array([2**31 - 1, 0], pa.date32()), pa.array([2**62, 0], pa.date64())):
        assert np.isnan(instants(days)).tolist() == [True, False]


def test_dates_and_minutes_fill_up_with_zeros() -> None:
    assert instants(["2017-03-04", "2017-03-04T10:11"]).tolist() == [utc(2017, 3, 4), utc(2017, 3, 4, 10, 11)]
    assert instants([date(2017, 3, 4)]).tolist() == [utc(2017, 3, 4)]


def test_times_are_exact_to_the_microsecond() -> None:
    assert instants(["2017-03-04T10:11:12.123456789"]).tolist() == [utc(2017, 3, 4, 10, 11, 12, 123456)]


def test_what_is_no_time_is_nan() -> None:
    assert np.isnan(instants(["2017-02-31", "04/03/2017", "", "soon", None, "2017-03-04T25:00"])).all()
    assert np.isnan(instants([np.nan, np.inf, 1e300])).all()
    assert np.isnan(instants(pa.nulls(2))).all()


def test_a_day_takes_effect_when_it_has_ended_where_the_log_was_kept() -> None:
    end = utc(2017, 3, 5, 5) - 1e-6  # New York is five hours behind in winter
    assert instants(["2017-03-04"], day=True).tolist() == [end]
    assert instants([datetime(2017, 3, 4)], day=True).tolist() == [end]
    assert instants([date(2017, 3, 4)], day=True).tolist() == [end]
    assert instants([utc(2017, 3, 4)], day=True).tolist() == [end]


def test_days_of_23_and_25_hours_end_at_local_midnight() -> None:
    begin, end = instants(["2017-03-11"], day=True)[0], instants(["2017-03-12"], day=True)[0]
    assert end - begin == pytest.approx(23 * 3600, abs=1e-6)
    begin, end = instants(["2017-11-04"], day=True)[0], instants(["2017-11-05"], day=True)[0]
    assert end - begin == pytest.approx(25 * 3600, abs=1e-6)


def test_a_day_ends_even_where_midnight_was_skipped() -> None:
    """In Havana the clocks of 2017-03-12 went from 00:00 to 01:00."""
    assert instants(["2017-03-11"], day=True, zone="America/Havana").tolist() == [utc(2017, 3, 12, 5) - 1e-6]


def test_a_stamp_with_a_zone_is_carried_to_the_local_day_first() -> None:
    end = utc(2017, 3, 5, 5) - 1e-6
    aware = datetime(2017, 3, 5, 2, 0, tzinfo=UTC)  # still the 4th in New York
    assert instants(pa.array([aware], pa.timestamp("us", "UTC")), day=True).tolist() == [end]
    assert instants(["2017-03-05T02:00:00Z"], day=True).tolist() == [end]


def test_hour_weekday_and_month_are_local() -> None:
    times = np.array([utc(2017, 1, 2, 4, 59), utc(2017, 7, 3, 4, 0), utc(2017, 1, 2, 12)])
    local = clock.local_parts(times, NEW_YORK, {"hour", "weekday", "month"})
    assert local["hour"].tolist() == [23, 0, 7]
    assert local["weekday"].tolist() == [6, 0, 0]
    assert local["month"].tolist() == [0, 6, 0]
