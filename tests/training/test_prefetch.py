"""Values made ahead are those that would have been made, in their order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from training.prefetch import Prefetched


def numbers(upto: int, made: list[int], seconds: float = 0.0) -> Iterator[int]:
    for number in range(upto):
        time.sleep(seconds)
        made.append(number)
        yield number


def test_values_come_in_their_order_and_end_where_the_source_ends() -> None:
    with Prefetched(numbers(7, [])) as values:
        assert list(values) == list(range(7))
        assert next(values, None) is None


def test_no_more_is_made_ahead_than_was_asked_for() -> None:
    made: list[int] = []
    with Prefetched(numbers(100, made), ahead=2) as values:
        next(values)
        deadline = time.monotonic() + 5
        while len(made) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert made == [0, 1, 2]


def test_making_and_using_overlap() -> None:
    begun, made = time.monotonic(), []
    with Prefetched(numbers(10, made, seconds=0.05)) as values:
        for _ in values:
            time.sleep(0.05)
    assert time.monotonic() - begun < 0.9  # one after the other they would take 1.0


def test_what_making_raises_is_raised_where_the_value_is_asked_for() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("row 7 is torn")

    with Prefetched(broken()) as values:
        assert next(values) == 1
        with pytest.raises(ValueError, match="row 7 is torn"):
            next(values)


def test_closing_stops_the_thread() -> None:
    before = threading.active_count()
    values = Prefetched(numbers(100, []))
    next(values)
    values.close()
    assert threading.active_count() == before
