"""Settings of the peer, tuned on the validation part as hard as our own: `python -m benchmarks peer --data ml-1m`.

Each trial has the same processor time; after each pass the peer is asked for the validation part, and its best pass
counts. The settings are varied one after another around the best so far: layers and loss first, then width, dropout,
negatives, rate and length.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

from benchmarks.logs import Log, corpus_of
from benchmarks.peers import rectools
from benchmarks.peers.rectools import Course, Settings, Trained
from benchmarks.quality import HOME
from tokenization.corpus.corpus import Corpus
from training.holdout import Part

Progress = Callable[[str, int, int], None]

COURSE: Mapping[Log, Course] = {
    Log.ML_1M: Course(epochs=400, seconds=2400.0, look=2, patience=6),
    Log.BEAUTY: Course(epochs=400, seconds=1500.0, look=2, patience=6),
}
START: Mapping[Log, Settings] = {
    Log.ML_1M: Settings(layers="ligr", width=64, length=200, loss="sampled_softmax"),
    Log.BEAUTY: Settings(layers="ligr", width=64, length=50, loss="sampled_softmax", dropout=0.5),
}
ROUNDS: tuple[tuple[dict[str, Any], ...], ...] = (
    ({"layers": "sasrec"}, {"loss": "softmax"}, {"loss": "gBCE"}, {"layers": "sasrec", "loss": "softmax"}),
    ({"width": 128}, {"dropout": 0.2}, {"dropout": 0.5}),
    ({"negatives": 512}, {"rate": 0.0005}, {"rate": 0.002}, {"blocks": 4}),
)
"""What is tried in turn; the best of each round, or the one before, is where the next begins."""


def run(progress: Progress, log: Log) -> dict[str, Any]:
    """The best settings with the pass to stop at, and every trial."""
    if log not in COURSE:
        raise SystemExit(f"the peer of {log} is a count: there is nothing to tune here")
    corpus, python = corpus_of(log, HOME, progress), rectools.environment(HOME.parent / "peers")
    found: dict[Settings, Trained] = {}
    best = START[log]
    for number, changes in enumerate(((), *ROUNDS)):
        wanted = [best, *(replace(best, **change) for change in changes)]
        _train_all(python, corpus, [one for one in wanted if one not in found], COURSE[log], found)
        best = max(wanted, key=lambda one: found[one].best[2])
        progress("rounds", number + 1, len(ROUNDS) + 1)
    epoch, seconds, ndcg = found[best].best
    return {
        "data": str(log),
        "best": {"settings": asdict(best), "epoch": epoch, "seconds": seconds, "ndcg@10": ndcg},
        "course": asdict(COURSE[log]),
        "trials": [_told(settings, trained) for settings, trained in found.items()],
    }


def _train_all(
    python: Any, corpus: Corpus, wanted: Sequence[Settings], course: Course, found: dict[Settings, Trained]
) -> None:
    """As many at once as there are cores, each on one thread."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else multiprocessing.cpu_count()
    with ThreadPoolExecutor(workers) as pool:
        trained = pool.map(lambda one: rectools.train(python, corpus, Part.VALIDATION, one, course, 0, HOME), wanted)
        found.update(zip(wanted, trained, strict=True))


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
