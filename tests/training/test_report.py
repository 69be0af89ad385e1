"""The report holds every figure, says what they say, loads nothing, and is well formed."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from training.report import Report, render, write_report

METHODS = ("model", "embedding", "popularity", "personal_count", "personal_decayed")
VOID = {"meta", "br", "circle", "line", "polyline"}


def figures() -> dict[str, Any]:
    one = {"recall@10": 0.1, "recall@50": 0.2, "ndcg@10": 0.15}
    evaluation: dict[str, Any] = {
        name: {"all": one, "repeat": one, "new": one, "coverage@10": 0.01} for name in METHODS
    }
    evaluation["model_minus_personal_decayed"] = {"ndcg@10": -0.02, "low": -0.03, "high": -0.01}
    evaluation["intervals"] = {"model": {"all": {"ndcg@10": {"low": 0.14, "high": 0.16}}}}
    evaluation["protocol"] = {
        "users": 2180,
        "catalogue": 92348,
        "told_time_and_context": True,
        "users_without_history": 11,
    }
    return {
        "evaluation": evaluation,
        "training": {"tokens_per_second": 12345.6, "steps": 10, "seconds": 3.0, "final_loss": 1.5},
        "heads": {"home": {"ndcg@10": 0.2, "baseline_ndcg@10": 0.1}},
        "probe": {"age": {"embedding": 0.4, "baseline": 0.3, "users": 801}},
        "wall_seconds": 90.0,
        "peak_rss_gib": 3.25,
    }


def report(**changed: Any) -> Report:
    parts: dict[str, Any] = {
        "title": "A <b>log</b> & more",
        "lead": "Judged on the next basket.",
        "figures": figures(),
        "curve": pa.table({"step": [1, 2, 3], "loss": [3.0, 2.0, 1.5]}),
        "item_map": pa.table({"x": [0.0, 1.0], "y": [0.0, 1.0], "group": ["DELI", "MEAT"], "label": ["<ham>", "beef"]}),
        "stories": [
            {
                "user": "Household 7",
                "baskets": [{"when": "Nov 1", "where": "store 3", "items": ["MILK", "EGGS & HAM"]}],
                "recommendations": [{"item": "MILK", "note": "had 4 times", "hit": True}],
                "reasons": [{"event": "Nov 1: MILK", "weight": 0.5}, {"event": "Oct 1: TEA", "weight": -0.25}],
            }
        ],
    }
    return Report(**(parts | changed))


class Reader(HTMLParser):
    """Collects tags and text, and fails on a tag that is closed out of order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_json_holds_exactly_the_figures(tmp_path: Path) -> None:
    path, _ = write_report(tmp_path / "new folder", report())
    assert json.loads(path.read_text()) == figures()


def test_the_page_opens_from_disk_and_loads_nothing(tmp_path: Path) -> None:
    _, path = write_report(tmp_path, report())
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w|\bsrc=|@import|url\(|<script|<link", page)


def test_the_page_is_well_formed_and_its_ids_are_unique() -> None:
    reader = Reader(render(report()))
    assert len(set(reader.ids)) == len(reader.ids)


def test_what_others_wrote_is_text_and_never_markup() -> None:
    page = render(report())
    assert "<b>log</b>" not in page
    assert "<ham>" not in page
    text = "".join(Reader(page).text)
    assert "A <b>log</b> & more" in text
    assert "EGGS & HAM" in text


def test_the_page_shows_every_part() -> None:
    text = " ".join(Reader(render(report())).text)
    for said in (
        "The model loses to the decayed personal count",
        "2,180 users",
        "told both the time and the context",
        "92,348 items",
        "Personal count, decayed",
        "12,346",
        "Household 7",
        "had 4 times",
        "Oct 1: TEA",
        "evaluation.model.all.ndcg@10",
    ):
        assert said in text


def test_every_chart_is_described_in_words() -> None:
    page = render(report())
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(charts) == 4
    for chart in charts:
        assert 'role="img"' in chart
        assert re.search(r"<title [^>]*>[^<]+</title><desc [^>]*>[^<]+</desc>", chart)


def test_parts_without_figures_are_left_out() -> None:
    page = render(report(figures={}, curve=pa.table({}), item_map=pa.table({}), stories=[]))
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert headings == ["Every figure"]


def test_a_figure_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_report(tmp_path, report(figures={"wall_seconds": float("nan")}))
