"""RUN/training.html: how a training went, on a page of the kind of report.html.

Curves of losses, speed, waiting, memory and the optimiser, with the numbers beside them, and what kind of run it was.
However many steps a log has, a curve has at most `POINTS` points, each the mean of as many steps.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pyarrow as pa

from training import charts
from training.attempts import Attempt, attempts
from training.charts import LARGE, SMALL, Mark, Size
from training.metrics import Floats
from training.page import page, table, tiles
from training.runs import FoundRun, column, read_log, read_run, said
from training.tables import Row

POINTS = 400


@dataclass(frozen=True)
class Curve:
    """One quantity over the steps of a run. y: one value a step, not-a-number where it is not known."""

    name: str
    unit: str
    y: Floats

    @property
    def known(self) -> bool:
        """Whether any step knows it."""
        return bool(np.isfinite(self.y).any())


@dataclass(frozen=True)
class _Told:
    """What the page is made of."""

    run: FoundRun
    log: pa.Table
    attempts: Sequence[Attempt]

    @property
    def marks(self) -> list[Mark]:
        """Where a stage begins, and where the run went on after it had stopped."""
        stages = [Mark(first, f"stage {stage + 1}") for stage, first, _ in _stages(self.log)[1:]]
        return stages + [Mark(float(one.step), "went on") for one in self.attempts[1:]]


def write_training_report(folder: Path) -> Path:
    """Write training.html of a run, as far as it is; returns its path. Raises RunError where the folder is no run."""
    told = _Told(read_run(folder), read_log(folder / "training.jsonl"), attempts(folder))
    path = folder / "training.html"
    fresh = path.with_suffix(".tmp")
    fresh.write_text(_page(told), encoding="utf-8")
    fresh.rename(path)
    return path


def _page(told: _Told) -> str:
    run, log = told.run, told.log
    figures = run.figures()
    lead = f"{run.asked.name.capitalize() or 'A'} recipe, {run.state}"
    if log.num_rows:
        lead += f": {figures['step']:,} of {figures['steps']:,} steps in {figures['minutes']:,.1f} minutes"
    sections = [
        ("In short", _summary(figures)),
        ("The run", _facts(told)),
        ("Losses", _losses(told)),
        ("Speed", _drawn(told, speeds(log))),
        ("Memory", _drawn(told, [Curve("peak memory", "GiB", column(log, "memory_gib"))])),
        ("Optimisation", _drawn(told, _optimisation(log))),
        ("Stages", _stage_table(log)),
    ]
    foot = "Every step of it is in training.jsonl beside it."
    return page(f"Training of {run.folder.resolve().name}", f"{lead}.", sections, foot)


def _summary(figures: Mapping[str, float | None]) -> str:
    def hundred(name: str) -> float | None:
        value = figures[name]
        return None if value is None else 100 * value

    return tiles(
        [
            ("loss, mean of the last steps", figures.get("loss"), "{:.3f}"),
            ("tokens a second", figures["tokens_per_second"], "{:,.0f}"),
            ("tokens", figures["tokens"], "{:,.0f}"),
            ("minutes of training", figures["minutes"], "{:,.1f}"),
            ("% of the device's FLOP/s used by the model", hundred("mfu"), "{:.1f}"),
            ("% of the time waiting for data", hundred("data_wait"), "{:.1f}"),
            ("GiB of memory at most", figures["memory_gib"], "{:.2f}"),
        ]
    )


def _facts(told: _Told) -> str:
    asked = told.run.asked
    settings = asked.settings
    split = ", ".join(f"{name} {value}" for name, value in asked.split.items() if value is not None)
    rows = [
        ("recipe", asked.name or "not noted"),
        ("seed", str(settings.get("seed", ""))),
        ("corpus", str(settings["corpus"])),
        ("split", split),
        ("learned until", str(settings["until"])),
        *_steps(told.log),
    ]
    found, part = told.run.ndcg()
    rows += [(f"NDCG@10, {part} part", f"{found:.4f}")] if found is not None else []
    parts = [table("What was asked", ["fact", "value"], [Row(name, (value,)) for name, value in rows])]
    if asked.changes:
        changed = [Row(name, (said(there), said(here))) for name, (there, here) in asked.changes.items()]
        parts.append(table(f"What it changes of the recipe {asked.name}", ["setting", "there", "here"], changed))
    if told.attempts:
        head = ["began (UTC)", "from step", "device", "userfm", "commit", "torch"]
        parts.append(table("Each time that training began", head, [_attempt_row(one) for one in told.attempts]))
    return "\n".join(parts)


def _steps(log: pa.Table) -> list[tuple[str, str]]:
    """How much was done, and how many steps moved nothing (training/setbacks.py), where some did not."""
    if not log.num_rows:
        return []
    last = log.slice(log.num_rows - 1).to_pylist()[0]
    skipped = int((~np.isfinite(column(log, "loss")) | ~np.isfinite(column(log, "gradient_norm"))).sum())
    told = [(name, f"{last[name]:,.0f}") for name in ("step", "tokens", "seconds")]
    return told + ([("steps without a finite loss or gradient, skipped", f"{skipped:,}")] if skipped else [])


def _attempt_row(one: Attempt) -> Row:
    device = f"{one.ranks} × {one.device}" if one.ranks > 1 else one.device
    device += f", {one.threads} threads" if one.device == "cpu" else ""
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.at))
    return Row(began, (f"{one.step:,}", device, one.userfm or "–", one.commit or "–", one.torch))


def _losses(told: _Told) -> str:
    parts = [name for name in told.log.column_names if name.startswith("loss.")]
    curves = [Curve(name.removeprefix("loss."), "loss", column(told.log, name)) for name in parts]
    return _drawn(told, [Curve("loss", "loss", column(told.log, "loss")), *curves], first=LARGE)


def speeds(log: pa.Table) -> list[Curve]:
    """Tokens a second of each step, use of the device, and waiting for data."""
    tokens, seconds = (np.diff(column(log, name), prepend=0.0) for name in ("tokens", "seconds"))
    pace = np.divide(tokens, seconds, out=np.full(len(tokens), np.nan), where=seconds > 0)
    return [
        Curve("tokens a second", "tokens/s", pace),
        Curve("model FLOPs utilisation", "%", 100 * column(log, "mfu")),
        Curve("waiting for data", "% of the time", 100 * column(log, "data_wait")),
    ]


def _optimisation(log: pa.Table) -> list[Curve]:
    return [
        Curve("gradient norm", "before clipping", column(log, "gradient_norm")),
        Curve("learning rate", "of dense weights", column(log, "rate")),
    ]


def _drawn(told: _Told, curves: Sequence[Curve], first: Size = SMALL) -> str:
    """Charts of all that is known, and their numbers as a table. first: how large the first one is."""
    shown = [curve for curve in curves if curve.known]
    if not shown:
        return ""
    steps, marks = column(told.log, "step"), told.marks
    sizes = [first, *(SMALL for _ in shown[1:])]
    drawn = [
        f'<div class="card"><h3>{escape(curve.name)}</h3>{_chart(curve, steps, marks, size)}</div>'
        for curve, size in zip(shown, sizes, strict=True)
    ]
    large = drawn[: int(first is LARGE)]
    small = "".join(drawn[len(large) :])
    rows = [Row(f"{curve.name} ({curve.unit})", _numbers(curve.y)) for curve in shown]
    numbers = table("The same in numbers", ["quantity", "first", "last", "lowest", "mean", "highest"], rows)
    return "\n".join([*large, f'<div class="small">{small}</div>' if small else "", numbers])


def _chart(curve: Curve, steps: Floats, marks: Sequence[Mark], size: Size) -> str:
    x, y = binned(steps, POINTS), binned(curve.y, POINTS)
    return charts.line_chart(x, y, "step", curve.unit, f"{curve.name.capitalize()} by step", marks, size)


def binned(values: Floats, most: int) -> Floats:
    """Means of at most so many runs of neighbours, of equal length but for one; of what is known in each, and
    not-a-number where nothing is."""
    if len(values) <= most:
        return values
    starts = np.linspace(0, len(values), most, endpoint=False).astype(np.int64)
    known = np.isfinite(values)
    total, count = (np.add.reduceat(part, starts) for part in (np.where(known, values, 0.0), known.astype(np.float64)))
    return np.asarray(np.divide(total, count, out=np.full(most, np.nan), where=count > 0), dtype=np.float64)


def _numbers(y: Floats) -> tuple[str, ...]:
    known = y[np.isfinite(y)]
    shown = (known[0], known[-1], known.min(), known.mean(), known.max())
    return tuple(f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}" for value in shown)


def _stages(log: pa.Table) -> list[tuple[int, float, int]]:
    """(stage, its first step, most tokens of a row in it) of each stage that was begun."""
    if not log.num_rows:
        return []
    stage, history = (np.nan_to_num(column(log, name)).astype(np.int64) for name in ("stage", "history"))
    _, first = np.unique(stage, return_index=True)
    steps = column(log, "step")
    return [(int(stage[place]), float(steps[place]), int(history[place])) for place in first]


def _stage_table(log: pa.Table) -> str:
    found = _stages(log)
    if len(found) < 2:
        return ""
    ends = [first for _, first, _ in found[1:]] + [float(log["step"][-1].as_py()) + 1]
    rows = [
        Row(f"stage {stage + 1}", (f"{first:,.0f}", f"{end - first:,.0f}", f"{history:,}"))
        for (stage, first, history), end in zip(found, ends, strict=True)
    ]
    return table("Rows of the corpus as each stage cuts them", ["stage", "first step", "steps", "tokens a row"], rows)
