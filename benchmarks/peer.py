"""Settings of the peer, tuned on the validation part as hard as our own: `python -m benchmarks peer --data ml-1m`.

Every trial has the same processor time, the pass that does best on validation counts. Settings are varied in rounds,
each around the best so far; then the best two have more time. That is short of where such a model ends on a machine
with a GPU, so `looks` keeps every curve.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.logs import Log, corpus_of
from benchmarks.peers import rectools
from benchmarks.peers.environments import Peer, environment
from benchmarks.peers.rectools import Course, Settings, Trained
from benchmarks.quality import ENDLESS, HOME
from tokenization.corpus.corpus import Corpus
from training.holdout import Part

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """start: the settings that trials begin with. rounds: what is tried in turn. trial, final: processor seconds of a
    trial, and of the best two after them."""

    start: Settings
    rounds: tuple[tuple[dict[str, Any], ...], ...]
    trial: float
    final: float


PLANS: Mapping[Log, Plan] = {
    Log.ML_1M: Plan(
        Settings(layers="sasrec", width=64, length=100, loss="softmax", dropout=0.2, batch=128),
        (
            ({"batch": 32}, {"layers": "ligr"}, {"loss": "sampled_softmax", "negatives": 128}),
            ({"length": 50}, {"dropout": 0.1}),
            ({"dropout": 0.1}, {"layers": "ligr"}, {"loss": "sampled_softmax", "negatives": 256}),
            ({"width": 128},),
        ),
        trial=450.0,
        final=1800.0,
    ),
    Log.BEAUTY: Plan(
        Settings(layers="sasrec", width=64, length=20, loss="sampled_softmax", negatives=64, dropout=0.3, batch=128),
        (
            ({"batch": 32}, {"layers": "ligr"}, {"loss": "gBCE"}),
            ({"dropout": 0.1}, {"dropout": 0.5}, {"width": 128}, {"negatives": 256}),
        ),
        trial=450.0,
        final=900.0,
    ),
}
PATIENCE = 6  # passes without a rise that end a training


def run(progress: Progress, log: Log) -> dict[str, Any]:
    """The best settings with the pass to stop at, and every trial."""
    if log not in PLANS:
        raise SystemExit(f"the peer of {log} is a count: there is nothing to tune here")
    plan, corpus, python = PLANS[log], corpus_of(log, HOME, progress), environment(Peer.RECTOOLS, HOME.parent / "peers")
    trial, final = (Course(ENDLESS, seconds, patience=PATIENCE) for seconds in (plan.trial, plan.final))
    found: dict[Settings, Trained] = {}
    best = plan.start
    for number, changes in enumerate(((), *plan.rounds)):
        wanted = [best, *(replace(best, **change) for change in changes)]
        found |= _train_all(python, corpus, [one for one in wanted if one not in found], trial)
        best = max(wanted, key=lambda one: found[one].best[2])
        progress("rounds", number + 1, len(plan.rounds) + 2)
    leaders = sorted(found, key=lambda one: -found[one].best[2])[:2]
    longer = _train_all(python, corpus, leaders, final)
    progress("rounds", len(plan.rounds) + 2, len(plan.rounds) + 2)
    best = max(leaders, key=lambda one: longer[one].best[2])
    return {
        "data": str(log),
        "best": _told(best, longer[best]),
        "trials": [_told(settings, trained) for settings, trained in (*found.items(), *longer.items())],
    }


def _train_all(python: Path, corpus: Corpus, wanted: Sequence[Settings], course: Course) -> dict[Settings, Trained]:
    """As many at once as there are cores, each on one thread."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else multiprocessing.cpu_count()
    with ThreadPoolExecutor(workers) as pool:
        trained = pool.map(lambda one: rectools.train(python, corpus, Part.VALIDATION, one, course, 0, HOME), wanted)
        return dict(zip(wanted, trained, strict=True))


def _told(settings: Settings, trained: Trained) -> dict[str, Any]:
    """looks: (epoch, processor seconds, NDCG@10 on validation)."""
    epoch, seconds, ndcg = trained.best
    return {
        "settings": asdict(settings),
        "epoch": epoch,
        "seconds": seconds,
        "ndcg@10": ndcg,
        "looks": [list(look) for look in trained.looks],
    }
