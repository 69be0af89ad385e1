"""`userfm distill`: a large trained model → a small one that serves nearly as well."""

from __future__ import annotations

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

Logits = Annotated[float, typer.Option(min=0, help="Share in the loss: who wins, and who comes how near.")]
States = Annotated[float, typer.Option(min=0, help="Share in the loss: which users are alike.")]
Layers = Annotated[float, typer.Option(min=0, help="Share in the loss: the same, layer by layer.")]


def distill(
    teacher: Annotated[Path, typer.Argument(help="Run of the large model.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the small one's run.", show_default=False)],
    set_: Settings = None,
    logits: Logits = 1.0,
    states: States = 1.0,
    layers: Layers = 1.0,
    ray: OnRay = False,
    workers: Processes = 1,
    address: Address = None,
    restart: Restart = False,
) -> None:
    """Train a small model on the log and on what a large one says of it.

    The small model has the large one's recipe, but for what --set changes.
    Both read the same events of the same corpus; the large one says of each
    request how its candidates stand to one another, and which users are alike.
    Nothing of it is left in the small model, which is served like any other.
    Then both are judged by the part of the log that neither has learned.

    The same command goes on where it was cut off.

    \b
    Examples:
      userfm train corpus --out large --set width=256 --set layers=4
      userfm distill large --out small --set width=32 --set heads=1 --set layers=2

    Then: userfm evaluate small corpus
    """
    from tokenization.corpus.corpus import Corpus
    from training.distill import distillation_of, parameters
    from training.gate import beside, unlearned_part
    from training.recipes import with_overrides
    from training.run import Run, start
    from userfm.cli.console import results

    large = Run.open(teacher)
    corpus = Corpus.open(large.corpus)
    part = unlearned_part(large, corpus)
    recipe = with_overrides(large.recipe, overrides(set_ or []))
    distillation = distillation_of(large.model, logits, states, layers)
    thrown_away(out, restart)
    small = start(corpus, out, recipe, large.until, origin=distillation)
    trained_to_end(small, corpus, on_ray(ray, workers, address))
    number, of_teacher = parameters(small.model), parameters(large.model)
    results().print(f"{number:,} parameters, 1 for {of_teacher / number:.1f} of its teacher's")
    if part is None:
        results().print(nothing_left(small, large))
        return
    kept = beside(small, distillation.teacher, corpus, part)
    share = f": it keeps {100 * kept.new / kept.old:.1f} %" if kept.old else ""
    results().print(f"{kept.sentence()}{share}")
