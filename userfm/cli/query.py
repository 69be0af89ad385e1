"""`userfm query`: ask a running server."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from userfm.client import Rankings, Vectors

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

Address = Annotated[str, typer.Option(help="host:port of the server.")]
Count = Annotated[int, typer.Option("--k", "-k", min=1, help="How many items.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
HERE = "127.0.0.1:50051"


@app.callback()
def query() -> None:
    """Ask a server that `userfm serve` runs.

    \b
    Examples:
      userfm query space
      userfm query user 17 42
      userfm query home events.jsonl -k 5
      userfm query search "organic milk"
      userfm query goes-with 1082185
      userfm query near --item 1082185
    """


@app.command()
def space(address: Address = HERE, as_json: AsJson = False) -> None:
    """What is served: the space, and how much of it. Example: userfm query space"""
    from userfm.client import EmbeddingClient

    with EmbeddingClient(address) as client:
        served = client.space()
    found = {
        "space": served.space.id,
        "fingerprint": served.space.fingerprint,
        "width": served.space.width,
        "as_of": _moment(served.space.as_of),
        "epoch": served.epoch,
        "users": served.users,
        "items": served.items,
        "encodes": served.encodes,
    }
    _print([found], as_json)


@app.command()
def user(
    ids: Annotated[list[str], typer.Argument(help="User ids.")], address: Address = HERE, as_json: AsJson = False
) -> None:
    """Stored vectors of users. Example: userfm query user 17 42 --json"""
    from userfm.client import EmbeddingClient

    with EmbeddingClient(address) as client:
        _print_vectors(client.lookup_users(parsed(ids)), as_json)


@app.command()
def item(
    ids: Annotated[list[str], typer.Argument(help="Item ids.")], address: Address = HERE, as_json: AsJson = False
) -> None:
    """Stored vectors of items. Example: userfm query item 1082185"""
    from userfm.client import EmbeddingClient

    with EmbeddingClient(address) as client:
        _print_vectors(client.lookup_items(parsed(ids)), as_json)


@app.command()
def near(
    item: Annotated[str | None, typer.Option(help="Items near this item.", show_default=False)] = None,
    user: Annotated[str | None, typer.Option(help="Items near this user.", show_default=False)] = None,
    k: Count = 10,
    address: Address = HERE,
    as_json: AsJson = False,
) -> None:
    """Items with the largest dot product. Example: userfm query near --item 1082185 -k 5"""
    from userfm.client import EmbeddingClient

    if (item is None) == (user is None):
        raise typer.BadParameter("give one of --item and --user")
    with EmbeddingClient(address) as client:
        if item is not None:
            _print_rankings(client.search(k, items=parsed([item])), [item], as_json)
        else:
            _print_rankings(client.search(k, users=parsed([user or ""])), [user or ""], as_json)


@app.command()
def home(
    events: Annotated[
        Path | None,
        typer.Argument(help="Whole histories: JSON lines, Parquet or CSV with the log's columns.", show_default=False),
    ] = None,
    k: Count = 10,
    at: Annotated[
        str | None, typer.Option(help="Moment of the request, such as 2017-12-01T18:00:00Z.", show_default=False)
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="What is known of the request; may be repeated.")
    ] = None,
    users: Annotated[
        Path | None,
        typer.Option(help="What is known of users, with the columns of the users table.", show_default=False),
    ] = None,
    address: Address = HERE,
    as_json: AsJson = False,
) -> None:
    """What the users in some events, or of a table of users, want now.

    \b
    Examples:
      userfm query home events.jsonl --context store=367
      userfm query home --users newcomers.csv
    """
    from userfm.client import EmbeddingClient

    told = dict(pair.partition("=")[::2] for pair in context or [])
    values = {name: parsed([value])[0] for name, value in told.items()}
    if events is None and users is None:
        raise typer.BadParameter("give the events of users, or --users", param_hint="EVENTS")
    histories, known = (() if path is None else read_rows(path) for path in (events, users))
    moment = None if at is None else seconds(at)
    with EmbeddingClient(address) as client:
        found = client.score_home(histories, k, at=moment, context=values, users=known)
    _print_rankings(found, found.users.tolist(), as_json)


@app.command()
def search(
    queries: Annotated[list[str], typer.Argument(help="What is searched for.")],
    k: Count = 10,
    address: Address = HERE,
    as_json: AsJson = False,
) -> None:
    """Items that a text means. Example: userfm query search "organic milk" -k 5"""
    from userfm.client import EmbeddingClient

    with EmbeddingClient(address) as client:
        _print_rankings(client.score_search(queries, k), queries, as_json)


@app.command("goes-with")
def goes_with(
    ids: Annotated[list[str], typer.Argument(help="Item ids.")],
    k: Count = 10,
    address: Address = HERE,
    as_json: AsJson = False,
) -> None:
    """What goes with an item. Example: userfm query goes-with 1082185"""
    from userfm.client import EmbeddingClient

    with EmbeddingClient(address) as client:
        _print_rankings(client.score_item_to_item(parsed(ids), k), ids, as_json)


def parsed(ids: Sequence[str]) -> list[int] | list[str]:
    """Ids from the command line: integers if all of them are written as such, else text."""
    if all(text.removeprefix("-").isdigit() and str(int(text)) == text for text in ids):
        return [int(text) for text in ids]
    return list(ids)


def seconds(text: str) -> float:
    """ISO 8601 → seconds since 1970 UTC; without a zone it is UTC."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time; write one such as 2017-12-01T18:00:00Z", param_hint="--at"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def read_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    """Events of a file. JSON lines need no package; Parquet and CSV need pyarrow."""
    if path.suffix in (".jsonl", ".ndjson"):
        lines = path.read_text(encoding="utf-8").splitlines()
        try:
            return [json.loads(line) for line in lines if line.strip()]
        except ValueError as error:
            raise typer.BadParameter(f"{path} is not JSON lines: {error}", param_hint="EVENTS") from error
    import pyarrow.csv
    import pyarrow.parquet

    reader = pyarrow.csv.read_csv if path.suffix == ".csv" else pyarrow.parquet.read_table
    try:
        rows: list[dict[str, Any]] = reader(path).to_pylist()
    except (ValueError, pyarrow.ArrowException) as error:
        said = str(error).splitlines()[0]
        raise typer.BadParameter(f"{path} can't be read: {said}", param_hint="EVENTS") from error
    return rows


def _moment(seconds_: float) -> str:
    return dt.datetime.fromtimestamp(seconds_, dt.UTC).isoformat()


def _print_vectors(found: Vectors, as_json: bool) -> None:
    rows = []
    for place, id_ in enumerate(found.ids.tolist()):
        known = bool(found.found[place])
        vector = found.vectors[place].tolist() if known else None
        shown = vector if as_json or vector is None else " ".join(f"{x:.3f}" for x in vector[:6]) + " …"
        rows.append({"id": id_, "as_of": _moment(float(found.as_of[place])) if known else None, "vector": shown})
    _print(rows, as_json)


def _print_rankings(found: Rankings, asked: Sequence[object], as_json: bool) -> None:
    rows = [
        {"for": query, "rank": rank, "item": item, "score": round(score, 4)}
        for query, ranking in zip(asked, found.rankings, strict=True)
        for rank, (item, score) in enumerate(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True), start=1)
    ]
    _print(rows, as_json)


def _print(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    from userfm.cli.console import results

    table = Table()
    for name in rows[0] if rows else ():
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("–" if value is None else str(value) for value in row.values()))
    results().print(table)
