"""`userfm publish`: what was pushed becomes what is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from foundation.space import Space


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
    made = opened.rollback() if rollback else opened.publish(pushed_space(store, space))
    results().print(
        f"{store} serves {made.space.id}, epoch {made.epoch}: {made.user.rows:,} users, {made.item.rows:,} items"
    )


def pushed_space(store: Path, wanted: str | None) -> Space:
    """The space of that id among those pushed to a store, or the one pushed last. Raises StoreError without it."""
    from foundation.space import Space
    from serving.errors import StoreError
    from tokenization.errors import nearest

    written = {path.parent.name: path for path in store.glob("spaces/*/space.json")}
    if not written:
        raise StoreError(f"nothing has been pushed to {store}; run `userfm push RUN --store {store}` first")
    if wanted is not None and wanted not in written:
        raise StoreError(f"{store} has no space {wanted!r}; {nearest(wanted, sorted(written))}")
    newest = wanted or max(written, key=lambda name: written[name].stat().st_mtime)
    return Space.from_json(json.dumps(json.loads(written[newest].read_text(encoding="utf-8"))["space"]))
