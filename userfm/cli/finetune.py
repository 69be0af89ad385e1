"""`userfm finetune`: a trained model → one that serves a surface, or a company, better."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from userfm.cli.train import (
    Address,
    OnRay,
    Processes,
    Restart,
    Settings,
    nothing_left,
    on_ray,
    overrides,
    thrown_away,
    trained_to_end,
)


class LearnsName(StrEnum):
    """What learns, as training.finetune has it, whose import would take seconds."""

    ANSWERS = "answers"
    LOW_RANK = "low-rank"
    FULL = "full"


OfLearns = Annotated[
    LearnsName,
    typer.Option(
        help="What learns. answers: what answers requests; vectors of users and items stay as they are. low-rank: and "
        "a little of each matrix of the trunk. full: everything."
    ),
]
OfSurface = Annotated[
    str | None,
    typer.Option(
        metavar="FACET=VALUE[,VALUE]",
        help="Ask only for what happens where this context facet has this value; none: for everything.",
        show_default=False,
    ),
]


def finetune(
    run: Annotated[Path, typer.Argument(help="The run to go on from.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the new run.", show_default=False)],
    surface: OfSurface = None,
    learns: OfLearns = LearnsName.FULL,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows that are asked for.")] = 1,
    rate: Annotated[float, typer.Option(help="Share of the run's learning rates.")] = 0.3,
    rank: Annotated[int, typer.Option(min=1, help="Of what low-rank adds to each matrix.")] = 8,
    set_: Settings = None,
    ray: OnRay = False,
    workers: Processes = 1,
    address: Address = None,
    restart: Restart = False,
) -> None:
    """Go on from a trained model for one surface, or for one company of several that share a log.

    Whole histories are read as before; what is asked for is what people did on
    the surface. The new model is one of its own, with the old one in its
    lineage. Both are then judged by the part of the log that neither has
    learned, on the surface and everywhere; which to serve is for you to say.

    The same command goes on where it was cut off.

    \b
    Examples:
      userfm finetune run --out run-store367 --surface store=367
      userfm finetune run --out run-store367 --surface store=367 --learns low-rank --rank 4
      userfm finetune run --out run-answers --learns answers --epochs 2

    Then: userfm evaluate run-store367 corpus --surface store=367
    """
    from tokenization.corpus.corpus import Corpus
    from training.finetune import Learns, tuning_of
    from training.gate import beside, judged_on, unlearned_part
    from training.recipes import with_overrides
    from training.run import Run, start
    from training.surface import surface_of
    from training.update import recipe_after
    from userfm.cli.console import results

    before = Run.open(run)
    corpus = Corpus.open(before.corpus)
    asked = None if surface is None else surface_of(surface, corpus.tokenizer)
    part = unlearned_part(before, corpus)
    if part is not None:
        judged_on(corpus, part, asked)  # before anything is trained
    tuning = tuning_of(before.model, Learns(learns.value), asked, rate, rank)
    recipe = with_overrides(recipe_after(before.recipe, corpus, epochs), overrides(set_ or []))
    thrown_away(out, restart)
    tuned = start(corpus, out, recipe, before.until, origin=tuning)
    trained_to_end(tuned, corpus, on_ray(ray, workers, address))
    if part is None:
        results().print(nothing_left(tuned, before))
        return
    for where in (asked, None) if asked is not None else (None,):
        results().print(beside(tuned, tuning.base, corpus, part, where).sentence())
