"""`userfm append`: what happened since, behind what a corpus has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from userfm.cli.tokenize import Events, Items, Schema, Strict, Users, show


def append(
    schema: Schema,
    events: Events,
    to: Annotated[Path, typer.Option(help="Folder of the corpus.", show_default=False)],
    items: Items = None,
    users: Users = None,
    strict: Strict = False,
) -> None:
    """Add the events of a day, or an hour, to a corpus; nothing of it is written again.

    Codes that are there stay; new ids, and new items of --items, get codes at
    the end. The same file is appended once, and so is a row that is sent again
    in another, if the schema names an `event_id`.

    Cut the log wherever you like: the newest groups of a user are open, and
    what comes for a basket or a session that was cut in two joins it, until its
    longest pause (`group_within`) is over. An event no later than a group that
    is closed is late: it is quarantined, unless the schema says `late: now`.

    \b
    Example:
      userfm append schema.yaml day.parquet --to corpus
    """
    from tokenization.job.appending import append as run
    from userfm.cli.console import progress_console, results, stages

    with stages(progress_console()) as progress:
        corpus = run(schema, events, to, progress, items_path=items, users_path=users, strict=strict)
    show(corpus, results())
