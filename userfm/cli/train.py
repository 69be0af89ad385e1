"""`userfm train`: a corpus → a run with a trained model and its heads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from foundation.space import Space
    from tokenization.corpus.corpus import Corpus
    from training.pretrain import Workers
    from training.progress import StepRecord
    from training.run import Run
    from training.training_set import Until
    from userfm.cli.console import Report


class RecipeName(StrEnum):
    """The recipes of training.recipes, whose import would take seconds."""

    DEFAULT = "default"
    SMALL = "small"
    ORDERED = "ordered"
    LARGE = "large"
    HUGE = "huge"


OfRecipe = Annotated[
    RecipeName,
    typer.Option(
        help="default: minutes on two cores. small: seconds, to see the pipeline through. ordered: for logs that tell "
        "an order and no time, in which nothing returns, such as films; 16 passes. large, huge: for 8 and for 64 GPUs."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change one setting of the recipe; may be repeated."),
]
Minutes = Annotated[float | None, typer.Option(help="End the schedule after so many minutes.", show_default=False)]
OnRay = Annotated[bool, typer.Option("--ray/--no-ray", help="On Ray Train, or in this very process.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes of Ray, each with a GPU where there is one.")]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster that shares the folder.", show_default=False)]
MinWorkers = Annotated[
    int, typer.Option(help="Begin, and go on after losses, with so many of --workers.", show_default="all")
]
Failures = Annotated[int, typer.Option(min=0, help="Lost workers or machines that the run survives.")]
Restart = Annotated[bool, typer.Option("--restart", help="Throw away a run that is in the folder.")]
Refit = Annotated[
    bool, typer.Option("--refit", help="Learn the validation part too, once settings are chosen; the test part judges.")
]
AllData = Annotated[
    bool, typer.Option("--all-data", help="Train on everything, for a release; such a run can't be evaluated.")
]


def train(
    corpus: Annotated[Path, typer.Argument(help="Folder that `userfm tokenize` wrote.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the run.", show_default=False)],
    recipe: OfRecipe = RecipeName.DEFAULT,
    set_: Settings = None,
    minutes: Minutes = None,
    workers: Processes = 1,
    min_workers: MinWorkers = 0,
    failures: Failures = 3,
    address: Address = None,
    ray: OnRay = True,
    refit: Refit = False,
    all_data: AllData = False,
    restart: Restart = False,
) -> None:
    """Train the foundation model on a corpus, and the heads on the model.

    Nothing from the validation part of the schema's split on is learned,
    unless --refit or --all-data says so. A run that was cut off, or asked to
    stop (SIGTERM: it keeps a checkpoint and exits 0), continues from its last
    checkpoint when the same command is given again.
    TensorBoard reads RUN/tensorboard, RUN/training.jsonl has a line a step,
    RUN/training.html shows how it went, RUN/model is the model to load, push or
    hand on. Where MLflow is installed and MLFLOW_TRACKING_URI is set, that server
    is told too.

    \b
    Examples:
      userfm train corpus --out run
      userfm train corpus --out run --minutes 30 --set width=128 --set layers=4
      userfm train corpus --out run --set stages=256:0.5,1024:0.3,4096:0.2
      userfm train corpus --out run --workers 2
      userfm train /shared/corpus --out /shared/run --workers 8 --min-workers 4 --address auto
      userfm train corpus --out judged --refit
      userfm train corpus --out release --all-data

    Then: userfm evaluate run corpus
    """
    from tokenization.corpus.corpus import Corpus
    from training.pretrain import Workers
    from training.recipes import Name, named, with_overrides
    from training.run import start
    from userfm.cli.console import progress_console, results

    if not ray and (workers > 1 or address is not None):
        raise typer.BadParameter("this very process is one: --workers and --address are of Ray", param_hint="--no-ray")
    console, wanted = progress_console(), Workers(workers, min_workers, failures, address)
    opened = Corpus.open(corpus)
    name = Name(recipe.value)
    chosen = with_overrides(named(name, opened), overrides(set_ or []))
    if minutes is not None:
        chosen = replace(chosen, minutes=minutes)
    thrown_away(out, restart)
    run = start(opened, out, chosen, until(refit, all_data), name)
    if run.finished:
        console.print(f"{out} is trained already; --restart trains it again")
    space = trained_to_end(run, opened, wanted if ray else None)
    results().print(
        f"{run.model} is a model of {space.name}: vectors of width {space.width}, fingerprint {space.fingerprint[:12]}"
    )


def thrown_away(out: Path, restart: bool) -> None:
    """Throw away a run that is in the folder, where that is wished."""
    if restart and (out / "run.json").exists():
        shutil.rmtree(out)


def nothing_left(run: Run, before: Run) -> str:
    """What is said of a run that can't be judged beside the one that it came from."""
    return f"{run.model} has learned all of the log, as {before.folder} had: nothing is left to judge it on"


def on_ray(ray: bool, workers: int, address: str | None) -> Workers | None:
    """Whom a run that goes on from another is trained by: by Ray where it is asked for, or where one process won't do;
    None: by this very process."""
    from training.pretrain import Workers

    return Workers(workers, address=address) if ray or workers > 1 or address is not None else None


def trained_to_end(run: Run, corpus: Corpus, workers: Workers | None) -> Space:
    """Train a run and its heads, as far as that is not done yet, while people, MLflow and the log are told of it.

    workers: of Ray; None: this very process.
    """
    from training.pretrain import pretrain, pretrain_bare
    from training.tracking import track_figures, tracking
    from userfm.cli.console import progress_console, stages, training

    console = progress_console()
    if not run.finished:
        with tracking(run.folder, console.print) as tell, training(console, run.recipe.minutes) as show:
            on_step = _each(show, tell)
            if workers is None:
                pretrain_bare(run, on_step)
            else:
                pretrain(run, workers, on_step)
    with stages(console) as progress:
        heads = fitted_heads(run, corpus, progress)
    track_figures(run.folder, "heads", heads, console.print)
    return pretrain(run)  # as it is now


def _each(*told: Callable[[StepRecord], None]) -> Callable[[StepRecord], None]:
    def tell(record: StepRecord) -> None:
        for one in told:
            one(record)

    return tell


def fitted_heads(run: Run, corpus: Corpus, progress: Report) -> dict[str, dict[str, float]]:
    """Fit the heads of a run and say how good they are; what was fitted before is read from RUN/heads.json."""
    from training.heads import fit_heads
    from training.training_set import Until

    file = run.folder / "heads.json"
    if not file.exists():
        figures = fit_heads(run, corpus, lambda stage, done, total: progress(f"{stage} head", done, total))
        told = {} if run.until is Until.END else figures  # how good on what it was trained on says nothing
        file.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    found: dict[str, dict[str, float]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def until(refit: bool, all_data: bool) -> Until:
    """How far into the log a run learns. Raises typer.BadParameter where both flags are given."""
    from training.training_set import Until

    if refit and all_data:
        raise typer.BadParameter("--all-data learns the test part too; give one of the two", param_hint="--refit")
    return Until.END if all_data else Until.TEST if refit else Until.VALIDATION


def overrides(given: list[str]) -> dict[str, str]:
    """NAME=VALUE pairs. Raises typer.BadParameter for anything else."""
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE, such as width=128", param_hint="--set")
        pairs[name] = value
    return pairs
