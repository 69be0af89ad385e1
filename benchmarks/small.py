"""What vectors and models lose when they are made small: fewer dimensions, fewer bits, int8 weights.

Every second household of Complete Journey, one pass, three seeds, once with bands (`bands=8,16,32`) and once without;
judged on the validation part by the dot product of stored vectors, differences paired over households, seeds averaged.

- dimensions: the first 8, 16, 32 of 64, of users and items alike, and popularity's.
- bits: both sides as faiss's scalar quantisers keep them (fp16; int8 and int4 between the extremes of each dimension),
  `overlap`: how many of the exact first 50 are still among the first 50.
- weights: linear maps and tables as int8 with a scale a row (torchao), popularity's apart; the vectors of such a model.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis

from benchmarks.ablations import Slice, corpus_of, recipe_of
from benchmarks.measure import Measured
from benchmarks.models import trained
from benchmarks.trials import Progress, Trial
from foundation.bands import cut
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training import metrics, ranking
from training.holdout import Columns, Holdout, Part, Requests, Scorer, hold_out
from training.metrics import Floats, top_k
from training.scorers import inputs

SEEDS = (0, 1, 2)
BANDS = (8, 16, 32)
CACHE = Path("out") / "small"
TOP = 50
QUANTISERS = {
    "fp16": faiss.ScalarQuantizer.QT_fp16,
    "int8": faiss.ScalarQuantizer.QT_8bit,
    "int4": faiss.ScalarQuantizer.QT_4bit,
}
Vectors = tuple[Tensor, Tensor]  # of users and of items
Change = Callable[[Tensor, Tensor], Vectors]


def run(progress: Progress) -> Measured:
    """Figures by what was made small: NDCG@10, what is lost beside whole vectors with its interval, overlap."""
    corpus = Corpus.open(corpus_of(Slice.JOURNEY, CACHE / "log", progress))
    trials = {
        (bands, seed): Trial(corpus.folder, recipe_of(corpus, {"bands": bands, "future": "0.3"}, seed))
        for bands in ("", ",".join(map(str, BANDS)))
        for seed in SEEDS
    }
    models = trained(list(trials.values()), CACHE, len(os.sched_getaffinity(0)), progress)
    found: dict[str, list[dict[str, Floats]]] = {}
    for (bands, _), trial in trials.items():
        subgraph = Subgraph.from_pretrained(models[trial])
        found.setdefault("bands" if bands else "plain", []).append(judged(subgraph, corpus, not bands))
        progress("judged", sum(map(len, found.values())), len(trials))
    return Measured(_figures(found), ())


def judged(subgraph: Subgraph, corpus: Corpus, whole: bool) -> dict[str, Floats]:
    """[U] by figure. whole: bits and weights too, and not the dimensions alone."""
    held = hold_out(corpus.tokens(), Columns.of(corpus.tokenizer), corpus.split, Part.VALIDATION)
    user_UD, item_VD = vectors(subgraph, held)
    changes: dict[str, Change] = {"whole": lambda user, item: (user, item)}
    changes |= {f"first_{band}": _first(band) for band in BANDS}
    if whole:
        changes |= {name: _quantised(kind) for name, kind in QUANTISERS.items()}
    found = {name: _ndcg(*change(user_UD, item_VD), held) for name, change in changes.items()}
    if whole:
        exact = _top(user_UD, item_VD)
        for name in QUANTISERS:
            found[f"{name}_overlap"] = overlap(exact, _top(*changes[name](user_UD, item_VD)))
        found["int8_weights"] = _ndcg(*vectors(int8_weights(subgraph), held), held)
    return found


def vectors(subgraph: Subgraph, held: Holdout) -> Vectors:
    """Stored vectors of the judged users, float [U, D + 1], and of all items."""
    with torch.inference_mode():
        parts = [
            subgraph.model.user_vectors(subgraph.states(*inputs(subgraph, requests)))
            for _, requests in held.chunks(256)
        ]
        return torch.cat(parts), subgraph.item_vectors()


def int8_weights(subgraph: Subgraph) -> Subgraph:
    """A copy whose linear maps and tables are int8 with a scale a row."""
    small = copy.deepcopy(subgraph)
    quantize_(small, Int8WeightOnlyConfig())
    rows = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    # A row of one number has nothing to share a scale with.
    quantize_(small, rows, filter_fn=lambda one, name: isinstance(one, nn.Embedding) and one.embedding_dim > 1)
    return small


def quantised(kind: int, vector_ND: Tensor) -> Tensor:
    """The vectors as a scalar quantiser gives them back."""
    array = np.ascontiguousarray(vector_ND.numpy())
    quantiser = faiss.ScalarQuantizer(array.shape[1], kind)
    quantiser.train(array)
    return torch.from_numpy(quantiser.decode(quantiser.compute_codes(array)))


def overlap(exact_UK: NDArray[np.int32], other_UK: NDArray[np.int32]) -> Floats:
    """[U]: share of a user's exact list that is on the other one."""
    return np.array([len(np.intersect1d(a, b)) / len(a) for a, b in zip(exact_UK, other_UK, strict=True)])


def _first(band: int) -> Change:
    return lambda user, item: (cut(user, band), cut(item, band))


def _quantised(kind: int) -> Change:
    return lambda user, item: (quantised(kind, user), quantised(kind, item))


def _scores(user_UD: Tensor, item_VD: Tensor) -> NDArray[np.float32]:
    score_UV = (user_UD @ item_VD.T).numpy()
    score_UV[:, :2] = -np.inf
    return np.asarray(score_UV, dtype=np.float32)


def _top(user_UD: Tensor, item_VD: Tensor) -> NDArray[np.int32]:
    starts = range(0, len(user_UD), 128)
    return np.concatenate([top_k(_scores(user_UD[start : start + 128], item_VD), TOP) for start in starts])


def _ndcg(user_UD: Tensor, item_VD: Tensor, held: Holdout) -> Floats:
    """[U]; requests come in the order of the users."""
    done = 0

    def score(requests: Requests) -> NDArray[np.float32]:
        nonlocal done
        done += len(requests)
        return _scores(user_UD[done - len(requests) : done], item_VD)

    scorers: dict[str, Scorer] = {"small": score}
    found = ranking.evaluate(held, scorers, len(item_VD))
    return found.judged["small"].values[ranking.Slice.ALL]["ndcg@10"]


def _figures(found: Mapping[str, list[dict[str, Floats]]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    base_U = np.mean([one["whole"] for one in found["plain"]], axis=0)
    for kind, runs in found.items():
        for name in runs[0]:
            value_U = np.mean([one[name] for one in runs], axis=0)
            if name.endswith("_overlap"):
                figures[f"{kind}.{name}"] = metrics.mean(value_U)
                continue
            figures[f"{kind}.{name}.ndcg@10"] = metrics.mean(value_U)
            gap = metrics.paired_bootstrap(value_U, base_U)
            figures |= {f"{kind}.{name}.lost": gap.mean, f"{kind}.{name}.lost_low": gap.low}
            figures[f"{kind}.{name}.lost_high"] = gap.high
    return figures
