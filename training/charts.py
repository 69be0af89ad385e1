"""Charts as inline SVG: text of a page, styled by its CSS variables, so they follow light and dark by
themselves.

Every chart is `role="img"` with a title and a description in words. Colours are never the only sign: series
are labelled where they lie. No function here reads anything but its arguments.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from training.metrics import Floats

COLOURS = 9  # --series-1 … --series-9 in the template; the last one is for what has no colour of its own


@dataclass(frozen=True)
class Estimate:
    """One line of an interval chart."""

    label: str
    mean: float
    low: float
    high: float
    emphasis: bool = False


@dataclass(frozen=True)
class Mark:
    """Something that happened at a place of a line's x."""

    place: float
    label: str


@dataclass(frozen=True)
class Size:
    """Pixels of a chart at its widest."""

    width: int
    height: int


LARGE, SMALL = Size(760, 280), Size(370, 200)


@dataclass(frozen=True)
class _Axis:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start), 2)

    def ticks(self, about: int = 5) -> list[float]:
        return [t for t in nice_ticks(self.low, self.high, about) if self.low <= t <= self.high]


def line_chart(
    x: Floats,
    y: Floats,
    x_label: str,
    y_label: str,
    title: str,
    marks: Sequence[Mark] = (),
    size: Size = LARGE,
) -> str:
    """A noisy line and its running mean.

    Args:
        x: ascending, one value or more.
        y: as many values; not-a-numbers are left out.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        title: what a reader who can't see the chart should know it shows.
        marks: where something happened, inside the range of x.
        size: of the chart.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = _thin(x[known], 400), _thin(y[known], 400)
    if len(x) == 0:
        return '<p class="note">Nothing was logged.</p>'
    smooth = _running_mean(y, len(y) // 40)
    across = _Axis(*_room(float(x.min()), float(x.max()), 0.0), 64, size.width - 16)
    up = _Axis(*_room(float(y.min()), float(y.max()), 0.06), size.height - 44, 14)
    parts = [_grid(across, up, size.height, x_label, y_label)]
    marks = [mark for mark in marks if across.low <= mark.place <= across.high]
    parts += [_mark(mark, across(mark.place), up) for mark in marks]
    for values, css in ((y, "raw"), (smooth, "smooth")):
        points = " ".join(f"{across(a)},{up(b)}" for a, b in zip(x.tolist(), values.tolist(), strict=True))
        parts.append(f'<polyline class="{css}" points="{points}"/>')
    said = f"From {smooth[0]:.4g} to {smooth[-1]:.4g}, over {x_label} {x[0]:.4g} to {x[-1]:.4g}."
    said += "".join(f" At {mark.place:.4g}: {mark.label}." for mark in marks)
    return _svg(size.width, size.height, title, said, parts)


def interval_chart(rows: Sequence[Estimate], x_label: str, title: str) -> str:
    """One estimate a line with its interval, on a common scale that begins at 0."""
    width, line = 760, 34
    height = line * len(rows) + 50
    most = max(row.high for row in rows)
    across = _Axis(min(0.0, *(row.low for row in rows)), (most or 1.0) * 1.05, 190, width - 74)
    parts = []
    for tick in across.ticks():
        x = across(tick)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="6" y2="{height - 40}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{height - 24}" text-anchor="middle">{tick:g}</text>')
    for place, row in enumerate(rows):
        y = 22 + line * place
        css = "estimate strong" if row.emphasis else "estimate"
        parts.append(
            f'<g class="{css}"><text x="178" y="{y + 4}" text-anchor="end">{escape(row.label)}</text>'
            f'<line x1="{across(row.low)}" x2="{across(row.high)}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{across(row.mean)}" cy="{y}" r="5.5"/>'
            f'<text x="{width - 8}" y="{y + 4}" text-anchor="end">{row.mean:.3f}</text></g>'
        )
    parts.append(f'<text class="label" x="{across.start}" y="{height - 5}">{escape(x_label)}</text>')
    said = "; ".join(f"{r.label} {r.mean:.3f} ({r.low:.3f} to {r.high:.3f})" for r in rows)
    return _svg(width, height, title, said + ".", parts)


def scatter_chart(x: Floats, y: Floats, group: Sequence[str], label: Sequence[str], title: str) -> str:
    """Points coloured by group: the largest eight have a colour and their name at their middle, all have a tooltip."""
    ranked = Counter(group).most_common()
    colour = {name: min(place + 1, COLOURS) for place, (name, _) in enumerate(ranked)}
    width, height = 760, 560
    across = _Axis(*_room(float(x.min()), float(x.max()), 0.03), 8, width - 8)
    up = _Axis(*_room(float(y.min()), float(y.max()), 0.03), height - 8, 8)
    dots: dict[str, list[str]] = {name: [] for name in colour}
    for a, b, name, tip in zip(x.tolist(), y.tolist(), group, label, strict=True):
        dots[name].append(f'<circle cx="{across(a)}" cy="{up(b)}" r="2.6"><title>{escape(tip)}</title></circle>')
    parts = [f'<g class="dots series-{colour[name]}">{"".join(dots[name])}</g>' for name in colour]
    for name in list(colour)[: COLOURS - 1]:
        mine = np.array([other == name for other in group])
        left, top = across(float(np.median(x[mine]))), up(float(np.median(y[mine])))
        parts.append(f'<text class="place" x="{left}" y="{top}" text-anchor="middle">{escape(name)}</text>')
    said = ", ".join(f"{name} ({size})" for name, size in ranked)
    return _svg(width, height, title, f"Points by group: {said}.", parts) + _legend(colour)


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that span low to high."""
    if not high > low:
        return [low]
    rough = (high - low) / max(about, 1)
    power = 10.0 ** np.floor(np.log10(rough))
    step = float(min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough)))
    first, last = int(np.floor(low / step)), int(np.ceil(high / step))
    return [round(i * step, 12) for i in range(first, last + 1)]


