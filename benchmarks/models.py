"""Trained models kept on disk: for what asks more of a model than the figures of a trial.

As in benchmarks/trials.py, a name covers everything that decides a model, the code too.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from benchmarks.trials import Progress, Trial
from tokenization.corpus.corpus import Corpus
from training.pretrain import pretrain_bare
from training.run import start


def trained(
    trials: Sequence[Trial], cache: Path, workers: int, progress: Progress, threads: int = 1
) -> dict[Trial, Path]:
    """A model directory for each, from the cache or trained now, in so many processes of so many threads each."""
    cache.mkdir(parents=True, exist_ok=True)
    found: dict[Trial, Path] = {}
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_model, trial, cache / trial.key, threads): trial for trial in trials}
        for finished in as_completed(waiting):
            found[waiting[finished]] = finished.result()
            progress("models", len(found), len(trials))
    return found


def _model(trial: Trial, folder: Path, threads: int) -> Path:
    torch.set_num_threads(threads)
    run = start(Corpus.open(trial.corpus), folder, trial.recipe, trial.until)
    if not run.finished:
        pretrain_bare(run)
    return run.model
