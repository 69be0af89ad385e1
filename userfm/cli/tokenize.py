"""`userfm tokenize`: a log and its declaration → a corpus."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tokenization.corpus.corpus import Corpus


class Format(StrEnum):
    """How tokens are kept."""

    PARQUET = "parquet"
    LANCE = "lance"


Schema = Annotated[Path, typer.Argument(help="The declaration of the log, a YAML file.", show_default=False)]
Events = Annotated[
    str,
    typer.Argument(
        help="The log, one row an event: Parquet, Arrow, CSV, JSON lines or Lance; a file or a folder of them, here or "
        "behind a URL (s3://, gs://, ..).",
        show_default=False,
    ),
]
Items = Annotated[
    str | None, typer.Option(help="Table of what is known about the items, if there is one.", show_default=False)
]
Users = Annotated[
    str | None, typer.Option(help="Table of what is known about the users, if there is one.", show_default=False)
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail where a row makes no sense, and write nothing.")]


def tokenize(
    schema: Schema,
    events: Events,
    out: Annotated[Path, typer.Option(help="Folder to write the corpus to.", show_default=False)],
    items: Items = None,
    users: Users = None,
    format: Annotated[Format, typer.Option(help="How the tokens are kept.")] = Format.PARQUET,
    strict: Strict = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Work on the cluster that RAY_ADDRESS names, or on all cores of this machine.")
    ] = False,
) -> None:
    """Turn an event log into a corpus: one row a user, every event as integers that the model reads.

    The schema says what the columns hold; `userfm schema infer` drafts one.
    Rows that make no sense, and lines that can't be read, are set aside with the
    reason (quarantine/ in the corpus) and counted. Whatever is fitted is fitted before the split that the
    schema declares. A log larger than memory is cut into parts of whole users,
    in a folder beside OUT that is removed at the end, or with --ray in the
    memory of a cluster. The corpus is the same.

    \b
    Examples:
      userfm tokenize schema.yaml events.parquet --out corpus
      userfm tokenize schema.yaml s3://logs/2024/ --items items.csv --out corpus --strict

    Then: userfm train corpus --out run
    And a day later: userfm append schema.yaml day.parquet --to corpus
    """
    from tokenization.job.layout import on_ray, on_this_machine
    from tokenization.job.pipeline import tokenize as run
    from userfm.cli.console import progress_console, results, stages

    where = on_ray if ray else on_this_machine
    with stages(progress_console()) as progress:
        corpus = run(schema, events, items, out, format.value, progress, users_path=users, strict=strict, where=where)
    show(corpus, results())


def show(corpus: Corpus, console: Console) -> None:
    """What tokenizing did, as a table."""
    from rich.table import Table

    told = corpus.summary
    table = Table(title=f"Corpus {corpus.folder}", title_justify="left", title_style="bold", show_header=False)
    table.add_column(style="dim", overflow="fold")
    table.add_column(justify="right", overflow="fold")
    table.add_row("events", f"{told['events']:,}")
    table.add_row("events a second", f"{told['events_per_second']:,.0f}")
    table.add_row("tokens", f"{told['tokens']:,}")
    table.add_row("merged into others", f"{told['merged']:,}")
    if told["tokens"]:
        table.add_row("events a token", f"{1 + told['merged'] / told['tokens']:.3f}")
    for name, total in told.get("kept", {}).items():
        table.add_row(f"kept, sum of {name}", f"{total:,.2f}")
    for reason, rows in told["quarantined"].items():
        table.add_row(f"quarantined, {reason}", f"{rows:,}")
    if not told["quarantined"]:
        table.add_row("quarantined", "0")
    for rule, rows in told.get("dropped_by", {}).items():
        table.add_row(f"dropped, {rule}", f"{rows:,}")
    if not told.get("dropped_by"):
        table.add_row("dropped", f"{told['dropped']:,}")
    table.add_row("users", f"{told['users']:,}")
    table.add_row("items", f"{told['items']:,}")
    table.add_row("facets", ", ".join(facet.name for facet in corpus.tokenizer.facets))
    console.print(table)