def _legend(colour: Mapping[str, int]) -> str:
    keys = list(colour.items())[: COLOURS - 1]
    if len(colour) >= COLOURS:
        keys.append((f"{len(colour) - COLOURS + 1} smaller ones", COLOURS))
    items = "".join(f'<li class="series-{c}"><span class="key"></span>{escape(name)}</li>' for name, c in keys)
    return f'<ul class="legend">{items}</ul>'


def _grid(across: _Axis, up: _Axis, height: int, x_label: str, y_label: str) -> str:
    left, right, middle = across.start, across.stop, (across.start + across.stop) / 2
    rows = [
        f'<line class="grid" x1="{left}" x2="{right}" y1="{up(tick)}" y2="{up(tick)}"/>'
        f'<text class="tick" x="{left - 8}" y="{up(tick) + 4}" text-anchor="end">{tick:g}</text>'
        for tick in up.ticks()
    ]
    columns = [
        f'<text class="tick" x="{across(tick)}" y="{height - 24}" text-anchor="middle">{tick:g}</text>'
        for tick in across.ticks()
    ]
    turned = f"translate(14 {(up.start + up.stop) / 2}) rotate(-90)"
    names = (
        f'<text class="label" x="{middle}" y="{height - 5}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="label" transform="{turned}" text-anchor="middle">{escape(y_label)}</text>'
    )
    return "".join([*rows, *columns, names])


def _mark(mark: Mark, x: float, up: _Axis) -> str:
    """A dashed line over the whole height, with its label as a tooltip and, turned, beside it."""
    turned = f"translate({x - 4} {up.stop + 4}) rotate(-90)"
    return (
        f'<g class="mark"><title>{escape(mark.label)}</title><line x1="{x}" x2="{x}" y1="{up.stop}" y2="{up.start}"/>'
        f'<text class="tick" transform="{turned}" text-anchor="end">{escape(mark.label)}</text></g>'
    )


def _svg(width: int, height: int, title: str, description: str, parts: Sequence[str]) -> str:
    """The titles of a page's charts must differ: they are also what names them."""
    key = re.sub(r"\W+", "-", title.lower())
    return (
        '<div class="chart" tabindex="0">'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(description)}</desc>'
        f"{''.join(parts)}</svg></div>"
    )


def _room(low: float, high: float, share: float) -> tuple[float, float]:
    """A range with some air around it; never empty."""
    air = (high - low) * share or (abs(high) or 1.0) * (0.05 if high == low else 0.0)
    return low - air, high + air


def _thin(values: Floats, most: int) -> Floats:
    places = np.unique(np.linspace(0, max(len(values) - 1, 0), min(most, max(len(values), 1))).astype(np.int64))
    return values[places] if len(values) else values


def _running_mean(values: Floats, window: int) -> Floats:
    """Mean over `window` values on each side, fewer at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    first, last = np.maximum(place - window, 0), np.minimum(place + window + 1, len(values))
    return np.asarray((total[last] - total[first]) / (last - first), dtype=np.float64)
