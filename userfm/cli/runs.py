"""`userfm runs`: what lies in run folders, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from training.runs import FoundRun

LIST = "list"
WIDE_SETTING = 40  # characters of a setting in a table; --json has all


class _ListsByDefault(TyperGroup):
    """`userfm runs FOLDER` is `userfm runs list FOLDER`."""

    # ctx is a Context of click, or of typer where that has a click of its own.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [LIST, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_ListsByDefault, rich_markup_mode="rich")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback()
def runs() -> None:
    """List runs, compare them, and write how a training went.

    \b
    Examples:
      userfm runs experiments            every run at or below a folder
      userfm runs experiments --json     the same for a program
      userfm runs compare run-a run-b    settings that differ, and figures
      userfm runs report run             RUN/training.html, at any time

    A run is a folder that `userfm train` wrote. NDCG@10 is there once
    `userfm evaluate` has judged it.
    """


@app.command(LIST)
def list_(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or folders that hold some; the current one without.")
    ] = None,
    json_: Json = False,
) -> None:
    """List every run at or below folders. The word `list` may be left out.

    A run is running while its log grows, finished once its model is written, and
    stopped otherwise: the same `userfm train` continues it. The loss is the mean
    of the newest 20 steps, the wait the share of recent time that was spent waiting
    for data, NDCG@10 that of the model on all items of the test part, or of the part
    that is named. The last column has what a run changes of its recipe.

    \b
    Examples:
      userfm runs experiments
      userfm runs run-a run-b --json
    """
    from training.runs import find_runs, read_run
    from userfm.cli.console import results

    found = [read_run(folder) for folder in find_runs(folders or [Path()])]
    if json_:
        print(json.dumps([_plain(run) for run in found], indent=2))
        return
    results().print(_listed(found))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two runs or more.", show_default=False)],
    json_: Json = False,
) -> None:
    """Show in which settings runs differ, and their figures side by side.

    Losses are means of the newest 20 steps, and only comparable where the
    settings of negatives and objectives agree. Figures such as
    test.model.all.ndcg@10 are those of `userfm evaluate`.

    \b
    Example:
      userfm runs compare run-a run-b
    """
    from training.runs import compared, read_run
    from userfm.cli.console import results

    if len(runs) < 2:
        raise typer.BadParameter("name two runs or more, as in `userfm runs compare run-a run-b`", param_hint="RUNS")
    found = [read_run(folder) for folder in runs]
    settings = compared(found)
    figures = [run.figures() for run in found]
    names = list(dict.fromkeys(name for one in figures for name in one))
    side_by_side = {name: [one.get(name) for one in figures] for name in names}
    if json_:
        told = {"runs": [str(run.folder) for run in found], "settings": settings, "figures": side_by_side}
        print(json.dumps(told, indent=2))
        return
    console, head = results(), _names(found)
    if settings:
        console.print(_beside("Setting", head, {name: list(map(_short, row)) for name, row in settings.items()}))
    else:
        console.print("They were asked for the same: no setting differs")
    console.print(_beside("Figure", head, {name: list(map(_figure, row)) for name, row in side_by_side.items()}))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder that `userfm train` wrote.", show_default=False)],
) -> None:
    """Write RUN/training.html: losses, speed, waiting, memory, gradient norm and learning rate, stage by stage.

    Training writes it at its end; this does it at any time, of whatever was
    logged so far. It is one file that opens from disk and loads nothing.

    \b
    Example:
      userfm runs report run
    """
    from training.training_report import write_training_report
    from userfm.cli.console import results

    results().print(f"{write_training_report(run)} opens in a browser")


def _plain(run: FoundRun) -> dict[str, Any]:
    ndcg, part = run.ndcg()
    return {
        "run": str(run.folder),
        "state": run.state,
        "recipe": run.asked.name or None,
        "changes": run.changes,
        "ndcg@10": ndcg,
        "part": part or None,
        **run.figures(),
    }


def _listed(found: list[FoundRun]) -> Any:
    from rich.table import Table

    table = Table(header_style="dim")
    for name in ("Run", "State"):
        table.add_column(name, overflow="fold")
    for name in ("Steps", "Minutes", "Loss", "Tokens/s", "Wait", "NDCG@10"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("Recipe and changes", overflow="fold")
    for run in found:
        table.add_row(str(run.folder), run.state, *_cells(run), _changes(run))
    return table


def _cells(run: FoundRun) -> list[str]:
    told = run.figures()
    ndcg, part = run.ndcg()
    steps, minutes, loss, pace, wait = (
        told[name] for name in ("step", "minutes", "loss", "tokens_per_second", "data_wait")
    )
    return [
        "–" if steps is None else f"{steps:,} of {told['steps']:,}",
        "–" if minutes is None else f"{minutes:,.1f}",
        "–" if loss is None else f"{loss:.3f}",
        "–" if pace is None else f"{pace:,.0f}",
        "–" if wait is None else f"{100 * wait:.0f} %",
        "–" if ndcg is None else f"{ndcg:.4f}" + ("" if part == "test" else f" ({part})"),
    ]


def _changes(run: FoundRun) -> str:
    changed = ", ".join(f"{name}={_short(value)}" for name, value in run.changes.items())
    return f"{run.asked.name or 'not noted'}{': ' if changed else ''}{changed}"


def _names(found: list[FoundRun]) -> list[str]:
    """Names of folders, or their whole paths where names alone would not tell them apart."""
    names = [run.folder.resolve().name for run in found]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in found]


def _beside(first: str, head: list[str], rows: dict[str, list[str]]) -> Any:
    from rich.table import Table

    table = Table(header_style="dim")
    table.add_column(first, overflow="fold")
    for name in head:
        table.add_column(name, justify="right", overflow="fold")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _short(value: Any) -> str:
    from training.runs import said

    told = said(value)
    return told if len(told) <= WIDE_SETTING else f"{told[: WIDE_SETTING - 3]}..."


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if value >= 1_000 else f"{value:.4g}"
