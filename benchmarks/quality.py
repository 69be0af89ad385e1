"""Quality beside the best open system: the same log, the same requests, one evaluator, lists of every user kept.

`python -m benchmarks quality --data ml-1m --seeds 3 --json benchmarks/results/quality-ml-1m.json`
`python -m benchmarks quality --data ml-1m --minutes 15 --json benchmarks/results/quality-ml-1m-15min.json`

Every user is asked for the item after all they did but the last (MovieLens 1M, Beauty; what they met before is
filtered out of the lists), or every household for its next basket after the cut (Complete Journey; nothing is
filtered). Settings, the number of passes among them, belong to the validation part: those of this model stand here (the
recipes' own until better ones are found there), those of the peer in benchmarks/results/peer-<data>.json (`python -m
benchmarks peer --data ml-1m`). Then both learn everything before the test part, and are judged there once, with as many
seeds.

With `--minutes`, both learn as long by the clock on the wall, one training after another, each on all cores; the peer
with the settings that did best on validation in as much processor time.

Beside the figures lies a table of each user's rank with each system and seed, so that anyone can compute them again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.lists import Lists, held_out, of_scorer, ranks, scorer_of
from benchmarks.logs import Log, corpus_of
from benchmarks.models import trained
from benchmarks.peers import rectools
from benchmarks.peers.environments import Peer, environment
from benchmarks.trials import Trial
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training import metrics
from training.evaluate import standard_baselines
from training.holdout import Columns, Holdout, Part
from training.metrics import Floats
from training.ranking import Evaluation, Slice, evaluate
from training.recipes import Recipe, default, ordered, with_overrides
from training.scorers import model_scorers
from training.training_set import Until

Progress = Callable[[str, int, int], None]

HOME = Path("out") / "quality"
RESULTS = Path(__file__).parent / "results"
METRICS = {"hr@10": "recall@10", "ndcg@10": "ndcg@10", "hr@50": "recall@50"}
"""Of one item, recall is the hit rate; of a basket it stays recall."""

OURS: Mapping[Log, Mapping[str, str]] = {
    Log.ML_1M: {"width": "128", "heads": "4", "dropout": "0.1", "epochs": "8"},
    Log.BEAUTY: {"width": "128", "heads": "4", "dropout": "0.2", "epochs": "6"},
    Log.JOURNEY: {"epochs": "2"},
}
"""Settings on top of the recipe, chosen on validation as docs/log.md tells."""
SCORER = {Log.ML_1M: "embedding", Log.BEAUTY: "embedding", Log.JOURNEY: "model"}
ENDLESS = 1_000_000  # passes, of a training that its minutes end
PEER = {Log.ML_1M: "rectools", Log.BEAUTY: "rectools", Log.JOURNEY: "personal_decayed"}


@dataclass(frozen=True)
class Judged:
    """Systems on one part of a log. lists: by system, one a seed."""

    holdout: Holdout
    lists: Mapping[str, Sequence[Lists]]
    evaluation: Evaluation
    slice_: Slice

    def of(self, system: str, metric: str) -> Floats:
        """[U]: the mean over the seeds."""
        values = [
            self.evaluation.judged[_name(system, seed)].values[self.slice_][METRICS[metric]]
            for seed in range(len(self.lists[system]))
        ]
        return np.asarray(np.mean(values, axis=0))

    def seeds(self, system: str, metric: str) -> list[float]:
        """The mean over users, of each seed."""
        return [
            metrics.mean(self.evaluation.judged[_name(system, seed)].values[self.slice_][METRICS[metric]])
            for seed in range(len(self.lists[system]))
        ]


def recipe_of(log: Log, corpus: Corpus, seed: int) -> Recipe:
    """The published recipe of a log."""
    recipe = default(corpus) if log is Log.JOURNEY else ordered(corpus)
    return with_overrides(replace(recipe, seed=seed), dict(OURS[log]))


def run(progress: Progress, log: Log, seeds: int, out: Path, minutes: float = math.inf) -> dict[str, Any]:
    """The figures, nested as they are written; the ranks go beside `out`. minutes: of each training, as many for the
    peer; inf: as long as the settings of each say."""
    corpus = corpus_of(log, HOME, progress)
    ours = our_lists(log, corpus, Part.TEST, seeds, progress, minutes)
    judged = judge(log, corpus, Part.TEST, {"model": ours, **_others(log, corpus, seeds, progress, minutes)})
    _write_ranks(judged, out.with_suffix(".ranks.parquet"))
    return {**figures(log, judged), **({"minutes": minutes} if minutes < math.inf else {})}


def figures(log: Log, judged: Judged) -> dict[str, Any]:
    """Means over users and seeds, and model − peer with its interval, paired over users."""
    found: dict[str, Any] = {"data": str(log)}
    for system in judged.lists:
        found[system] = {name: metrics.mean(judged.of(system, name)) for name in METRICS}
        found[system]["seeds_ndcg@10"] = judged.seeds(system, "ndcg@10")
    gap = metrics.paired_bootstrap(judged.of("model", "ndcg@10"), judged.of("peer", "ndcg@10"))
    found["difference"] = {"ndcg@10": gap.mean, "low": gap.low, "high": gap.high}
    found["ratio"] = {"ndcg@10": found["model"]["ndcg@10"] / found["peer"]["ndcg@10"]}
    return {**found, "protocol": judged.evaluation.protocol, "peer_is": PEER[log]}


def judge(log: Log, corpus: Corpus, part: Part, lists: Mapping[str, Sequence[Lists]]) -> Judged:
    """Every list by the one evaluator, on the part of the log where all were asked."""
    holdout, items = held_out(corpus, part), len(corpus.tokenizer.items)
    scorers = {
        _name(system, seed): scorer_of(one, items) for system, of in lists.items() for seed, one in enumerate(of)
    }
    return Judged(holdout, lists, evaluate(holdout, scorers, items), Slice.ALL)


def our_lists(
    log: Log, corpus: Corpus, part: Part, seeds: int, progress: Progress, minutes: float = math.inf
) -> list[Lists]:
    """The model's lists, a training a seed; models that are there already are read."""
    until, cores = Until.TEST if part is Part.TEST else Until.VALIDATION, len(os.sched_getaffinity(0))
    recipes = [recipe_of(log, corpus, seed) for seed in range(seeds)]
    if minutes < math.inf:
        recipes = [replace(recipe, minutes=minutes, epochs=ENDLESS) for recipe in recipes]
    trials = [Trial(corpus.folder, recipe, until=until) for recipe in recipes]
    if minutes < math.inf:
        models = trained(trials, HOME / "models", 1, progress, threads=cores)
    else:
        models = trained(trials, HOME / "models", cores, progress)
    holdout, items, filtered = held_out(corpus, part), len(corpus.tokenizer.items), log is not Log.JOURNEY
    scorers = (model_scorers(Subgraph.from_pretrained(models[trial]))[SCORER[log]] for trial in trials)
    return [of_scorer(scorer, holdout, items, filtered) for scorer in scorers]


