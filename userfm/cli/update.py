"""`userfm update`: yesterday's model and today's events → today's model, judged before it is served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from userfm.cli.train import Address, OnRay, Processes, Restart, on_ray, thrown_away, trained_to_end

if TYPE_CHECKING:
    from tokenization.corpus.corpus import Corpus
    from training.gate import Verdict
    from training.pretrain import Workers
    from training.run import Run
    from userfm.cli.console import Report

Day = Annotated[
    Path | None, typer.Option(help="What happened since; none if the corpus has it already.", show_default=False)
]
Declared = Annotated[Path | None, typer.Option(help="The schema that the events are declared by.", show_default=False)]
Items = Annotated[Path | None, typer.Option(help="Table of the items, new ones among them.", show_default=False)]
Store = Annotated[
    Path | None, typer.Option(help="Store to push into, and to publish; none: neither.", show_default=False)
]
Replay = Annotated[float, typer.Option(min=0, help="Rows of before that are learned again, for each row with news.")]
Rate = Annotated[float, typer.Option(min=0, help="Share of the run's learning rates.")]
Held = Annotated[float, typer.Option(min=0, max=0.9, help="Share of the users whose news are not learned, and judge.")]
Allowed = Annotated[float, typer.Option(min=0, help="Loss of NDCG@10 that is no reason to refuse.")]


def update(
    run: Annotated[Path, typer.Argument(help="Yesterday's run.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of today's run.", show_default=False)],
    events: Day = None,
    schema: Declared = None,
    items: Items = None,
    store: Store = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the news.")] = 1,
    replay: Replay = 1.0,
    rate: Rate = 0.3,
    held: Held = 0.1,
    allowed: Allowed = 0.005,
    ray: OnRay = False,
    workers: Processes = 1,
    address: Address = None,
    restart: Restart = False,
) -> None:
    """Go on from yesterday's model with what happened since.

    The events are appended to the run's corpus; new ids and items get codes at
    the end, and new items begin where items like them are. A short training
    learns the news beside rows of before. Then both models are judged by the
    news of users who were left out: a model that is surely worse, or by more
    than --allowed, is refused with exit code 1, and nothing of it is served.
    Else its vectors are brought into the directions of yesterday's, pushed and
    published.

    The same command goes on where it was cut off.

    \b
    Examples:
      userfm update run --events day.parquet --schema schema.yaml --out run-2 --store store
      userfm update run-2 --events next.parquet --schema schema.yaml --out run-3 --store store
    """
    from tokenization.corpus.corpus import Corpus
    from training.run import Run
    from userfm.cli.console import progress_console, results, stages

    console, before = progress_console(), Run.open(run)
    if (events is None) != (schema is None):
        raise typer.BadParameter("--events and --schema go together", param_hint="--events")
    with stages(console) as progress:
        if events is not None and schema is not None:
            _append(schema, events, before.corpus, items, progress)
        corpus = Corpus.open(before.corpus)
    thrown_away(out, restart)
    today = _trained(before, corpus, out, (epochs, rate, replay, held), on_ray(ray, workers, address))
    found = _judged(today, corpus, allowed)
    results().print(found.sentence())
    if not found.passed:
        results().print(f"{out} is not published; {run} goes on serving. --allowed says how much worse a model may be")
        raise typer.Exit(1)
    with stages(console) as progress:
        known_as = _served(today, before, corpus, store, progress)
    results().print(known_as)


def _append(schema: Path, events: Path, corpus: Path, items: Path | None, progress: Report) -> None:
    from tokenization.job.appending import append

    append(schema, events, corpus, progress, items_path=items)


def _trained(
    before: Run, corpus: Corpus, out: Path, plan: tuple[int, float, float, float], workers: Workers | None
) -> Run:
    """Today's run, trained to its end, with its heads."""
    from training.run import start
    from training.training_set import Until
    from training.update import of_model, recipe_after

    epochs, rate, replay, held = plan
    going_on = of_model(before.model, rate, replay, held)
    recipe = recipe_after(before.recipe, corpus, epochs)
    run = start(corpus, out, recipe, Until.END, origin=going_on)
    trained_to_end(run, corpus, workers)
    return run


def _judged(run: Run, corpus: Corpus, allowed: float) -> Verdict:
    from training.gate import verdict
    from training.update import Update

    assert isinstance(run.origin, Update)
    return verdict(run, run.origin, corpus, allowed)


def _served(run: Run, before: Run, corpus: Corpus, store: Path | None, progress: Report) -> str:
    """Align, and where there is a store push and publish; what became of it, in words."""
    from serving.store import EmbeddingStore
    from training.align import align
    from training.push import push

    _, space = align(run, before.model, progress=progress)
    if store is None:
        return f"{run.model} is {space.origin}; `userfm push {run.folder} --store STORE` writes it"
    opened = EmbeddingStore(store)
    pushed = push(run, corpus, opened, progress)
    made = opened.publish(pushed)
    return f"{store} serves {pushed.id} now, epoch {made.epoch}"
