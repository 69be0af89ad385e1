"""A model tuned for one surface, in three ways, beside the model as it was: Complete Journey, the busiest stores.

The surface is the twenty stores with most baskets before validation, about a quarter of all. The model has learned
everything before validation with the recipe of docs/log.md; each way goes on with what happened in those stores, for
one pass at three tenths of the rates, as `userfm finetune` does. Judged on the validation part by whole scores, on the
first basket of each household in those stores, and, to see what it costs elsewhere, on the first basket anywhere.
Differences are paired over households, seeds averaged.

`python -m benchmarks finetuning --json benchmarks/results/finetuning.json`
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.logs import Log, corpus_of
from benchmarks.measure import Measured
from benchmarks.trials import Progress
from foundation.subgraph import Subgraph
from tokenization.codes.vocabulary import FIRST
from tokenization.corpus.corpus import Corpus
from training import metrics
from training.finetune import Learns, tuning_of
from training.holdout import Columns, Part, hold_out
from training.metrics import Floats
from training.pretrain import pretrain_bare
from training.ranking import Slice, evaluate
from training.recipes import default
from training.rows import list_values
from training.run import Run, start
from training.scorers import model_scorers
from training.surface import Surface, surface_of
from training.update import recipe_after

EPOCHS, STORES, SEEDS = 2, 20, 2
UNTUNED = "untuned"


def run(progress: Progress) -> Measured:
    """Figures by way, there and everywhere: ndcg@10, what it gains on the model as it was."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        corpus = corpus_of(Log.JOURNEY, home / "logs", progress)
        surface = busiest(corpus, STORES)
        runs: dict[str, list[Run]] = {UNTUNED: [], **{str(learns): [] for learns in Learns}}
        for seed in range(SEEDS):
            recipe = replace(default(corpus), epochs=EPOCHS, seed=seed)
            base = _trained(start(corpus, home / f"base-{seed}", recipe), progress)
            runs[UNTUNED].append(base)
            for learns in Learns:
                tuning = tuning_of(base.model, learns, surface)
                tuned = start(corpus, home / f"{learns}-{seed}", recipe_after(recipe, corpus, 1), origin=tuning)
                runs[learns].append(_trained(tuned, progress))
        there = {way: _judged(some, corpus, surface) for way, some in runs.items()}
        everywhere = {way: _judged(some, corpus, None) for way, some in runs.items()}
    return Measured({**figures("there", there), **figures("everywhere", everywhere)}, ())


def busiest(corpus: Corpus, number: int) -> Surface:
    """The stores with most baskets before validation, as one surface."""
    tokens, cut = corpus.tokens(), corpus.split.validation
    assert cut is not None
    time_T, offset = list_values(tokens["time"])
    store_T, group_T = (list_values(tokens[name])[0] for name in ("store", "group"))
    row_T = np.repeat(np.arange(len(offset) - 1), np.diff(offset))
    told_T = (store_T >= FIRST) & (time_T < cut)
    basket_N = np.unique(np.stack([row_T, group_T, store_T], axis=1)[told_T], axis=0)
    count_V = np.bincount(basket_N[:, 2])
    best = np.argsort(-count_V, kind="stable")[:number].astype(np.int32)
    values = corpus.tokenizer.vocabularies["store"].decode(best).to_pylist()
    return surface_of(f"store={','.join(map(str, values))}", corpus.tokenizer)


def figures(where: str, judged: Mapping[str, Floats]) -> dict[str, float]:
    """judged: NDCG@10 by household, [U], of each way."""
    found: dict[str, float] = {f"{where}.requests": len(judged[UNTUNED])}
    for way, values in judged.items():
        found[f"{where}.{way}.ndcg@10"] = metrics.mean(values)
        if way != UNTUNED:
            gap = metrics.paired_bootstrap(values, judged[UNTUNED])
            found |= {f"{where}.{way}.gained": gap.mean, f"{where}.{way}.gained_low": gap.low}
            found[f"{where}.{way}.gained_high"] = gap.high
    return found


def _trained(run: Run, progress: Progress) -> Run:
    pretrain_bare(run, lambda record: progress(run.folder.name, record.step, record.steps))
    return run


def _judged(runs: Sequence[Run], corpus: Corpus, surface: Surface | None) -> Floats:
    held = hold_out(corpus.tokens(), Columns.of(corpus.tokenizer, surface), corpus.split, Part.VALIDATION)
    found = []
    for run in runs:
        scorers = {"model": model_scorers(Subgraph.from_pretrained(run.model))["model"]}
        judged = evaluate(held, scorers, len(corpus.tokenizer.items)).judged["model"]
        found.append(judged.values[Slice.ALL]["ndcg@10"])
    return np.asarray(np.mean(found, axis=0))
