"""Trained models kept on disk: for what asks more of a model than the figures of a trial.

As in benchmarks/trials.py, a name covers everything that decides a model, the code too.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.trials import Progress, Trial
from tokenization.corpus.corpus import Corpus
from training.pretrain import pretrain_bare, start
from training.recipes import Recipe


@dataclass(frozen=True)
class Asked:
    """A recipe with its seed, for a corpus."""

    corpus: Path
    recipe: Recipe

    @property
    def key(self) -> str:
        """sha256 hex over recipe, corpus and code."""
        return Trial(self.corpus, self.recipe).key


def trained(asked: Sequence[Asked], cache: Path, workers: int, progress: Progress) -> dict[Asked, Path]:
    """A model directory for each, from the cache or trained now, in so many processes of one thread each."""
    cache.mkdir(parents=True, exist_ok=True)
    found: dict[Asked, Path] = {}
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_model, one, cache / one.key): one for one in asked}
        for finished in as_completed(waiting):
            found[waiting[finished]] = finished.result()
            progress("models", len(found), len(asked))
    return found


def _model(asked: Asked, folder: Path) -> Path:
    torch.set_num_threads(1)
    run = start(Corpus.open(asked.corpus), folder, asked.recipe)
    if not run.finished:
        pretrain_bare(run)
    return run.model
