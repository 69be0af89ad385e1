"""What the commands show while they work: bars in a terminal, plain lines where nobody watches.

Progress goes to stderr and results to stdout, so a result can be piped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

Report = Callable[[str, int, int], None]
"""(stage, done, total)."""
WIDEST = 10_000
"""Columns where no terminal says how many."""
LINE_SECONDS = 15.0
"""Between two lines about training where there is no terminal."""


class Step(Protocol):
    """What is shown of a training step; `training.loop.StepRecord` is one."""

    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def loss(self) -> float: ...
    @property
    def tokens_per_second(self) -> float: ...
    @property
    def mfu(self) -> float | None: ...
    @property
    def data_wait(self) -> float | None: ...


def results() -> Console:
    """Where results go. A terminal folds what is too wide for it; elsewhere a line is as long as it needs to be.

    What is printed is text and not markup: ids and paths may hold brackets.
    """
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=WIDEST)


def progress_console() -> Console:
    """Where progress and remarks go, a line each where there is no terminal."""
    console = Console(stderr=True, highlight=False, markup=False)
    return console if console.is_terminal else Console(stderr=True, highlight=False, markup=False, width=WIDEST)


@contextmanager
def stages(console: Console) -> Iterator[Report]:
    """A callback (stage, done, total) that shows one line a stage."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[count]}", justify="right"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        yield _Bars(bars)


class _Bars:
    """One bar a stage; the stage before is over when the next begins."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, count="")
        count = f"{done:,} of {total:,}" if total > 1 else ""
        self._bars.update(self._tasks[stage], completed=done, total=max(total, 1), count=count)


class _Lines:
    """A line for each stage that is done, with the time since the one before."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._before = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if done < total:
            return
        now = time.monotonic()
        count = f": {total:,}" if total > 1 else ""
        self._console.print(f"{stage}{count} ({now - self._before:.1f} s)")
        self._before = now


@contextmanager
def training(console: Console, minutes: float = math.inf) -> Iterator[Callable[[Step], None]]:
    """A callback for training steps: a bar with the time left, and below it loss, tokens a second, utilisation and the
    share of waiting for data.

    minutes: after which the schedule ends even if steps are left.
    """
    if not console.is_terminal:
        yield _TrainingLines(console, minutes)
        return
    bars = Progress(
        SpinnerColumn(),
        BarColumn(bar_width=28),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        console=console,
    )
    task = bars.add_task("starting", total=None)
    with Live(bars, console=console, refresh_per_second=10) as live:

        def show(step: Step) -> None:
            bars.update(task, total=1.0, completed=share_done(step, minutes), description=place(step, minutes))
            # On a line of its own: a narrow terminal cuts what stands beside a bar.
            live.update(Group(bars, Text(f"  {figures(step)}", style="dim")))

        yield show


class _TrainingLines:
    """A line now and then."""

    def __init__(self, console: Console, minutes: float) -> None:
        self._console = console
        self._minutes = minutes
        self._said = -math.inf

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if now - self._said >= LINE_SECONDS or step.step == step.steps:
            self._said = now
            self._console.print(describe(step, self._minutes))


def describe(step: Step, minutes: float) -> str:
    """One step in words."""
    return f"{place(step, minutes)}, {figures(step)}"


def place(step: Step, minutes: float) -> str:
    """Where a step stands, and the time left."""
    left = int(seconds_left(step, minutes))
    hours = f"{left // 3600}:" if left >= 3600 else ""
    clock = f"{hours}{left // 60 % 60:0{2 if hours else 1}d}:{left % 60:02d}"
    return f"step {step.step:,} of {step.steps:,}, {clock} left"


def figures(step: Step) -> str:
    """Loss and speed of a step, and what of the device is used and waited for where that is known."""
    told = [f"loss {step.loss:.3f}", f"{step.tokens_per_second:,.0f} tokens/s"]
    if step.mfu is not None:
        told.append(f"MFU {100 * step.mfu:.1f} %")
    if step.data_wait is not None:
        told.append(f"waiting for data {100 * step.data_wait:.0f} %")
    return ", ".join(told)


def share_done(step: Step, minutes: float) -> float:
    """How much of the training is done, 0 to 1: by steps or by time, whichever is further."""
    return min(1.0, max(step.step / max(step.steps, 1), step.seconds / (60 * minutes)))


def seconds_left(step: Step, minutes: float) -> float:
    """Until the last step at the present pace, or until the time is over."""
    pace = step.seconds / max(step.step, 1)
    return max(0.0, min(pace * (step.steps - step.step), 60 * minutes - step.seconds))
