"""`python -m benchmarks NAME --json FILE`: measure, print as a table, write the same as JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.measure import Measured
from training.tables import STYLES

MODULES = {
    "ablations": "benchmarks.ablations",
    "attention": "benchmarks.attention",
    "candidates": "benchmarks.candidates",
    "cold_start": "benchmarks.cold_start",
    "distillation": "benchmarks.distillation",
    "finetuning": "benchmarks.finetuning",
    "generation": "benchmarks.generation",
    "long_histories": "benchmarks.long_histories",
    "merging": "benchmarks.merging",
    "mfu": "benchmarks.mfu",
    "optimisers": "benchmarks.optimisers",
    "representation": "benchmarks.representation",
    "scaling": "benchmarks.scaling",
    "semantic_ids": "benchmarks.semantic_ids",
    "serve": "benchmarks.serve",
    "small": "benchmarks.small",
    "stability": "benchmarks.stability",
    "staleness": "benchmarks.staleness",
    "tokenize": "benchmarks.tokenize",
    "train_step": "benchmarks.train_step",
    "updates": "benchmarks.updates",
    "window_sizes": "benchmarks.window_sizes",
}
"""Each has `run(progress) -> Measured`. Only the one asked for is imported: a machine that only trains has no gRPC."""
ON_A_LOG = {"peer": "benchmarks.peer", "quality": "benchmarks.quality"}
"""These are told a log, and their figures are nested."""
ALL = {**MODULES, **ON_A_LOG}


def main(arguments: list[str]) -> None:
    """Run one benchmark. A bar that is missed is printed as missed; it is no error."""
    chosen = _parser().parse_args(arguments)
    console, began = Console(), time.monotonic()
    if chosen.name in ON_A_LOG:
        found = _run_on_a_log(chosen, console)
        _write(chosen.json, arguments, time.monotonic() - began, {"figures": found})
        console.print_json(data=json.loads(chosen.json.read_text(encoding="utf-8"))["figures"])
        return
    measured = _run(chosen.name, console)
    bars = [asdict(bar) for bar in measured.bars]
    seconds = time.monotonic() - began
    _write(chosen.json, arguments, seconds, {"figures": dict(measured.figures), "bars": bars})
    console.print(table(chosen.name, measured))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME", help=", ".join(sorted(ALL)))
    for name, module in sorted(ALL.items()):
        one = names.add_parser(name, description=f"{module}: see the top of that file")
        one.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to write the figures")
        if name in ON_A_LOG:
            one.add_argument("--data", required=True, metavar="LOG", help="ml-1m, beauty or complete_journey")
        if name == "quality":
            one.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each system")
            help_ = "of the clock on the wall for each training, on all cores; without it, as long as its settings say"
            one.add_argument("--minutes", type=float, default=math.inf, metavar="M", help=help_)
    return parser


def _write(path: Path, arguments: list[str], seconds: float, found: dict[str, object]) -> None:
    """seconds: of the clock on the wall, with what was found in caches not made again."""
    report = {
        "name": arguments[0],
        "command": f"python -m benchmarks {' '.join(arguments)}",
        "commit": commit(),
        "machine": machine(),
        "seconds": round(seconds),
        **found,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _run_on_a_log(chosen: argparse.Namespace, console: Console) -> dict[str, object]:
    from benchmarks import peer, quality
    from benchmarks.logs import Log

    log = Log(chosen.data)
    with _shown(console, chosen.name) as progress:
        if chosen.name == "peer":
            return peer.run(progress, log)
        return quality.run(progress, log, chosen.seeds, chosen.json, chosen.minutes)


def _run(name: str, console: Console) -> Measured:
    with _shown(console, name) as progress:
        run: Callable[[Callable[[str, int, int], None]], Measured] = import_module(MODULES[name]).run
        return run(progress)


@contextmanager
def _shown(console: Console, name: str) -> Iterator[Callable[[str, int, int], None]]:
    """Progress by stage, drawn while it goes on."""
    with Progress(console=console, transient=True) as bars:
        tasks = {name: bars.add_task(name, total=None)}

        def progress(stage: str, done: int, total: int) -> None:
            task = tasks[stage] if stage in tasks else tasks.setdefault(stage, bars.add_task(stage))
            bars.update(task, completed=done, total=total)

        yield progress


def table(name: str, measured: Measured) -> Table:
    """Every figure, and beside those with a bar, the bar and how that ended."""
    held = {bar.name: bar for bar in measured.bars}
    drawn = Table(title=name)
    for column in ("figure", "value", "bar", "verdict"):
        drawn.add_column(column, justify="left" if column in ("figure", "verdict") else "right")
    for figure, value in measured.figures.items():
        bar = held.get(figure)
        verdict = f"[{STYLES[bar.verdict]}]{bar.verdict}[/]" if bar else ""
        drawn.add_row(
            figure, f"{value:,.4g}" if value < 1000 else f"{value:,.0f}", f"{bar.bar:,.6g}" if bar else "", verdict
        )
    return drawn


def commit() -> str:
    """The commit that was measured, marked where the working tree differs from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return described.stdout.strip() or "unknown"


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main(sys.argv[1:])
