"""`userfm schema`: draft, check and compare declarations, and tell editors what they may hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from tokenization.schema.event_schema import EventSchema
    from tokenization.schema.evolution import Change

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

WRITTEN = "Write it here instead of to the terminal."


@app.callback()
def schema() -> None:
    """Draft, check and compare the declarations of event logs.

    \b
    Examples:
      userfm schema infer events.parquet --out schema.yaml    draft one from a log
      userfm schema check schema.yaml                         is it sound?
      userfm schema diff corpus schema.yaml                   may this follow that?
      userfm schema apply corpus schema.yaml                  bring an old corpus under it
      userfm schema json --out schema.json                    completion in editors

    The header of examples/complete_journey/schema.yaml explains every key.
    """


@app.command()
def infer(
    events: Annotated[
        Path,
        typer.Argument(
            help="The log, one row an event: Parquet, Arrow, CSV, JSON lines or Lance; a file or a folder of them.",
            show_default=False,
        ),
    ],
    out: Annotated[Path | None, typer.Option(help=WRITTEN, show_default=False)] = None,
    user: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of users.", show_default=False)] = None,
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of times, or of positions.", show_default=False)
    ] = None,
    item: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of what is recommended.", show_default=False)
    ] = None,
    rows: Annotated[int, typer.Option(min=2, help="Rows to look at; a sample is enough.")] = 1_000_000,
) -> None:
    """Draft a declaration from a log: every column, with the reason for its place.

    Names of columns are hints, values decide: what grows with time in every
    user's events, what has few values, what is a list. What can't be told is
    said in a comment, so read the draft before you use it. Where no column can
    be the user, the time or the item, say which one is.

    \b
    Examples:
      userfm schema infer events.parquet --out schema.yaml
      userfm schema infer clicks.csv --user visitor --item page

    Then: userfm tokenize schema.yaml events.parquet --out corpus
    """
    from tokenization.drafting.inference import draft
    from tokenization.drafting.preview import preview
    from tokenization.drafting.yaml_draft import written
    from tokenization.errors import SchemaError

    if out is not None and out.exists():
        raise SchemaError(f"{out} is there already; name another file, or remove it")
    found = preview(events, rows)
    _write(written(draft(found.table, user, time, item), str(events.absolute()), found.unread), out)


@app.command()
def check(file: Annotated[Path, typer.Argument(help="A declaration, a YAML file.", show_default=False)]) -> None:
    """Say that a declaration is sound, or what is wrong: file, line, key, nearest right name.

    \b
    Example:
      userfm schema check schema.yaml
    """
    from tokenization.schema.event_schema import EventSchema
    from userfm.cli.console import results

    results().print(f"{file} is sound: {counted(EventSchema.from_yaml(file))}")


@app.command()
def diff(
    old: Annotated[
        Path, typer.Argument(help="The earlier: a YAML file, or the folder of a corpus or a run.", show_default=False)
    ],
    new: Annotated[Path, typer.Argument(help="The later, the same way.", show_default=False)],
) -> None:
    """Tell what changed between two declarations, and whether the later may follow the earlier.

    A facet may be added, renamed (`was: OLD_NAME`) or retired (its name under
    `retired`), and a value may be spelt otherwise (`aliases`), if `revision` is
    raised: old corpora are then read under the new declaration, and old models
    read new corpora. What codes mean may not change: kinds, bins, the user, the
    time, the group, the zone. Exit code 0: it may follow. 2: it may not. The
    verdict says too what an added facet can't tell before the whole log is
    tokenized again: numbers have one bin, vectors no codes.

    \b
    Examples:
      userfm schema diff old.yaml new.yaml
      userfm schema diff corpus schema.yaml
    """
    from tokenization.corpus.declared import declared
    from tokenization.schema.evolution import changes, refuse_unless_compatible
    from userfm.cli.console import results

    earlier, later = declared(old), declared(new)
    found = changes(earlier, later)
    if not found:
        results().print("nothing changed")
        return
    show(found, results())
    refuse_unless_compatible(earlier, later)
    results().print(f"{new} may follow {old}")


@app.command()
def apply(
    corpus: Annotated[Path, typer.Argument(help="Folder that `userfm tokenize` wrote.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="A later revision of its declaration.", show_default=False)],
) -> None:
    """Bring a corpus under a later revision of its declaration, without the log.

    Renamed facets get their new names, retired ones go, added ones are absent
    until events that have them are appended. Bins of numbers, centroids of
    vectors and attributes of users are fitted with the whole log only: what is
    added of these tells little until the log is tokenized again, and the
    command says so. The corpus is written once, as one part.

    
    Example:
      userfm schema apply corpus schema.yaml
    """
    from tokenization.corpus.corpus import Corpus, compact
    from tokenization.schema.event_schema import EventSchema
    from tokenization.schema.evolution import changes
    from userfm.cli.console import results

    schema = EventSchema.from_yaml(file)
    before = Corpus.open(corpus).tokenizer.schema
    compact(corpus, schema)
    results().print(f"{corpus} was of revision {before.revision} and is of revision {schema.revision}")
    for change in changes(before, schema):
        if change.note:
            results().print(f"{change.key}: {change.note}")


@app.command("json")
def json_(out: Annotated[Path | None, typer.Option(help=WRITTEN, show_default=False)] = None) -> None:
    """Write the JSON Schema by which editors complete, explain and check declarations.

    In VS Code (extension YAML), Neovim and others, this first line of a
    declaration names it:

    \b
      # yaml-language-server: $schema=schema.json

    \b
    Example:
      userfm schema json --out schema.json
    """
    from tokenization.schema.json_schema import text

    _write(text(), out)


def counted(schema: EventSchema) -> str:
    """What a declaration holds, in one line."""
    parts = [
        (len(schema.entities), "entity type", "entity types"),
        (len(schema.context), "context facet", "context facets"),
        (len(schema.outcome), "outcome facet", "outcome facets"),
        (len(schema.weights), "target", "targets"),
        (len(schema.columns), "column", "columns"),
    ]
    told = ", ".join(f"{number} {one if number == 1 else many}" for number, one, many in parts)
    return f"{schema.name}, revision {schema.revision}, {told}"


def show(found: Iterable[Change], console: Console) -> None:
    """Changes as a table."""
    from rich.table import Table

    table = Table()
    for name in ("change", "key", "before", "after", "verdict"):
        table.add_column(name, overflow="fold")
    for change in found:
        allowed = "allowed, raises revision" if change.raises else "allowed"
        verdict = change.refused or "; ".join(filter(None, (allowed, change.note)))
        table.add_row(change.step, change.key, change.before, change.after, verdict)
    console.print(table)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        print(text, end="")
        return
    from userfm.cli.console import results

    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    results().print(f"{out} is written")
