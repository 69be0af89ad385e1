"""`userfm finetune`: a trained model → one that serves a surface, or a company, better."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from userfm.cli.train import Address, OnRay, Processes, on_ray, trained_to_end


class PartsName(StrEnum):
    """The parts of training.finetune, whose import would take seconds."""

    HEAD = "head"
    LOW_RANK = "low-rank"
    FULL = "full"


OfParts = Annotated[
    PartsName,
    typer.Option(
        help="What learns. head: what answers requests; vectors stay, so a store of them stays valid. low-rank: and a "
        "little of each matrix of the trunk. full: everything."
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
    parts: OfParts = PartsName.FULL,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows that are asked for.")] = 1,
    rate: Annotated[float, typer.Option(min=0, help="Share of the run's learning rates.")] = 0.3,
    rank: Annotated[int, typer.Option(min=1, help="Of what low-rank adds to each matrix.")] = 8,
    ray: OnRay = False,
    workers: Processes = 1,
    address: Address = None,
) -> None:
    """Go on from a trained model for one surface, or for one company of several that share a log.

    Whole histories are read as before; what is asked for is what people did on
    the surface. The new model is one of its own, with the old one in its
    lineage. Both are then judged on the surface, by the part of the log that
    neither has learned.

    The same command goes on where it was cut off.

    \b
    Examples:
      userfm finetune run --out run-store367 --surface store=367
      userfm finetune run --out run-store367 --surface store=367 --parts low-rank --rank 4
      userfm finetune run --out run-answers --parts head --epochs 2

    Then: userfm evaluate run-store367 corpus --surface store=367
    """
    from tokenization.corpus.corpus import Corpus
    from training.finetune import FineTuning, Parts
    from training.gate import UNLEARNED, verdict_of_part
    from training.run import Run, start
    from training.surface import surface_of
    from training.update import recipe_after
    from userfm.cli.console import results

    before = Run.open(run)
    corpus = Corpus.open(before.corpus)
    asked = None if surface is None else surface_of(surface, corpus.tokenizer)
    tuning = FineTuning(str(before.model.resolve()), Parts(parts.value), asked, rate, rank)
    recipe = recipe_after(before.recipe, corpus, epochs)
    tuned = start(corpus, out, recipe, before.until, origin=tuning)
    trained_to_end(tuned, corpus, on_ray(ray, workers, address))
    part = UNLEARNED[before.until]
    if part is None:
        results().print(f"{tuned.model} has learned all of the log, as {run} had: nothing is left to judge it on")
    else:
        results().print(verdict_of_part(tuning.base, tuned.model, corpus, part, asked).sentence())
