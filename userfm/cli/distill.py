"""`userfm distill`: a large trained model → a small one that serves nearly as well."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from userfm.cli.train import Address, OnRay, Processes, Settings, on_ray, overrides, trained_to_end

Share = Annotated[float, typer.Option(min=0, help="Share in the loss: who wins, and who comes how near.")]
States = Annotated[float, typer.Option(min=0, help="Share in the loss: which users are alike.")]
Layers = Annotated[float, typer.Option(min=0, help="Share in the loss: the same, layer by layer.")]


def distill(
    teacher: Annotated[Path, typer.Argument(help="Run of the large model.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the small one's run.", show_default=False)],
    set_: Settings = None,
    logits: Share = 1.0,
    states: States = 1.0,
    layers: Layers = 1.0,
    ray: OnRay = False,
    workers: Processes = 1,
    address: Address = None,
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
    from training.distill import Distillation, parameters
    from training.gate import UNLEARNED, verdict_of_part
    from training.recipes import with_overrides
    from training.run import Run, start
    from userfm.cli.console import results

    large = Run.open(teacher)
    corpus = Corpus.open(large.corpus)
    recipe = with_overrides(large.recipe, overrides(set_ or []))
    distillation = Distillation(str(large.model.resolve()), logits, states, layers)
    small = start(corpus, out, recipe, large.until, origin=distillation)
    trained_to_end(small, corpus, on_ray(ray, workers, address))
    part = UNLEARNED[large.until]
    if part is None:
        results().print(f"{small.model} has learned all of the log, as {teacher} had: nothing is left to judge it on")
        return
    kept = verdict_of_part(distillation.teacher, small.model, corpus, part)
    number, of_teacher = parameters(small.model), parameters(large.model)
    gap = f"{kept.gap.mean:+.4f}, {kept.gap.low:+.4f} to {kept.gap.high:+.4f}"
    results().print(
        f"{small.model} has {number:,} parameters, 1 for {of_teacher / number:.1f} of its teacher's; NDCG@10 on "
        f"{kept.on} of {kept.users:,} users: {kept.new:.4f}, the teacher {kept.old:.4f} ({gap}): it keeps "
        f"{100 * kept.new / kept.old:.1f} %"
    )
