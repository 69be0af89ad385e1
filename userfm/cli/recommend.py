"""`userfm recommend`: a run and users → one long table of recommendations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console


class Surface(StrEnum):
    """Where the recommendations are shown."""

    HOME = "home"


class Retrieval(StrEnum):
    """How items are found."""

    SCORES = "scores"
    GENERATIVE = "generative"


Users = Annotated[
    Path | None,
    typer.Option(
        help="Whom to recommend to: a table whose first column has the ids, or a text file with one id a line. "
        "Everybody where it is left out.",
        show_default=False,
    ),
]
Events = Annotated[
    Path | None,
    typer.Option(
        help="A log in place of the corpus, with the columns of the schema: for users whom training never saw.",
        show_default=False,
    ),
]
Attributes = Annotated[
    Path | None,
    typer.Option(
        help="Beside --events: what is known of users, with the columns of the schema's users table. Whoever stands "
        "there is recommended to, events or none.",
        show_default=False,
    ),
]


def recommend(
    run: Annotated[Path, typer.Argument(help="Folder that `userfm train` wrote.", show_default=False)],
    corpus: Annotated[Path | None, typer.Argument(help="Corpus with the users' histories.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Table to write: .parquet, .csv or .arrow.", show_default=False)
    ] = None,
    users: Users = None,
    events: Events = None,
    attributes: Attributes = None,
    surface: Annotated[Surface, typer.Option(help="home: products for a user now.")] = Surface.HOME,
    retrieval: Annotated[
        Retrieval,
        typer.Option(
            help="scores: every item is scored. generative: semantic IDs are decoded (a run with `--set "
            "decoder.layers=1 --set codes=0.3`)."
        ),
    ] = Retrieval.SCORES,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Items for each user.")] = 20,
) -> None:
    """Write recommendations as one long table: user_id, item_id, score, rank.

    Ids come out as they went in. The same model serves users it was not trained
    on: give their events.

    \b
    Examples:
      userfm recommend run corpus --k 20 --out recommendations.parquet
      userfm recommend run corpus --users vip.txt --out vip.csv
      userfm recommend run --events today.parquet --out today.parquet
      userfm recommend run --events today.parquet --attributes members.csv
      userfm recommend run corpus --retrieval generative
    """
    from training.recommend import recommend as rank
    from training.recommend import recommend_generated
    from training.run import Run
    from userfm.cli.console import progress_console, results

    if out is not None and out.suffix not in _WRITERS:
        raise typer.BadParameter(f"{out} must end in {', '.join(_WRITERS)}", param_hint="--out")
    opened = Run.open(run)
    tokens = _tokens(corpus, events, attributes, opened.model / "tokenizer")
    if users is not None:
        tokens, without = of_users(tokens, read_ids(users))
        if without:
            progress_console().print(f"{without:,} of the users in {users} have no events here; they are left out")
    table = (rank if retrieval is Retrieval.SCORES else recommend_generated)(opened, tokens, k)
    if out is None:
        _show(table, results())
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[out.suffix](table, out)
    results().print(f"{out}: {table.num_rows:,} rows, {k} items for each of {tokens.num_rows:,} users")


def _tokens(corpus: Path | None, events: Path | None, attributes: Path | None, tokenizer: Path) -> pa.Table:
    from tokenization.corpus.corpus import Corpus
    from tokenization.corpus.newcomers import with_newcomers
    from tokenization.tokenizer.tokenizer import Tokenizer
    from training.reading import tokens_for

    if (corpus is None) == (events is None):
        raise typer.BadParameter("give the corpus, or --events", param_hint="CORPUS")
    told = Tokenizer.load(tokenizer)
    if corpus is None:
        return told.transform(events) if attributes is None else with_newcomers(told, events, attributes)
    if attributes is not None:
        raise typer.BadParameter("a corpus has its users' own; give them beside --events", param_hint="--attributes")
    return tokens_for(told, Corpus.open(corpus))


def read_ids(path: Path) -> pa.Array:
    """Ids from a table's first column, or from a text file with one on each line.

    Raises SourceError where there are none to read.
    """
    import pyarrow as pa

    from tokenization.errors import SourceError, first_line

    try:
        ids = _first_column(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{path} can't be read as a list of users: {first_line(error)}") from error
    if len(ids) == 0:
        raise SourceError(f"{path} names no user; write one id a line, or leave --users out for everybody")
    return ids


def _first_column(path: Path) -> pa.Array:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.feather
    import pyarrow.json
    import pyarrow.parquet

    readers: dict[str, Callable[[Path], pa.Table]] = {
        ".parquet": pyarrow.parquet.read_table,
        ".csv": pyarrow.csv.read_csv,
        ".jsonl": pyarrow.json.read_json,
        ".arrow": pyarrow.feather.read_table,
        ".feather": pyarrow.feather.read_table,
    }
    if path.suffix in readers:
        return readers[path.suffix](path).column(0).combine_chunks()
    return pa.array(
        [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()], pa.string()
    )


def of_users(tokens: pa.Table, ids: pa.Array) -> tuple[pa.Table, int]:
    """The rows of those users in that order, and how many of them have no row. Raises SourceError if none has."""
    import numpy as np

    from tokenization.codes.vocabulary import FIRST, Vocabulary
    from tokenization.errors import SourceError

    everybody = tokens.column("user_id").combine_chunks()
    rows = Vocabulary(everybody, np.zeros(0, np.int64), np.zeros(0)).encode(ids.unique()) - FIRST
    known = rows[rows >= 0]
    if len(known) == 0:
        raise SourceError("none of the users asked for has events here; give --events with theirs")
    return tokens.take(known), len(rows) - len(known)


def _write_parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, path)


def _write_csv(table: pa.Table, path: Path) -> None:
    import pyarrow.csv

    pyarrow.csv.write_csv(table, path)


def _write_arrow(table: pa.Table, path: Path) -> None:
    import pyarrow.feather

    pyarrow.feather.write_feather(table, path)


_WRITERS: Mapping[str, Callable[[pa.Table, Path], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".arrow": _write_arrow,
}


def _show(table: pa.Table, console: Console) -> None:
    """The first rows, in the terminal."""
    from rich.table import Table

    drawn = Table()
    for name in table.column_names:
        drawn.add_column(name, overflow="fold")
    for row in table.slice(0, 20).to_pylist():
        drawn.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(drawn)
    if table.num_rows > 20:
        console.print(f"and {table.num_rows - 20:,} rows more; --out FILE writes them all")
