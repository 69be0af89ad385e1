"""`userfm`: the whole pipeline from the command line, a file per command.

Each command reads what the one before wrote, and imports what it needs only when it runs. What a user can mend is one
sentence on stderr and exit code 2; `--debug` adds the traceback.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from training.errors import Stopped
from userfm import __version__
from userfm.cli import (
    align,
    append,
    demo,
    distill,
    evaluate,
    finetune,
    publish,
    push,
    query,
    recommend,
    runs,
    schema,
    serve,
    tokenize,
    train,
    update,
)
from userfm.cli.errors import sentence

# Command → the extra of this package that brings what it needs.
EXTRAS = {
    "schema": "model",
    "tokenize": "model,text",
    "append": "model,text",
    "train": "train,text",
    "update": "train,text",
    "finetune": "train,text",
    "distill": "train,text",
    "runs": "train",
    "evaluate": "train",
    "recommend": "train",
    "align": "train",
    "push": "train",
    "publish": "serve",
    "serve": "serve,text",
    "query": "model",
    "demo": "demo",
}

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"userfm {__version__}")
        raise typer.Exit


@app.callback()
def userfm(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; goes anywhere.")] = False,
) -> None:
    """One foundation model of user behaviour: event logs in, user and item embeddings out.

    The whole way of a log, each command reading what the one before wrote:

    \b
      userfm schema infer events.parquet --out schema.yaml
      userfm tokenize schema.yaml events.parquet --items items.parquet --out corpus
      userfm train corpus --out run
      userfm evaluate run corpus --json figures.json
      userfm recommend run corpus --k 20 --out recommendations.parquet
      userfm push run --store store && userfm publish store
      userfm serve store
      userfm query search "whole milk"

    `userfm demo --out demo` does all of it on a year of real groceries, in ten
    minutes.
    """


app.add_typer(schema.app, name="schema")
app.command("tokenize")(tokenize.tokenize)
app.command("append")(append.append)
app.command("train")(train.train)
app.command("update")(update.update)
app.command("finetune")(finetune.finetune)
app.command("distill")(distill.distill)
app.add_typer(runs.app, name="runs")
app.command("evaluate")(evaluate.evaluate)
app.command("recommend")(recommend.recommend)
app.command("align")(align.align)
app.command("push")(push.push)
app.command("publish")(publish.publish)
app.command("serve")(serve.serve)
app.add_typer(query.app, name="query")
app.command("demo")(demo.demo)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, or stopped as it was asked to, 2 what the user can mend, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    command = next((argument for argument in given if argument in EXTRAS), "")
    # Threads of OpenMP spin while they wait. Where anything else runs on the cores, and Ray's own processes do, that
    # takes from the work itself: a forward pass of the demo took 5.8 s spinning and 3.5 s sleeping.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(given, prog_name="userfm")
    except KeyboardInterrupt:
        print("userfm: stopped; the same command continues where it can", file=sys.stderr)
        sys.exit(130)
    except Stopped as wish:
        print(f"userfm: {wish}", file=sys.stderr)
    except Exception as error:
        said = None if debug else sentence(error, f"`userfm {command}`", EXTRAS.get(command, "model"))
        if said is None:
            raise
        print(f"userfm: {said}", file=sys.stderr)
        sys.exit(2)
