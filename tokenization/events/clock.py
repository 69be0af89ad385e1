"""Times: out of whatever a column holds into UTC, the end of a local day, the hour and the weekday.

Times are float64 seconds since 1970 UTC, exact to the microsecond until the year 2255.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from operator import attrgetter
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Codes, Floats, Mask
from tokenization.errors import SourceError

_MICRO = pa.timestamp("us")
_FEW = 64
_FAR = 5e9  # seconds: until the year 2128, well inside what both calendars know
_PARTS: Mapping[str, Callable[[pa.Array], pa.Array]] = {"hour": pc.hour, "weekday": pc.day_of_week, "month": pc.month}
_SHOWN: Mapping[str, Callable[[datetime], int]] = {
    "hour": attrgetter("hour"),
    "weekday": datetime.weekday,
    "month": attrgetter("month"),
}
_LEAST = {"hour": 0, "weekday": 0, "month": 1}
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_ISO = (
    r"^\s*(?P<day>\d{4}-\d{2}-\d{2})(?:[T ](?P<clock>\d{2}:\d{2})(?P<second>:\d{2})?"
    r"(?:\.(?P<fraction>\d{1,9}))?\s*(?P<zone>Z|z|[+-]\d{2}:?\d{2})?)?\s*$"
)


def instants(column: pa.Array, unit: str, zone: str, local_day: Mask) -> Floats:
    """When events take effect.

    Args:
        column: [n] timestamps (with or without zone), dates, ISO 8601 strings, or numbers in `unit` since
            1970.
        unit: "s", "ms", "us" or "ns"; of numbers only.
        zone: IANA name of the log's local zone.
        local_day: [n] rows known to the day only. Their stamp is read as a local date (a stamp with a zone is
            first carried to the local zone), and they take effect in the last microsecond of that day.

    Returns:
        [n] seconds since 1970 UTC; NaN where there is no time or it can't be parsed.
    """
    stamps, aware = _stamps(column, unit)
    if local_day.any():
        days = np.flatnonzero(local_day)
        wall = _wall_clock(stamps.take(pa.array(days)), aware[days], zone)
        stamps = pc.replace_with_mask(stamps, pa.array(local_day), _end_of_local_day(wall, zone))
    micros = stamps.cast(pa.int64())
    seconds = pc.fill_null(micros, 0).to_numpy(zero_copy_only=False) / 1e6
    return np.where(pc.is_valid(micros).to_numpy(zero_copy_only=False), seconds, np.nan)


def stamps_of(times: Floats, zone: str) -> pa.Array:
    """Seconds since 1970 UTC [n] as Arrow timestamps of `zone`; NaN becomes null."""
    micros = np.round(np.nan_to_num(times) * 1e6).astype(np.int64)
    return pa.array(micros, mask=np.isnan(times)).cast(pa.timestamp("us", tz=zone))


def local_parts(times: Floats, zone: str, parts: Collection[str]) -> dict[str, Codes]:
    """What a local clock shows at seconds since 1970 UTC [n]: hour (0..23), weekday (Monday 0 .. Sunday 6), month
    (January 0 .. December 11), whichever of these are asked for."""
    if not parts:
        return {}
    if len(times) <= _FEW and np.isfinite(times).all() and (np.abs(times) < _FAR).all():
        return _few_local_parts(times, zone, parts)
    stamps = stamps_of(times, zone)
    found = {part: pc.fill_null(_PARTS[part](stamps), _LEAST[part]) for part in parts}
    return {part: (v.to_numpy(zero_copy_only=False) - _LEAST[part]).astype(np.int32) for part, v in found.items()}


def _few_local_parts(times: Floats, zone: str, parts: Collection[str]) -> dict[str, Codes]:
    """The same by Python's calendar: for a few times a call to Arrow costs more than it saves."""
    local = ZoneInfo(zone)
    stamps = [datetime.fromtimestamp(time, local) for time in times.tolist()]
    return {part: np.array(list(map(_SHOWN[part], stamps)), np.int32) - _LEAST[part] for part in parts}


