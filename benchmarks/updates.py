"""Fourteen days of groceries, one after another: a model that is updated every day, beside one that is trained again
every day and one that never is.

Complete Journey until December 2017 trains the first model. Then each day comes as it would: all three are asked for
the first basket of whoever shops that day, with everything known that happened before it; then the day is appended,
and tomorrow's models learn it. The update is `userfm update`, gate and all: a tenth of the households is not learned
and judges, and where a model is refused, yesterday's goes on and the next one learns two days; where nobody can judge,
it is taken. What is appended is known to all three as history, the model that is never trained reads it too.

Differences are paired over households and days, with intervals over households. Seconds are of processor time, of
training alone. Draws docs/figures/updates.svg.

`python -m benchmarks updates --json benchmarks/results/updates.json`
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from benchmarks.measure import Measured
from benchmarks.plots import Line, lines
from benchmarks.trials import Progress
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from tokenization.job.appending import append
from tokenization.job.pipeline import tokenize
from tokenization.tokenizer.split import Split
from training import metrics
from training.errors import EvaluationError
from training.gate import as_before, verdict
from training.holdout import Columns, hold_out
from training.metrics import Floats, Interval
from training.pretrain import pretrain_bare
from training.ranking import Slice, evaluate
from training.recipes import default
from training.run import Run, start
from training.training_set import Until
from training.update import Update, of_model, recipe_after
from userfm import complete_journey

FIRST, DAYS, DAY = datetime(2017, 12, 1, tzinfo=UTC), 14, timedelta(days=1)
EPOCHS = 2  # as docs/log.md chose for this log
RATE, REPLAY, HELD = 0.3, 1.0, 0.1  # as `userfm update` has them
WAYS = ("update", "retrain", "never")
PICTURE = Path(__file__).parent.parent / "docs" / "figures" / "updates.svg"


@dataclass(frozen=True)
class Day:
    """NDCG@10 of each way for each household of a day, [U] in the same order, with the households' ids."""

    users: list[int]
    ndcg: Mapping[str, Floats]


def run(progress: Progress) -> Measured:
    """Figures: ndcg@10 of each way over all days, differences to training again, seconds a day, days refused."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        events, items = complete_journey.prepare(home / "journey", lambda stage, done, total: None)
        days, seconds, refused = simulated(home, Log(complete_journey.schema_path(), events, items), progress)
    _draw(days)
    return Measured(figures(days, seconds, refused), ())


@dataclass(frozen=True)
class Log:
    """Files of a log."""

    schema: Path
    events: Path
    items: Path

    def part(self, out: Path, since: datetime | None, until: datetime) -> Path:
        """Its events of a span of time, as a file; the schema's times are naive."""
        table = pq.read_table(self.events)
        time_T = table["time"].cast(pa.timestamp("us"))
        here = pc.less(time_T, pa.scalar(until.replace(tzinfo=None), pa.timestamp("us")))
        if since is not None:
            here = pc.and_(here, pc.greater_equal(time_T, pa.scalar(since.replace(tzinfo=None), pa.timestamp("us"))))
        pq.write_table(table.filter(here), out)
        return out


def simulated(
    home: Path, log: Log, progress: Progress, first: datetime = FIRST, days: int = DAYS, day: timedelta = DAY
) -> tuple[list[Day], dict[str, list[float]], int]:
    """What each day found, seconds of training by way and day, and how many updates were refused. day: its length."""
    corpus = tokenize(log.schema, log.part(home / "before.parquet", None, first), log.items, home / "corpus")
    base, _ = _trained(home / "base", corpus, None)
    models = dict.fromkeys(WAYS, base)
    seconds: dict[str, list[float]] = {"update": [], "retrain": []}
    found, refused = [], 0
    for number in range(days):
        began = first + number * day
        if number:
            models["retrain"], spent = _trained(home / f"retrain-{number}", corpus, None)
            seconds["retrain"].append(spent)
            update = of_model(models["update"], RATE, REPLAY, HELD)
            fresh, spent = _trained(home / f"update-{number}", corpus, update)
            seconds["update"].append(spent)
            if _accepted(Run.open(fresh.parent), update, corpus):
                models["update"] = fresh
            else:
                refused += 1
        fresh_events = log.part(home / f"day-{number}.parquet", began, began + day)
        corpus = append(log.schema, fresh_events, corpus.folder, items_path=log.items)
        found.append(judged(models, corpus, began))
        progress("days", number + 1, days)
    return found, seconds, refused


