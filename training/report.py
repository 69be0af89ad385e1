"""What a run found, for people and for programs: report.json with every figure, report.html to read.

The page is one file that opens from disk, loads nothing and runs no script. Everything here takes plain data, so a
report can be written, and tested, without a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa

from training import charts
from training.charts import Estimate
from training.page import page, table, tiles
from training.tables import METHODS, PARTS, Row, evaluation_rows, flatten, head_rows, method_name, probe_rows
from training.verdicts import Figures, verdicts


class Basket(TypedDict):
    """One group of a user's history, in words."""

    when: str
    where: str
    items: list[str]


class Recommendation(TypedDict):
    """One recommended item: its name, what to say of it, and whether it was in the group held out."""

    item: str
    note: str
    hit: bool


class Reason(TypedDict):
    """A past event and how much the scores of the recommendations fall without it (negative: rise)."""

    event: str
    weight: float


class Story(TypedDict):
    """One user: recent groups, what is recommended, and the past events that weigh most in it."""

    user: str
    baskets: list[Basket]
    recommendations: list[Recommendation]
    reasons: list[Reason]


@dataclass(frozen=True)
class Report:
    """Everything a report shows.

    Attributes:
        title: of the page.
        lead: one or two sentences on the data and what was done.
        figures: what report.json will hold; sections whose figures are missing are left out of the page.
        curve: one row a logged step, with at least the columns step and loss.
        item_map: columns x, y, group, label; one row an item.
        stories: users to show.
    """

    title: str
    lead: str
    figures: Figures
    curve: pa.Table
    item_map: pa.Table
    stories: Sequence[Story]


