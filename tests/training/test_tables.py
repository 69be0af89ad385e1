"""Tables show the figures as they are, and a figure that is missing as missing."""

from __future__ import annotations

import io

from rich.console import Console

from training.tables import evaluation_rows, flatten, print_figures

EVALUATION = {
    "model": {"all": {"recall@10": 0.1, "recall@50": 0.2, "ndcg@10": 0.123456}, "coverage@10": 0.05},
    "popularity": {"all": {"recall@10": 0.1, "recall@50": None, "ndcg@10": 0.1}, "coverage@10": 0.0001},
    "intervals": {"model": {"all": {"ndcg@10": {"low": 0.11, "high": 0.13}}}},
}


def test_a_row_a_method_with_its_intervals() -> None:
    head, rows = evaluation_rows(EVALUATION, "all")
    assert head == ["Method", "Recall@10", "Recall@50", "NDCG@10", "Coverage@10"]
    assert rows[0] == ("Model", ("0.100", "0.200", "0.123 [0.110, 0.130]", "0.0500"), True)
    assert rows[1].cells[1] == "–"


def test_nested_figures_get_dotted_names() -> None:
    assert list(flatten({"a": {"b": 1, "c": {"d@10": 2}}, "e": 3})) == [("a.b", 1), ("a.c.d@10", 2), ("e", 3)]


def test_the_terminal_shows_tables_and_verdicts() -> None:
    out = io.StringIO()
    print_figures({"evaluation": EVALUATION, "serving": {"lookup_p50_ms": 0.5}}, Console(file=out, width=140))
    assert "0.123 [0.110, 0.130]" in out.getvalue()
    assert "serving.lookup_p50_ms" in out.getvalue()
    assert "Repeat" not in out.getvalue()  # no figures, no table
