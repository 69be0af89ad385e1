"""`userfm demo`: the whole pipeline on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write everything to.", show_default=False)],
    workers: Annotated[int, typer.Option(min=1, help="Processes to train with.")] = 1,
) -> None:
    """Run everything on a year of real groceries: 1.5 million events of 2,469 households.

    Tokenizes, trains for five minutes at most, evaluates beside baselines,
    probes, fits three heads, pushes, publishes and serves, and writes
    OUT/report.html and OUT/report.json. Two cores and 8 GiB do; it takes about
    ten minutes. A demo that was cut off goes on where it stopped.

    \b
    Example:
      userfm demo --out out/demo
    """
    from userfm.cli.console import progress_console, results
    from userfm.demo import run

    run(out, results(), progress_console(), workers)