def _stamps(column: pa.Array, unit: str) -> tuple[pa.Array, Mask]:
    """Any column of times as UTC microseconds [n], and which of them came with a zone of their own [n]."""
    kind, naive = column.type, np.zeros(len(column), np.bool_)
    if pa.types.is_dictionary(kind):
        return _stamps(column.dictionary_decode(), unit)
    if pa.types.is_timestamp(kind):
        if kind.unit in ("s", "ms"):  # what does not fit into microseconds would wrap round
            limit = pa.scalar(2**62 // (10**6 // _TICKS[kind.unit]), pa.int64())
            ticks = column.cast(pa.int64())
            fits = pc.and_(pc.less(ticks, limit), pc.greater(ticks, pc.negate(limit)))
            column = pc.if_else(fits, column, pa.scalar(None, kind))
        micros = column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64()).cast(_MICRO)
        return micros, naive if kind.tz is None else ~naive
    if pa.types.is_date(kind):  # by way of a unit that holds every date
        return _stamps(column.cast(pa.timestamp("s" if pa.types.is_date32(kind) else "ms")), unit)
    if pa.types.is_null(kind):
        return column.cast(_MICRO), naive
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _from_numbers(column.cast(pa.float64(), safe=False), _TICKS[unit]), naive
    try:
        text = column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise SourceError(f"a column of {kind} holds no times; give timestamps, ISO 8601 text or numbers") from None
    utc, aware = _from_text(text)
    number = pc.match_substring_regex(text, r"^[+-]?\d+(\.\d*)?$")
    if pc.any(number).as_py():
        numbers = pc.if_else(number, text, pa.scalar(None, pa.string())).cast(pa.float64())
        utc = pc.if_else(number, _from_numbers(numbers, _TICKS[unit]), utc)
    return utc, aware


def _from_numbers(column: pa.Array, ticks: int) -> pa.Array:
    values = pc.fill_null(column, np.nan).to_numpy(zero_copy_only=False)
    micros = values * (1e6 / ticks)
    sound = np.isfinite(micros) & (np.abs(micros) < 2**62)
    return pa.array(np.where(sound, np.round(micros), 0).astype(np.int64), mask=~sound).cast(_MICRO)


def _from_text(column: pa.Array) -> tuple[pa.Array, Mask]:
    """ISO 8601 strings; what doesn't parse, or is no day of the calendar, becomes null."""
    parts = pc.extract_regex(column, pattern=_ISO)
    day, clock, second, fraction, offset = (pc.struct_field(parts, i) for i in range(5))
    clock = pc.if_else(pc.equal(clock, ""), "00:00", clock)
    second = pc.if_else(pc.equal(second, ""), ":00", second)
    written = pc.binary_join_element_wise(day, clock, second, "")
    whole = pc.strptime(written, format="%Y-%m-%d%H:%M:%S", unit="us", error_is_null=True)
    exists = pc.equal(pc.strftime(whole, format="%Y-%m-%d"), day)
    whole = pc.if_else(exists, whole, pa.scalar(None, _MICRO))
    micros = pc.cast(pc.utf8_rpad(pc.utf8_slice_codeunits(fraction, 0, 6), 6, padding="0"), pa.int64())
    utc = pc.add(whole.cast(pa.int64()), pc.subtract(micros, _offset_micros(offset))).cast(_MICRO)
    return utc, pc.fill_null(pc.not_equal(offset, ""), False).to_numpy(zero_copy_only=False)


def _offset_micros(offset: pa.Array) -> pa.Array:
    """ "+05:30" → microseconds to take off; "" and "Z" → 0."""
    digits = pc.replace_substring_regex(offset, pattern="[^0-9]", replacement="")
    digits = pc.utf8_rpad(digits, 4, padding="0").cast(pa.int64())
    hours = pc.divide(digits, 100)
    minutes = pc.add(pc.multiply(hours, 60), pc.subtract(digits, pc.multiply(hours, 100)))
    sign = pc.if_else(pc.starts_with(offset, "-"), -60_000_000, 60_000_000)
    return pc.multiply(minutes, sign)


def _wall_clock(stamps: pa.Array, aware: Mask, zone: str) -> pa.Array:
    """What a local clock showed: stamps with a zone carried to the local one, the others as they stand."""
    local = pc.local_timestamp(stamps.cast(pa.timestamp("us", tz=zone)))
    return pc.if_else(pa.array(aware), local, stamps)


def _end_of_local_day(wall: pa.Array, zone: str) -> pa.Array:
    """Last microsecond of the local day, as naive UTC; right on days of 23 and 25 hours too."""
    midnight = pc.floor_temporal(wall, unit="day").cast(pa.int64())
    following = pc.add(midnight, 86_400_000_000).cast(_MICRO)
    begins = pc.assume_timezone(following, zone, ambiguous="earliest", nonexistent="latest")
    return pc.subtract(begins.cast(pa.int64()), 1).cast(_MICRO)
