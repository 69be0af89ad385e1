"""`userfm push`: a run's vectors and model → an embedding store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def push(
    run: Annotated[Path, typer.Argument(help="Folder that `userfm train` wrote.", show_default=False)],
    store: Annotated[Path, typer.Option(help="Folder of the store; made if there is none.", show_default=False)],
    corpus: Annotated[
        Path | None, typer.Option(help="Corpus with the users; the run's own where left out.", show_default=False)
    ] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            help="Moment, UTC, of which item vectors are where they age (a run with `--set item_gate=age`); the end of "
            "what was learned where left out.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Encode every user and every item, and write the vectors into a store.

    They go into a space of their own, beside the model itself: a model that is
    new to the store takes the next version (shop-v2 after shop-v1). Nothing is
    served before `userfm publish`. The same run pushed again keeps its version,
    goes on where a push was cut off, and encodes only users with new events.

    \b
    Examples:
      userfm push run --store store
      userfm push retrained --store store && userfm publish store
      userfm push run --store store --as-of 2017-11-16
    """
    from serving.store import EmbeddingStore
    from tokenization.corpus.corpus import Corpus
    from training.errors import RunError
    from training.push import push as write
    from training.run import Run
    from userfm.cli.console import progress_console, results, stages

    opened, moment = Run.open(run), None if as_of is None else as_of.replace(tzinfo=UTC).timestamp()
    if not opened.finished:
        raise RunError(f"{run} has no model yet; `userfm train` with the same --out finishes it")
    with stages(progress_console()) as progress:
        space = write(opened, Corpus.open(corpus or opened.corpus), EmbeddingStore(store), progress, moment)
    results().print(f"{store} holds {space.id}; `userfm publish {store}` makes it current")
