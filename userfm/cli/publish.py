"""`userfm publish`: what was pushed becomes what is served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from foundation.space import Space
    from serving.store import EmbeddingStore


def publish(
    store: Annotated[Path, typer.Argument(help="Folder that `userfm push` wrote.", show_default=False)],
    space: Annotated[
        str | None, typer.Option(help="Which space (name-vN); the one pushed last where left out.", show_default=False)
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Serve again what was served before.")] = False,
) -> None:
    """Make a space current: check every vector, write the snapshot that servers map, then move one pointer.

    All of it or nothing: if a check fails, what was served before still is.

    \b
    Examples:
      userfm publish store
      userfm publish store --space shop-v2
      userfm publish store --rollback

    Then: userfm serve store
    """
    from serving.store import EmbeddingStore
    from userfm.cli.console import results

    opened = EmbeddingStore(store)
    made = opened.rollback() if rollback else opened.publish(pushed_space(opened, space))
    results().print(
        f"{store} serves {made.space.id}, epoch {made.epoch}: {made.user.rows:,} users, {made.item.rows:,} items"
    )


def pushed_space(store: EmbeddingStore, wanted: str | None) -> Space:
    """The space of that id among those pushed to a store, or the one pushed last. Raises StoreError without it."""
    from serving.errors import StoreError
    from tokenization.errors import nearest

    spaces = {space.id: space for space in store.spaces()}
    if not spaces:
        raise StoreError(f"nothing has been pushed to {store.root}; run `userfm push RUN --store {store.root}` first")
    if wanted is not None and wanted not in spaces:
        raise StoreError(f"{store.root} has no space {wanted!r}; {nearest(wanted, sorted(spaces))}")
    return spaces[wanted or list(spaces)[-1]]
