from __future__ import annotations

import numpy as np
import pytest

from tokenization.codes.codecs import POWERS, NumberCodec, clock_codes, span_codes
from tokenization.codes.counting import Tally
from tokenization.codes.vocabulary import ABSENT, FIRST
from tokenization.schema.rules import ClockFacet


def test_bins_are_about_equally_full() -> None:
    values = np.random.default_rng(0).lognormal(size=32_000)
    codes = NumberCodec.fit(Tally.of(values)).encode(values)
    counts = np.bincount(codes)[FIRST:]
    assert len(counts) == 32
    assert counts.min() > 990
    assert counts.max() < 1010


def test_a_number_that_fills_a_bin_alone_is_not_lumped_with_others() -> None:
    values = np.concatenate([np.zeros(900), np.arange(1.0, 101.0)])
    codec = NumberCodec.fit(Tally.of(values))
    codes = codec.encode(values)
    assert (codes[:900] == FIRST).all()
    assert (codes[900:] > FIRST).all()
    assert len(set(codes[900:].tolist())) > 10
    assert codec.size <= FIRST + 32


def test_no_bin_is_wasted_on_numbers_that_do_not_occur() -> None:
    values = np.repeat([1.0, 2.0, 3.0, 24.0], [900, 60, 39, 1])
    codec = NumberCodec.fit(Tally.of(values))
    assert codec.edges == (2.0, 3.0, 24.0)
    assert codec.encode(np.array([1.0, 2.0, 2.5, 3.0, 24.0, 99.0])).tolist() == [2, 3, 3, 4, 5, 5]


def test_codes_grow_with_the_numbers_and_stay_inside() -> None:
    codec = NumberCodec.fit(Tally.of(np.arange(100.0)))
    codes = codec.encode(np.array([-1e9, 0.0, 50.0, 99.0, 1e9]))
    assert (np.diff(codes) >= 0).all()
    assert codes[0] == FIRST
    assert codes[-1] == codec.size - 1


def test_an_absent_number_has_code_0() -> None:
    codec = NumberCodec.fit(Tally.of(np.array([1.0, np.nan, 2.0])))
    assert codec.encode(np.array([np.nan]))[0] == ABSENT


@pytest.mark.parametrize("values", [[], [np.nan], [5.0], [5.0, 5.0]])
def test_few_numbers_are_enough(values: list[float]) -> None:
    codec = NumberCodec.fit(Tally.of(np.array(values)))
    assert codec.encode(np.array([5.0]))[0] == FIRST
    assert codec.size >= FIRST + 1


def test_the_order_of_the_numbers_has_no_influence() -> None:
    values = np.random.default_rng(1).integers(0, 50, 999).astype(float)
    assert NumberCodec.fit(Tally.of(values)) == NumberCodec.fit(Tally.of(values[::-1].copy()))


def test_the_clock_tells_hour_weekday_and_gap() -> None:
    monday_noon = 1_704_715_200.0  # 2024-01-08T12:00:00Z
    times = np.array([monday_noon, monday_noon + 1, monday_noon + 86_400, np.nan])
    previous = np.array([np.nan, monday_noon, monday_noon, monday_noon])
    codes = clock_codes(tuple(ClockFacet), "UTC", times, previous, np.full(4, monday_noon - 4))
    hour, weekday, gap = codes["hour"], codes["weekday"], codes["gap"]
    assert codes["month"].tolist() == [FIRST, FIRST, FIRST, ABSENT]
    assert codes["tenure"].tolist() == [FIRST + 2, FIRST + 2, FIRST + 16, ABSENT]
    assert (hour - FIRST).tolist()[:3] == [12, 12, 12]
    assert (weekday - FIRST).tolist()[:3] == [0, 0, 1]
    assert gap.tolist() == [ABSENT, FIRST, FIRST + 16, ABSENT]
    assert (hour[3], weekday[3]) == (ABSENT, ABSENT)


def test_gaps_of_any_length_have_a_code() -> None:
    gaps = np.array([0.0, 1e-6, 1.9, 2.0, 3.9, 4.0, 1e12])
    assert span_codes(gaps).tolist() == [2, 2, 2, 3, 3, 4, FIRST + POWERS - 1]
