"""Tables show the figures as they are, and a figure that is missing as missing."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from training.tables import evaluation_rows, flatten, print_figures

EVALUATION = {
    "model": {"all": {"recall@10": 0.1, "recall@50": 0.2, "ndcg@10": 0.123456}, "coverage@10": 0.05},
    "popularity": {"all": {"recall@10": 0.1, "recall@50": None, "ndcg@10": 0.1}, "coverage@10": 0.0001},
    "intervals": {"model": {"all": {"ndcg@10": {"low": 0.11, "high": 0.13}}}},
}
ENDS = {metric: {"low": 0.11, "high": 0.13} for metric in ("recall@10", "recall@50", "ndcg@10")}
PARTS = {part: {"recall@10": 0.12, "recall@50": 0.12, "ndcg@10": 0.12} for part in ("all", "repeat", "new")}
METHODS = ("model", "embedding", "personal_decayed", "popularity")
FIGURES = {
    "evaluation": {
        **{name: {**PARTS, "coverage@10": 0.0512} for name in METHODS},
        "intervals": {name: dict.fromkeys(PARTS, ENDS) for name in METHODS},
        "model_minus_personal_decayed": {"ndcg@10": 0.01, "low": -0.01, "high": 0.03},
    },
    "heads": {"item_to_item": {"ndcg@10": 0.1, "baseline_ndcg@10": 0.2}},
    "serving": {"lookup_p50_ms": 0.5},
}


def test_a_row_a_method_with_its_intervals() -> None:
    head, rows = evaluation_rows(EVALUATION, "all")
    assert head == ["Method", "Recall@10", "Recall@50", "NDCG@10", "Coverage@10"]
    assert rows[0] == ("Model", ("0.100", "0.200", "0.123 [0.110, 0.130]", "0.0500"), True)
    assert rows[1].cells[1] == "–"


def letters(shown: str) -> Counter[str]:
    """How often each character stands there, lines of the tables and spaces left out."""
    return Counter(character for character in shown if character.isascii() and not character.isspace())


@pytest.mark.parametrize("width", [110, 80, 40])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_narrow_screen_cuts_nothing(width: int, terminal: bool) -> None:
    def shown(width: int) -> str:
        out = io.StringIO()
        print_figures(FIGURES, Console(file=out, width=width, force_terminal=terminal, color_system=None))
        return out.getvalue()

    assert "…" not in shown(width)
    assert letters(shown(width)) == letters(shown(1000))


def test_nested_figures_get_dotted_names() -> None:
    assert list(flatten({"a": {"b": 1, "c": {"d@10": 2}}, "e": 3})) == [("a.b", 1), ("a.c.d@10", 2), ("e", 3)]


def test_the_terminal_shows_tables_and_verdicts() -> None:
    out = io.StringIO()
    print_figures({"evaluation": EVALUATION, "serving": {"lookup_p50_ms": 0.5}}, Console(file=out, width=140))
    assert "0.123 [0.110, 0.130]" in out.getvalue()
    assert "serving.lookup_p50_ms" in out.getvalue()
    assert "Repeat" not in out.getvalue()  # no figures, no table
