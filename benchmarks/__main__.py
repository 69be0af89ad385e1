"""`python -m benchmarks NAME --json FILE`: measure, print as a table, write the same as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.measure import Measured
from training.tables import STYLES

MODULES = {
    "ablations": "benchmarks.ablations",
    "attention": "benchmarks.attention",
    "candidates": "benchmarks.candidates",
    "long_histories": "benchmarks.long_histories",
    "merging": "benchmarks.merging",
    "optimisers": "benchmarks.optimisers",
    "semantic_ids": "benchmarks.semantic_ids",
    "serve": "benchmarks.serve",
    "stability": "benchmarks.stability",
    "staleness": "benchmarks.staleness",
    "tokenize": "benchmarks.tokenize",
    "train_step": "benchmarks.train_step",
    "window_sizes": "benchmarks.window_sizes",
}
"""Each has `run(progress) -> Measured`. Only the one asked for is imported: a machine that only trains has no gRPC."""


def main(arguments: list[str]) -> None:
    """Run one benchmark. A bar that is missed is printed as missed; it is no error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(MODULES), metavar="NAME", help=", ".join(sorted(MODULES)))
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to write the figures")
    chosen = parser.parse_args(arguments)
    console = Console()
    measured = _run(chosen.name, console)
    report = {
        "name": chosen.name,
        "command": f"python -m benchmarks {' '.join(arguments)}",
        "commit": commit(),
        "machine": machine(),
        "figures": dict(measured.figures),
        "bars": [asdict(bar) for bar in measured.bars],
    }
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(table(chosen.name, measured))


def _run(name: str, console: Console) -> Measured:
    with Progress(console=console, transient=True) as bars:
        tasks = {name: bars.add_task(name, total=None)}

        def progress(stage: str, done: int, total: int) -> None:
            task = tasks[stage] if stage in tasks else tasks.setdefault(stage, bars.add_task(stage))
            bars.update(task, completed=done, total=total)

        run: Callable[[Callable[[str, int, int], None]], Measured] = import_module(MODULES[name]).run
        return run(progress)


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
