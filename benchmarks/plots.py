"""Figures of a benchmark as one picture, SVG, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "userfm"

import matplotlib.pyplot as plt  # noqa: E402  after the choice of a backend that needs no screen


@dataclass(frozen=True)
class Line:
    """Values with the ends of their intervals, one for each place on the x-axis."""

    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def lines(
    path: Path,
    x: Sequence[float],
    named: Mapping[str, Line],
    x_label: str,
    y_label: str,
    title: str,
    ticks: Sequence[str] = (),
) -> None:
    """Lines with bands, named beside the picture. ticks: what stands at the places of x, where that is not x itself."""
    figure, axes = plt.subplots(figsize=(8, 4))
    for name, line in named.items():
        (drawn,) = axes.plot(x, line.values, marker="o", label=name)
        axes.fill_between(x, line.low, line.high, alpha=0.15, color=drawn.get_color())
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set(xlabel=x_label, ylabel=y_label, title=title, xticks=list(x))
    if ticks:
        axes.set_xticklabels(ticks)
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
