"""`userfm evaluate`: a run and its corpus → figures beside baselines."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from userfm.cli.finetune import OfSurface


class JudgedPart(StrEnum):
    """The parts of training.holdout, whose import would take seconds."""

    TEST = "test"
    VALIDATION = "validation"


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder that `userfm train` wrote.", show_default=False)],
    corpus: Annotated[Path, typer.Argument(help="The corpus that it was trained on.", show_default=False)],
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every figure here.", show_default=False)
    ] = None,
    told: Annotated[
        bool,
        typer.Option(
            "--told/--not-told", help="Whether the model is told the time and context of the group that it predicts."
        ),
    ] = True,
    part: Annotated[
        JudgedPart, typer.Option(help="test: what counts. validation: the part before it, to choose settings on.")
    ] = JudgedPart.TEST,
    surface: OfSurface = None,
) -> None:
    """Judge a model on what its corpus holds out, beside popularity and two personal counts.

    Each user's next group after the split (a basket, say) is to be found in a
    ranking of the whole catalogue. `model` is everything the model has,
    `embedding` the bare dot product of stored vectors. `repeat` counts only
    items that the user had before; `new` only the others, with the earlier ones
    taken out of the ranking. Recall is hits divided by the whole truth, the
    ideal of NDCG stops at its size, and intervals are 95 % bootstraps over
    users.

    \b
    Examples:
      userfm evaluate run corpus
      userfm evaluate run corpus --json figures.json --not-told
      userfm evaluate run corpus --part validation
      userfm evaluate run corpus --surface store=367

    A run that has learned the part, or was trained on another split, is
    refused. Figures are kept in RUN/evaluation.json, where `userfm runs`
    finds them; those of the test part are noted on the model card,
    RUN/model/README.md, too. Those of one --surface are only shown.
    """
    from tokenization.corpus.corpus import Corpus
    from training.evaluate import evaluate_run, note_on_card
    from training.holdout import Part
    from training.runs import note_evaluation
    from training.tables import print_figures
    from training.tracking import track_figures
    from userfm.cli.console import progress_console, results, stages

    with stages(progress_console()) as progress:
        found = evaluate_run(run, Corpus.open(corpus), Part(part.value), told, progress, surface)
        figures = {"evaluation": found.figures()}
    if json_ is not None:
        json_.parent.mkdir(parents=True, exist_ok=True)
        json_.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if surface is not None:  # what is kept of a run is of everybody
        print_figures(figures, results())
        return
    note_evaluation(run, part.value, figures["evaluation"])
    # A list of metrics has no place for intervals.
    judged = {name: told for name, told in figures["evaluation"].items() if name != "intervals"}
    track_figures(run, part.value, judged, progress_console().print)
    if part is JudgedPart.TEST:
        note_on_card(run, figures["evaluation"])
    print_figures(figures, results())
