"""Charts put values where their axes say, and stand on any input."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.charts import SMALL, Estimate, Mark, interval_chart, line_chart, nice_ticks, scatter_chart

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def parse(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(chart[: chart.index("</div>") + 6])


@settings(max_examples=40)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=30))
def test_any_line_stays_inside_its_frame(points: list[tuple[float, float]]) -> None:
    x, y = np.array(sorted(points)).T
    chart = parse(line_chart(x, y, "step", "loss", "A line"))
    for line in chart.iter("polyline"):
        for place in line.attrib["points"].split():
            across, up = map(float, place.split(","))
            assert 0 <= across <= 760
            assert 0 <= up <= 280


def test_a_line_skips_what_is_not_a_number_and_says_when_nothing_is_left() -> None:
    nothing = np.array([np.nan])
    assert "Nothing was logged" in line_chart(nothing, nothing, "step", "loss", "A line")
    assert "nan" not in line_chart(np.arange(3.0), np.array([1.0, np.nan, 2.0]), "step", "loss", "A line")


def test_what_happened_is_marked_where_it_happened_and_told_in_words() -> None:
    x = np.arange(11.0)
    marks = [Mark(5.0, "stage <2>"), Mark(99.0, "outside")]
    chart = line_chart(x, x, "step", "loss", "A line", marks, SMALL)
    (line,) = [line for line in parse(chart).iter("line") if line.attrib.get("class") != "grid"]
    ends = [place.split(",")[0] for place in next(parse(chart).iter("polyline")).attrib["points"].split()]
    assert line.attrib["x1"] == ends[5]
    assert "At 5: stage &lt;2&gt;." in chart
    assert "outside" not in chart


def test_a_longer_value_lies_further_right_and_its_interval_around_it() -> None:
    rows = [Estimate("small", 0.1, 0.05, 0.15), Estimate("large", 0.3, 0.2, 0.4, emphasis=True)]
    chart = parse(interval_chart(rows, "NDCG@10", "Methods"))
    dots = [float(dot.attrib["cx"]) for dot in chart.iter("circle")]
    bars = [line for line in chart.iter("line") if line.attrib.get("class") != "grid"]
    assert dots[0] < dots[1]
    for dot, bar in zip(dots, bars, strict=True):
        assert float(bar.attrib["x1"]) < dot < float(bar.attrib["x2"])


def test_estimates_of_zero_can_be_drawn() -> None:
    assert "nan" not in interval_chart([Estimate("none", 0.0, 0.0, 0.0)], "NDCG@10", "Methods")


def test_large_groups_are_named_on_the_map_and_the_rest_share_a_colour() -> None:
    group = [f"g{i}" for i in range(12) for _ in range(13 - i)]
    place = np.arange(len(group), dtype=float)
    chart = scatter_chart(place, place, group, [f"<item {i}>" for i in range(len(group))], "A map")
    names = [text.text for text in parse(chart).iter("text")]
    assert names == [f"g{i}" for i in range(8)]
    assert "4 smaller ones" in chart
    assert len(re.findall("<circle", chart)) == len(group)
    assert "<item" not in chart


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 0.21), (-3.0, 1234.0), (5.0, 5.0), (1e-9, 2e-9)])
def test_ticks_are_few_round_and_span_the_range(low: float, high: float) -> None:
    ticks = nice_ticks(low, high, 5)
    assert 1 <= len(ticks) <= 12
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12 or low == high
