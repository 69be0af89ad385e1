"""The seconds of a training step without Ray, divided by those of the same step inside a Ray Train worker.

The default recipe on a share of Complete Journey's households, trained whole in turns, each run from its start: the
same lessons, in a process of its own, with as many threads as a worker has. A run's figure is the median of what its
steps took by its own log, the first ones left out: they wait for lessons and fill caches.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import PAIRS, Measured, at_least, estimate, readings_in_turns
from tokenization.corpus.corpus import Corpus
from training.attempts import attempts
from training.pretrain import ONE, pretrain, pretrain_bare, threads_of
from training.recipes import Recipe, default, with_overrides
from training.run import Run, start

Progress = Callable[[str, int, int], None]

SHARE = 0.15  # of the households: a pass has some twenty steps
FIRST = 4  # steps that do not count
BAR = 0.95


def measured(corpus: Corpus, folder: Path, progress: Progress, pairs: int = PAIRS) -> Measured:
    """Figures: ray_over_bare_step, the share of a bare step's speed that is left, with its interval; seconds of both.

    folder: where the runs go.
    """
    recipe, numbers, threads = recipe_of(corpus), count(), threads_of(os.cpu_count() or 1, ONE.most)

    def new_run() -> Run:
        return start(corpus, folder / str(next(numbers)), recipe)

    def on_ray() -> float:
        run = new_run()
        pretrain(run)
        assert attempts(run.folder)[-1].threads == threads
        return taken(run)

    def bare() -> float:
        run = new_run()
        train_apart(run, threads)
        return taken(run)

    def taken(run: Run) -> float:
        seconds = step_seconds(run.log)
        shutil.rmtree(run.folder)
        return seconds

    seconds = readings_in_turns((bare, on_ray), pairs, partial(progress, "without Ray and on it"))
    left = estimate(seconds[0] / seconds[1])
    figures = {
        "ray_over_bare_step": left.median,
        "ray_over_bare_step_low": left.low,
        "ray_over_bare_step_high": left.high,
        "bare_step_seconds": float(np.median(seconds[0])),
        "ray_step_seconds": float(np.median(seconds[1])),
        "ray_threads": threads,
    }
    return Measured(figures, (at_least("ray_over_bare_step", left, BAR),))


def recipe_of(corpus: Corpus) -> Recipe:
    """The default recipe, one pass over some of the households."""
    return with_overrides(default(corpus), {"users": str(SHARE), "epochs": "1"})


def train_apart(run: Run, threads: int) -> None:
    """Train without Ray, in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(_train, run.folder, threads).result()


def step_seconds(log: Path) -> float:
    """The median step of a run, by its training.jsonl. Raises ValueError where it has none after the first ones."""
    ends = [json.loads(line)["seconds"] for line in log.read_text(encoding="utf-8").splitlines()]
    seconds = np.diff(ends)[FIRST - 1 :]
    if not len(seconds):
        raise ValueError(f"{log} has {len(ends)} steps, of which the first {FIRST} do not count: train longer")
    return float(np.median(seconds))


def _train(folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    pretrain_bare(Run.open(folder))