def judged(models: Mapping[str, Path], corpus: Corpus, began: datetime) -> Day:
    """All ways asked for the first basket of each household since the day began, after which the corpus has no more."""
    items, tokenizer = len(corpus.tokenizer.items), corpus.tokenizer
    split = Split("time", began.timestamp(), None, None)
    held = hold_out(corpus.tokens(), Columns.of(tokenizer), split)
    scorers = {way: as_before(Subgraph.from_pretrained(model), corpus, items) for way, model in models.items()}
    found = evaluate(held, scorers, items)
    ndcg = {way: one.values[Slice.ALL]["ndcg@10"] for way, one in found.judged.items()}
    return Day([int(user) for user in found.user_ids.to_pylist()], ndcg)


def _trained(folder: Path, corpus: Corpus, update: Update | None) -> tuple[Path, float]:
    """A model of the corpus as it is, new or going on, and the processor seconds that its training took."""
    recipe = replace(default(corpus), epochs=EPOCHS)
    if update is not None:
        recipe = recipe_after(recipe, corpus, 1)
    run, began = start(corpus, folder, recipe, Until.END, origin=update), time.process_time()
    pretrain_bare(run)
    return run.model, time.process_time() - began


def _accepted(run: Run, update: Update, corpus: Corpus) -> bool:
    """What the gate says; a day on which none of the judging households shopped says nothing against it."""
    try:
        return verdict(run, update, corpus).passed
    except EvaluationError:
        return True


def figures(days: Sequence[Day], seconds: Mapping[str, Sequence[float]], refused: int) -> dict[str, float]:
    """Means over all households and days, differences to training again, and costs."""
    found: dict[str, float] = {"days": len(days), "requests": sum(len(day.users) for day in days), "refused": refused}
    for way in WAYS:
        found[f"{way}.ndcg@10"] = metrics.mean(np.concatenate([day.ndcg[way] for day in days]))
    for way in ("update", "never"):
        gap = difference(days, way, "retrain")
        found |= {f"{way}_minus_retrain": gap.mean, f"{way}_minus_retrain_low": gap.low}
        found[f"{way}_minus_retrain_high"] = gap.high
    gap = difference(days, "update", "never")
    found |= {"update_minus_never": gap.mean, "update_minus_never_low": gap.low, "update_minus_never_high": gap.high}
    for way, spent in seconds.items():
        found[f"{way}.seconds_a_day"] = float(np.mean(spent))
    return {**found, "retrain_over_update_seconds": sum(seconds["retrain"]) / sum(seconds["update"])}


def difference(days: Sequence[Day], one: str, other: str) -> Interval:
    """Mean of one − other over all requests, with its 95 % interval over households: one of them may shop every day."""
    user_N = np.concatenate([np.asarray(day.users) for day in days])
    gap_N = np.concatenate([day.ndcg[one] - day.ndcg[other] for day in days])
    known_U, place_N = np.unique(user_N, return_inverse=True)
    sum_U, count_U = (np.bincount(place_N, weights, len(known_U)) for weights in (gap_N, None))
    draw = np.random.default_rng(0).integers(0, len(known_U), (2_000, len(known_U)))
    means = sum_U[draw].sum(1) / count_U[draw].sum(1)
    return Interval(float(gap_N.mean()), *(float(end) for end in np.quantile(means, (0.025, 0.975))))


def _draw(days: Sequence[Day]) -> None:
    """Differences to training again, of all days so far: those of one day are few."""
    named = {}
    for way, name in (("update", "updated every day"), ("never", "never trained again")):
        so_far = [difference(days[: number + 1], way, "retrain") for number in range(len(days))]
        named[name] = Line([one.mean for one in so_far], [one.low for one in so_far], [one.high for one in so_far])
    x = range(1, len(days) + 1)
    label = "NDCG@10 less that of a model trained again every day"
    lines(PICTURE, list(x), named, "days, all until then", label, "Fourteen days of groceries")
