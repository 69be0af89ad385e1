from __future__ import annotations

import numpy as np
import pytest

from benchmarks.measure import (
    Bar,
    Estimate,
    Measured,
    at_least,
    at_most,
    estimate,
    in_turns,
    joined,
    readings_in_turns,
)
from training.verdicts import Outcome


def test_two_things_take_turns_after_one_that_does_not_count() -> None:
    calls: list[str] = []
    told: list[tuple[int, int]] = []
    first, second = in_turns(
        lambda: calls.append("A"), lambda: calls.append("B"), 9, lambda done, total: told.append((done, total))
    )
    assert "".join(calls) == "AB" * 10
    assert first.shape == second.shape == (9,)
    assert (first > 0).all()
    assert told[-1] == (9, 9)


def test_any_number_of_things_take_turns_and_say_what_they_measured() -> None:
    said: dict[str, list[float]] = {name: [float(number) for number in range(10)] for name in "ABC"}
    order: list[str] = []

    def reading(name: str) -> float:
        order.append(name)
        return said[name][order.count(name) - 1]

    found = readings_in_turns([lambda name=name: reading(name) for name in "ABC"])  # type: ignore[misc]
    assert "".join(order) == "ABC" * 10
    assert found.tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]] * 3


def test_what_several_found_is_one_in_their_order() -> None:
    bar = Bar("b", 1.0, 2.0, Outcome.MISSED)
    assert joined([Measured({"a": 1.0}, ()), Measured({"b": 1.0}, (bar,))]) == Measured({"a": 1.0, "b": 1.0}, (bar,))


def test_few_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="8 pairs are too few to judge by; take at least 9"):
        in_turns(lambda: None, lambda: None, 8)


def test_the_interval_holds_the_median_and_narrows_with_more_values() -> None:
    rng = np.random.default_rng(0)
    few, many = estimate(rng.normal(2, 0.1, 9)), estimate(rng.normal(2, 0.1, 900))
    for found in (few, many):
        assert found.low <= found.median <= found.high
    assert many.high - many.low < few.high - few.low
    assert estimate(np.full(9, 3.0)) == Estimate(3.0, 3.0, 3.0)


def test_an_estimate_is_the_same_every_time() -> None:
    values = np.arange(9.0)
    assert estimate(values) == estimate(values)


def test_a_verdict_is_sure_only_where_the_whole_interval_is() -> None:
    found = Estimate(2.0, 1.8, 2.4)
    assert [at_most("x", found, bar).verdict for bar in (2.5, 2.4, 2.2, 1.8, 1.7)] == [
        Outcome.MET,
        Outcome.MET,
        Outcome.INCONCLUSIVE,
        Outcome.INCONCLUSIVE,
        Outcome.MISSED,
    ]
    assert [at_least("x", found, bar).verdict for bar in (1.7, 1.8, 2.2, 2.4, 2.5)] == [
        Outcome.MET,
        Outcome.MET,
        Outcome.INCONCLUSIVE,
        Outcome.INCONCLUSIVE,
        Outcome.MISSED,
    ]
    assert at_most("x", found, 2.5).value == 2.0
