"""`userfm demo`: the whole pipeline on real data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write everything to.", show_default=False)],
    minutes: Annotated[float, typer.Option(help="How long to train at most.")] = 4.5,
    workers: Annotated[int, typer.Option(min=1, help="Processes to train with.")] = 1,
) -> None:
    """Run everything on a year of real groceries: 1.5 million events of 2,469 households.

    Tokenizes, trains, evaluates beside baselines, probes, fits three heads,
    pushes, publishes and serves, and writes OUT/report.html and
    OUT/report.json. Two cores and 8 GiB do; it takes about ten minutes. A
    demo that was cut off goes on where it stopped.

    \b
    Example:
      userfm demo --out out/demo
    """
    began = time.monotonic()
    from userfm.cli.console import progress_console, results
    from userfm.demo import Settings, run

    run(out, results(), progress_console(), Settings(minutes=minutes, workers=workers), began)
