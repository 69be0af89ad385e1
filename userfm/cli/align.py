"""`userfm align`: a retrained run → the same run in the directions of the model before it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Bands = Annotated[
    str,
    typer.Option(
        help="Numbers of first dimensions, by commas, that are to stay usable alone. Those that the model learned "
        "(`--set bands=32`) where left out.",
        show_default=False,
    ),
]


def align(
    run: Annotated[Path, typer.Argument(help="Folder that `userfm train` wrote.", show_default=False)],
    to: Annotated[
        Path,
        typer.Option(help="An earlier run, a model directory, or a store: what it serves now.", show_default=False),
    ],
    space: Annotated[
        str | None, typer.Option(help="Of a store: which space (name-vN), served or not.", show_default=False)
    ] = None,
    bands: Bands = "",
) -> None:
    """Rotate a retrained model's vectors into the directions of the model before it.

    Each training names its directions anew, so a model of yours that was fitted
    on the vectors of one understands nothing of the next. The map is orthogonal:
    it brings users and items that both models know together and keeps every
    product of two vectors, so all rankings stay as they are. It becomes part of
    the run's model: `userfm push` and the service apply it to users and items
    alike, under a space of its own that says what it is aligned to. `Subgraph`
    stays unrotated and offers the map as `subgraph.aligned`.

    What is printed is of users and items that the map was not fitted on: 1 is
    the same direction, 0 none in common. Run it after training and before push.

    \b
    Examples:
      userfm align retrained --to run
      userfm align retrained --to store && userfm push retrained --store store
      userfm align retrained --to store --space shop-v3

    In Python, a frozen model of yours asks before it takes vectors:
    `fitted_on.expect(offered)` of two spaces refuses any other space.
    """
    from training.align import align as rotate
    from training.align import told
    from training.errors import RunError
    from training.run import Run
    from userfm.cli.console import progress_console, results, stages

    kept = _numbers(bands)
    opened = Run.open(run)
    if not opened.finished:
        raise RunError(f"{run} has no model yet; `userfm train` with the same --out finishes it")
    with stages(progress_console()) as progress:
        fit, known_as = rotate(opened, _model(to, space), kept, progress)
    for line in told(fit):
        results().print(line)
    results().print(f"{opened.model} is space {known_as.origin} now; `userfm push {run} --store STORE` writes it")


def _numbers(bands: str) -> tuple[int, ...]:
    try:
        return tuple(int(band) for band in bands.split(",")) if bands else ()
    except ValueError as error:
        raise typer.BadParameter(
            f"{bands!r} must be whole numbers with commas, 16,32 for example", param_hint="--bands"
        ) from error


def _model(to: Path, space: str | None) -> Path:
    """The model directory that is meant. Raises RunError, StoreError."""
    from serving.errors import StoreError
    from serving.store import EmbeddingStore
    from training.run import Run
    from userfm.cli.publish import pushed_space

    if space is not None:
        store = EmbeddingStore(to)
        return store.pushed_model(pushed_space(store, space))
    if (to / "run.json").exists():
        return Run.open(to).model
    if (to / "space.json").exists():
        return to
    store = EmbeddingStore(to)
    served = store.model(store.current())
    if served is None:
        raise StoreError(f"{to} serves vectors and no model: name a space that has one, --space NAME-vN")
    return served