def _others(log: Log, corpus: Corpus, seeds: int, progress: Progress, minutes: float) -> dict[str, list[Lists]]:
    """The peer's lists, and popularity's."""
    holdout, tokenizer = held_out(corpus, Part.TEST), corpus.tokenizer
    clock, items = tokenizer.schema.time is not None, len(tokenizer.items)
    simple = standard_baselines(corpus.tokens(), Columns.of(tokenizer), corpus.split, Part.TEST, items, clock)
    counted = {
        name: [of_scorer(simple[name], holdout, items, filtered=log is not Log.JOURNEY)]
        for name in ("popularity", "personal_decayed")
    }
    if log is Log.JOURNEY:
        return {"peer": counted["personal_decayed"], "popularity": counted["popularity"]}
    settings, course = _peer_course(log, minutes)
    python, found = environment(Peer.RECTOOLS, HOME.parent / "peers"), []
    with ThreadPoolExecutor(max(len(os.sched_getaffinity(0)) // course.threads, 1)) as pool:
        trainings = pool.map(
            lambda seed: rectools.train(python, corpus, Part.TEST, settings, course, seed, HOME), range(seeds)
        )
        for training in trainings:
            found.append(training.lists)
            progress("peer", len(found), seeds)
    return {"peer": found, "popularity": counted["popularity"]}


def _peer_course(log: Log, minutes: float) -> tuple[rectools.Settings, rectools.Course]:
    """What was chosen on validation, with the number of passes that was best there; or with the minutes."""
    path, cores = RESULTS / f"peer-{log}.json", len(os.sched_getaffinity(0))
    if not path.exists():
        raise SystemExit(f"the peer has no settings yet: run `python -m benchmarks peer --data {log} --json {path}`")
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    best = best_within(figures["trials"], 60 * minutes * cores)
    settings = rectools.Settings(**best["settings"])
    if minutes < math.inf:
        # Passes beyond the one that was best on validation would only hurt it, where later ones were looked at.
        passes = ENDLESS if best["rising"] else best["epoch"]
        return settings, rectools.Course(epochs=passes, seconds=60 * minutes, clock="wall", threads=cores)
    return settings, rectools.Course(epochs=best["epoch"])


def best_within(trials: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """Settings and epoch of the trial that did best on validation in so much processor time; rising: it was best at
    its last look."""
    looks = [
        {
            "settings": trial["settings"],
            "epoch": epoch,
            "seconds": spent,
            "ndcg@10": found,
            "rising": epoch == trial["looks"][-1][0],
        }
        for trial in trials
        for epoch, spent, found in trial["looks"]
        if spent <= seconds
    ]
    return max(looks, key=lambda look: look["ndcg@10"])


def _write_ranks(judged: Judged, path: Path) -> None:
    """A row a user, in the order of the log's ids; without the ids, which are not ours to publish."""
    table: dict[str, Any] = {"user": pa.array(np.arange(len(judged.holdout)), pa.int32())}
    for system, lists in judged.lists.items():
        for seed, one in enumerate(lists):
            values = judged.evaluation.judged[_name(system, seed)].values[judged.slice_]
            table[f"{system}_{seed}_rank"] = ranks(one, judged.holdout)
            table[f"{system}_{seed}_ndcg@10"] = values["ndcg@10"].astype(np.float32)
    pq.write_table(pa.table(table), path, compression="zstd")


def _name(system: str, seed: int) -> str:
    return f"{system}/{seed}"