def write_report(folder: str | Path, report: Report) -> tuple[Path, Path]:
    """Write report.json and report.html into `folder`, which is made if it is not there; returns both paths.

    Raises:
        ValueError: if a figure is NaN or infinite, which JSON can't hold; give None instead.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures, page = folder / "report.json", folder / "report.html"
    figures.write_text(json.dumps(report.figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    page.write_text(render(report), encoding="utf-8")
    return figures, page


def render(report: Report) -> str:
    """The whole page as HTML."""
    sections = [
        ("In short", _summary(report.figures)),
        ("What is recommended next", _evaluation(report.figures.get("evaluation", {}))),
        ("Heads and probe", _heads(report.figures)),
        ("Training", _training(report)),
        ("A map of the items", _map(report.item_map)),
        ("Three users up close" if len(report.stories) == 3 else "Users up close", _stories(report.stories)),
        ("Every figure", _everything(report.figures)),
    ]
    foot = "Every number on this page is in report.json beside it."
    return page(report.title, report.lead, sections, foot)


def _summary(figures: Figures) -> str:
    shown = [
        ("NDCG@10 of the model", _get(figures, "evaluation.model.all.ndcg@10"), "{:.3f}"),
        ("Recall@50 on new items", _get(figures, "evaluation.model.new.recall@50"), "{:.3f}"),
        ("training tokens a second", _get(figures, "training.tokens_per_second"), "{:,.0f}"),
        ("ms to look a user up (median)", _get(figures, "serving.lookup_p50_ms"), "{:.2f}"),
        ("ms to encode fresh events", _get(figures, "serving.encode_p50_ms"), "{:.1f}"),
        ("minutes in all", _minutes(figures.get("wall_seconds")), "{:.1f}"),
        ("GiB of memory at most", figures.get("peak_rss_gib"), "{:.1f}"),
    ]
    said = [
        f'<li><span class="tag {v.outcome}">{v.outcome.value.capitalize()}</span><span>{escape(v.text)}</span></li>'
        for v in verdicts(figures)
    ]
    parts = [f'<ul class="verdicts">{"".join(said)}</ul>'] if said else []
    return "\n".join([*parts, tiles(shown)])


def _evaluation(evaluation: Figures) -> str:
    if not any(name in evaluation for name in METHODS):
        return ""
    protocol = evaluation.get("protocol", {})
    parts = [f'<p class="note">{escape(_protocol(protocol))}</p>'] if protocol else []
    for part, metric, title in (
        ("all", "ndcg@10", "NDCG@10"),
        ("new", "recall@50", "Recall@50 on items new to the user"),
    ):
        if estimates := _estimates(evaluation, part, metric):
            chart = charts.interval_chart(
                estimates, f"{title}, with 95 % intervals over users", f"{title} of every method"
            )
            parts.append(f'<div class="card">{chart}</div>')
    for part, meaning in PARTS.items():
        head, rows = evaluation_rows(evaluation, part)
        parts.append(table(meaning, head, rows))
    return "\n".join(parts)


def _protocol(protocol: Figures) -> str:
    names = f" ({', '.join(protocol['told'])})" if protocol.get("told") else ""
    told = "both the time and" if protocol.get("told_time_and_context") else "neither the time nor"
    cold = protocol.get("users_without_history", 0)
    return (
        f"The next group of {protocol.get('users', 0):,} users after the split, each time ranking all "
        f"{protocol.get('catalogue', 0):,} items. The model was told {told} the context{names} of "
        "the group that it predicts. "
        "Recall is hits divided by the whole truth; the ideal of NDCG stops at the size of the truth. "
        f"{cold:,} users without any history are not judged."
    )


def _estimates(evaluation: Figures, part: str, metric: str) -> list[Estimate]:
    rows = []
    for name in METHODS:
        mean = _get(evaluation, f"{name}.{part}.{metric}")
        if mean is None:
            continue
        ends = _get(evaluation, f"intervals.{name}.{part}.{metric}") or {}
        low, high = (ends.get(end, mean) for end in ("low", "high"))
        rows.append(Estimate(method_name(name), mean, low, high, emphasis=name == "model"))
    return rows


def _heads(figures: Figures) -> str:
    parts = []
    if heads := figures.get("heads"):
        parts.append(table("Each head beside its popularity baseline", *head_rows(heads)))
    if probe := figures.get("probe"):
        caption = "Linear probe: rank correlation on users held out, with 95 % intervals over repeated folds"
        parts.append(table(caption, *probe_rows(probe)))
    return "\n".join(parts)


def _training(report: Report) -> str:
    if not {"step", "loss"} <= set(report.curve.column_names) or report.curve.num_rows == 0:
        return ""
    step, loss = (np.asarray(report.curve[name].to_numpy(), dtype=np.float64) for name in ("step", "loss"))
    chart = charts.line_chart(step, loss, "step", "loss", "Training loss by step")
    told = report.figures.get("training", {})
    said = [
        text.format(told[key])
        for key, text in (
            ("steps", "{:,} steps"),
            ("seconds", "{:,.0f} s"),
            ("tokens_per_second", "{:,.0f} tokens a second"),
        )
        if told.get(key) is not None
    ]
    return f'<div class="card">{chart}</div><p class="note">{escape(", ".join(said))}</p>'


def _map(item_map: pa.Table) -> str:
    if item_map.num_rows == 0:
        return ""
    x, y = (np.asarray(item_map[name].to_numpy(), dtype=np.float64) for name in ("x", "y"))
    chart = charts.scatter_chart(
        x, y, item_map["group"].to_pylist(), item_map["label"].to_pylist(), "Item embeddings in two dimensions"
    )
    return (
        f'<p class="note">{item_map.num_rows:,} items; near in the embedding is near on the map. Point at one for its '
        f'name. Distances between far clusters mean little.</p><div class="card">{chart}</div>'
    )


def _stories(stories: Sequence[Story]) -> str:
    return "\n".join(_story(story) for story in stories)


def _story(story: Story) -> str:
    baskets = "".join(
        f"<li><time>{escape(b['when'])}</time> {escape(b['where'])}<br>{escape(', '.join(b['items']))}</li>"
        for b in story["baskets"]
    )
    recommended = "".join(
        f'<li>{escape(r["item"])} <span class="note">{escape(r["note"])}</span>'
        + (' <span class="hit">✓ bought</span>' if r["hit"] else "")
        + "</li>"
        for r in story["recommendations"]
    )
    most = max((abs(r["weight"]) for r in story["reasons"]), default=0.0) or 1.0
    reasons = "".join(
        f'<li>{escape(r["event"])} <span class="note">{r["weight"]:+.3f}</span><span aria-hidden="true" '
        f'class="bar{" against" if r["weight"] < 0 else ""}" style="width:{abs(r["weight"]) / most:.0%}"></span></li>'
        for r in story["reasons"]
    )
    return (
        f'<article class="card story"><h3>{escape(story["user"])}</h3>'
        f'<div><h4>Recently</h4><ul class="baskets">{baskets}</ul></div>'
        f"<div><h4>Recommended next</h4><ol>{recommended}</ol></div>"
        f'<div><h4>Because of</h4><ul class="reasons">{reasons}</ul></div></article>'
    )


def _everything(figures: Figures) -> str:
    rows = [Row(name, (_plain(value),)) for name, value in flatten(figures)]
    told = table("As in report.json", ["figure", "value"], rows)
    return f"<details><summary>{len(rows)} figures</summary>{told}</details>"


def _plain(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _get(figures: Figures, path: str) -> Any:
    here: Any = figures
    for key in path.split("."):
        here = here.get(key) if isinstance(here, Mapping) else None
    return here


def _minutes(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 60
