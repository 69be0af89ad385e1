"""Figures as rows of text, the same for the page and for the terminal, and the terminal's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from training.verdicts import Figures, Outcome, verdicts

METHODS = {
    "model": "Model",
    "target_aware": "Model, target-aware",
    "interests": "Interests (best dot product)",
    "embedding": "Embedding (dot product)",
    "personal_decayed": "Personal count, decayed",
    "personal_count": "Personal count",
    "popularity": "Popularity",
}
PARTS = {
    "all": "All items of the next group",
    "repeat": "Repeat: only items that the user had before",
    "new": "New: only items that the user never had, earlier ones taken out of the ranking",
}
METRICS = ("recall@10", "recall@50", "ndcg@10")
STYLES = {Outcome.MET: "green", Outcome.MISSED: "red", Outcome.INCONCLUSIVE: "yellow"}


class Row(NamedTuple):
    """One line of a table."""

    name: str
    cells: tuple[str, ...]
    emphasis: bool = False


def method_name(name: str) -> str:
    """What a scorer is called in a table."""
    return METHODS.get(name, name.replace("_", " ").capitalize())


def evaluation_rows(evaluation: Figures, part: str) -> tuple[list[str], list[Row]]:
    """One slice: a row a method, a column a metric with its interval; coverage stands in the first slice only."""
    covered = part == "all"
    names = [name for name in METHODS if part in evaluation.get(name, {})]
    rows = []
    for name in names:
        ends = evaluation.get("intervals", {}).get(name, {}).get(part, {})
        cells = [_with_interval(evaluation[name][part].get(m), ends.get(m)) for m in METRICS]
        cells += [_number(evaluation[name].get("coverage@10"), 4)] if covered else []
        rows.append(Row(method_name(name), tuple(cells), emphasis=name == "model"))
    head = ["Method", "Recall@10", "Recall@50", "NDCG@10"]
    return head + (["Coverage@10"] if covered else []), rows


def head_rows(heads: Figures) -> tuple[list[str], list[Row]]:
    """The heads beside their baselines."""
    rows = [
        Row(name.replace("_", "-"), (_number(head["ndcg@10"]), _number(head["baseline_ndcg@10"])))
        for name, head in heads.items()
    ]
    return ["Head", "NDCG@10", "Popularity"], rows


def probe_rows(probe: Figures) -> tuple[list[str], list[Row]]:
    """The probe's labels: embedding, counts, difference."""
    rows = []
    for name, label in probe.items():
        ends = label.get("intervals", {})
        gap = label.get("embedding_minus_baseline", {})
        both = [_with_interval(label[part], ends.get(part)) for part in ("embedding", "baseline")]
        rows.append(Row(name.replace("_", " "), (*both, _with_interval(gap.get("mean"), gap))))
    return ["Label", "User embedding", "Purchase counts (SVD)", "Difference"], rows


def flatten(figures: Figures, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested figures as (dotted name, value)."""
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def print_figures(figures: Figures, console: Console) -> None:
    """Everything a report says, as tables in a terminal; sections without figures are left out."""
    evaluation = figures.get("evaluation", {})
    for part, title in PARTS.items():
        head, rows = evaluation_rows(evaluation, part)
        _print(console, title, head, rows)
    _print(console, "Heads", *head_rows(figures.get("heads", {})))
    _print(console, "Linear probe (rank correlation)", *probe_rows(figures.get("probe", {})))
    speeds = [
        Row(name, (_number(value, 2),))
        for section in ("tokenization", "training", "serving")
        for name, value in flatten({section: figures.get(section, {})})
        if isinstance(value, int | float)
    ]
    _print(console, "Speed and size", ["Figure", "Value"], speeds)
    for verdict in verdicts(figures):
        outcome = Text(f"{verdict.outcome:>12}", STYLES[verdict.outcome])
        console.print(Text.assemble(outcome, "  ", verdict.text))


def _print(console: Console, title: str, head: list[str], rows: list[Row]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for place, name in enumerate(head):
        # Where the screen is too narrow a cell goes on below: no figure is cut.
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(row.name, *row.cells, style="bold" if row.emphasis else None)
    console.print(table)


def _with_interval(value: float | None, ends: Figures | None) -> str:
    if value is None or not ends or ends.get("low") is None:
        return _number(value)
    return f"{_number(value)} [{ends['low']:.3f}, {ends['high']:.3f}]"


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
