"""Fits the thin heads on the imported, frozen subgraph and judges each beside popularity.

Fitted on what lies before the test part of the split, judged on the held-out groups. Queries are synthetic: a few
words of the text of a product that was bought; every figure about search says no more than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from foundation.heads import Heads
from foundation.repeat import FIRST_ITEM
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training.baselines import item_popularity
from training.errors import RunError
from training.holdout import Columns, Holdout, Part, hold_out
from training.metrics import Codes, ItemSets, hits, mean, ndcg_at, top_k
from training.run import Run
from training.scorers import inputs
from training.training_set import TrainingSet, read_training_set, recency

K = 10
STEPS, SIZE, NEGATIVES = 300, 512, 2_048
CHUNK = 64  # requests scored at a time, each over the whole catalogue
JUDGED = 1_000  # requests for home, queries for search: the catalogue is ranked for each
HOME_FIT = 128  # users of the validation part that the three numbers of the home head are fitted on

Progress = Callable[[str, int, int], None]
Figures = dict[str, float]


@dataclass(frozen=True)
class _Baskets:
    """Items of groups: item_T codes (all ≥ 2), group_T int64 ids, ascending; late_T: Σ of recency up to each."""

    item_T: np.ndarray
    group_T: np.ndarray
    late_T: np.ndarray


def fit_heads(run: Run, corpus: Corpus, progress: Progress = lambda stage, done, total: None) -> dict[str, Figures]:
    """Fit and save the heads of a run; {home, search, item_to_item: {ndcg@10, baseline_ndcg@10, requests}}.

    Search is missing where the items have no text. Raises ModelError, EvaluationError, and RunError for tokens of
    another tokenizer.
    """
    subgraph = Subgraph.from_pretrained(run.model)
    if subgraph.tokenizer.fingerprint != corpus.tokenizer.fingerprint:
        raise RunError(
            f"{corpus.folder} has tokens of another tokenizer than {run.folder}: fit its heads on its own corpus"
        )
    with torch.random.fork_rng(devices=[]):  # whatever else this process has drawn decides nothing
        torch.manual_seed(run.recipe.seed)
        heads = Heads.untrained(subgraph)
    config = subgraph.model.config
    training_set = read_training_set(corpus, config, run.until)
    tokens, columns = corpus.tokens(), Columns.of(corpus.tokenizer)
    test = hold_out(tokens, columns, corpus.split)
    # Codes of the most popular items of the last days before the cut: what every head has to beat.
    popular = item_popularity(test.before, len(corpus.tokenizer.items), float(test.before.time.max()))
    popularity_V = np.argsort(-popular, kind="stable")[: K + 1].astype(np.int32)
    draw = np.random.default_rng(run.recipe.seed)
    figures = {}

    _fit_home(heads, hold_out(tokens, columns, corpus.split, Part.VALIDATION), progress)
    figures["home"] = _judge_home(heads, test, popularity_V)

    bought = _baskets(training_set, config.item_column)
    _fit_item_to_item(heads, bought, training_set, draw, progress)
    figures["item_to_item"] = _judge_item_to_item(heads, test, popularity_V, draw)

    if heads.search_head is not None:
        text = corpus.tokenizer.items.text
        _fit_search(heads, bought, text, draw, progress)
        figures["search"] = _judge_search(heads, test, text, popularity_V, draw)
    heads.save(run.model)
    return figures


def synthetic_queries(text: pa.Array, code_N: np.ndarray, draw: np.random.Generator) -> list[str]:
    """One to three words of each item's text, in their order: what somebody might type who wants it."""
    queries = []
    for words in pc.split_pattern_regex(pc.utf8_lower(text.take(pa.array(code_N))), r"[^a-z0-9]+").to_pylist():
        words = [word for word in dict.fromkeys(words) if len(word) > 1]
        kept = np.sort(draw.permutation(len(words))[: int(draw.integers(1, 4))])
        queries.append(" ".join(words[place] for place in kept))
    return queries


def _fit_home(heads: Heads, holdout: Holdout, progress: Progress) -> None:
    """Softmax regression of three weights over the whole catalogue.

    A run that has learned the validation part trusts its model a little too much there; three numbers can't remember
    the part itself.
    """
    parts = []
    users = min(HOME_FIT, len(holdout))
    for start in range(0, users, 64):
        batch, at_B, context_BC = inputs(heads.subgraph, holdout.requests(start, min(start + 64, users)))
        with torch.no_grad():
            states = heads.subgraph.states(batch, at_B, context_BC)
            logit_BV = heads.subgraph.model.reranked(states, heads.item_VD)
            parts.append((logit_BV, heads.subgraph.model.user_vectors(states) @ heads.item_VD.T))
    logit_BV, dot_BV = (torch.cat(part) for part in zip(*parts, strict=True))
    row_E = torch.from_numpy(np.repeat(np.arange(users), np.diff(holdout.truth.offsets[: users + 1])))
    item_E = torch.from_numpy(holdout.truth.codes[: len(row_E)].astype(np.int64))

    def loss() -> Tensor:
        score_BV = heads.home_head(logit_BV[:, FIRST_ITEM:], dot_BV[:, FIRST_ITEM:], heads.popularity_V[FIRST_ITEM:])
        log_share_BV = torch.log_softmax(score_BV, dim=1)
        return -log_share_BV[row_E, item_E - FIRST_ITEM].mean()

    _descend(heads.home_head, loss, steps=15, rate=0.1, stage="home", progress=progress)


def _fit_item_to_item(
    heads: Heads, bought: _Baskets, training_set: TrainingSet, draw: np.random.Generator, progress: Progress
) -> None:
    """Pairs of one group; in each step all of its targets compete, corrected for how often they are drawn.

    Pairs are drawn as lately as popularity counts, or the head would have to unlearn last spring's.
    """
    vector_VD, popularity_V = heads.item_VD[:, :-1], heads.popularity_V
    recent_V = np.bincount(bought.item_T, np.diff(bought.late_T, prepend=0.0), minlength=len(training_set.count_V))
    log_share_V = torch.from_numpy(np.log(recent_V / recent_V.sum() + 1e-12)).float()

    def loss() -> Tensor:
        source, target = _pairs(bought, SIZE, draw)
        code_N, place = np.unique(target, return_inverse=True)
        score_SN = heads.item_to_item_head(
            vector_VD[torch.from_numpy(source)],
            vector_VD[torch.from_numpy(code_N)],
            popularity_V[torch.from_numpy(code_N)],
        )
        corrected_SN = score_SN - log_share_V[torch.from_numpy(code_N)]
        return nn.functional.cross_entropy(corrected_SN, torch.from_numpy(place))

    heads.item_to_item_head.forget_source()
    _descend(heads.item_to_item_head, loss, STEPS, rate=3e-3, stage="item_to_item", progress=progress)


def _fit_search(heads: Heads, bought: _Baskets, text: pa.Array, draw: np.random.Generator, progress: Progress) -> None:
    """Queries made from bought products; the products of a step and popular ones compete."""
    head, tower, encoder = heads.search_head, heads.subgraph.model.tower, heads.encoder
    assert head is not None

    def loss() -> Tensor:
        wanted = draw.choice(bought.item_T, SIZE)
        others = draw.choice(bought.item_T, NEGATIVES)
        code_N, place = np.unique(np.concatenate([wanted, others]), return_inverse=True)
        query_QX = torch.from_numpy(encoder.encode(synthetic_queries(text, wanted, draw)))
        codes = torch.from_numpy(code_N)
        score_QN = head(query_QX, tower.text_of(codes), heads.popularity_V[codes])
        return nn.functional.cross_entropy(score_QN, torch.from_numpy(place[:SIZE]))

    _descend(head, loss, STEPS // 2, rate=3e-3, stage="search", progress=progress)


def _descend(
    module: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float, stage: str, progress: Progress
) -> None:
    optimiser = torch.optim.Adam(module.parameters(), lr=rate)
    for step in range(steps):
        optimiser.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        progress(stage, step + 1, steps)
    module.eval()


@torch.no_grad()
def _judge_home(heads: Heads, test: Holdout, popularity_V: Codes) -> Figures:
    users = min(JUDGED, len(test))
    ranked = [
        top_k(heads.home(*inputs(heads.subgraph, test.requests(start, min(start + CHUNK, users)))).numpy(), K)
        for start in range(0, users, CHUNK)
    ]
    popular_NK = np.repeat(popularity_V[None, :K], users, axis=0)
    return _figures(np.concatenate(ranked), popular_NK, test.truth.slice(0, users))


@torch.no_grad()
def _judge_item_to_item(heads: Heads, test: Holdout, popularity_V: Codes, draw: np.random.Generator) -> Figures:
    """One product of a held-out basket is shown, the others are to be found."""
    truth = test.truth
    baskets = np.flatnonzero(truth.sizes >= 2)
    first = truth.offsets[:-1][baskets]
    shown_N = truth.codes[first + draw.integers(0, truth.sizes[baskets])]
    asked = np.searchsorted(baskets, truth.users)
    asked[asked == len(baskets)] = 0
    rest_N = (baskets[asked] == truth.users) & (truth.codes != shown_N[asked])
    rest = ItemSets.from_pairs(asked[rest_N], truth.codes[rest_N], len(baskets))
    ranked = [
        top_k(heads.item_to_item(torch.from_numpy(shown.astype(np.int64))).numpy(), K) for shown in _chunks(shown_N)
    ]
    return _figures(np.concatenate(ranked), _without(popularity_V, shown_N), rest)


@torch.no_grad()
def _judge_search(
    heads: Heads, test: Holdout, text: pa.Array, popularity_V: Codes, draw: np.random.Generator
) -> Figures:
    """One product of a held-out basket is wanted; its synthetic query is all that is known."""
    wanted_N = draw.choice(test.truth.codes, min(JUDGED, len(test.truth.codes)), replace=False)
    ranked = [top_k(heads.search(synthetic_queries(text, wanted, draw)).numpy(), K) for wanted in _chunks(wanted_N)]
    truth = ItemSets.from_pairs(np.arange(len(wanted_N)), wanted_N, len(wanted_N))
    return _figures(np.concatenate(ranked), np.repeat(popularity_V[None, :K], len(wanted_N), axis=0), truth)


def _chunks(code_N: Codes) -> list[Codes]:
    return np.array_split(code_N, max(len(code_N) // CHUNK, 1))


def _without(popular_N: Codes, shown_N: Codes) -> Codes:
    """[N, K] the K most popular items besides the one shown."""
    keep_NK = popular_N[None, : K + 1] != shown_N[:, None]
    order_NK = np.argsort(~keep_NK, axis=1, kind="stable")[:, :K]
    return np.asarray(popular_N[order_NK])


def _figures(ranked_NK: Codes, popular_NK: Codes, truth: ItemSets) -> Figures:
    def ndcg(ranking_NK: Codes) -> float:
        return mean(ndcg_at(hits(ranking_NK, truth), truth.sizes, K))

    return {"ndcg@10": ndcg(ranked_NK), "baseline_ndcg@10": ndcg(popular_NK), "requests": float(len(truth))}


def _baskets(training_set: TrainingSet, item_column: int) -> _Baskets:
    events = training_set.events
    item_T = events.facet_TF[:, item_column].numpy()
    groups = events.user_T.numpy() * (int(events.group_T.max()) + 1) + events.group_T.numpy()
    late_T = recency(training_set).numpy()
    keep = item_T >= FIRST_ITEM
    return _Baskets(item_T[keep], groups[keep], np.cumsum(late_T[keep]))


def _pairs(bought: _Baskets, size: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`size` pairs of different items of one group, late groups more often."""
    first = np.searchsorted(bought.late_T, draw.random(size * 4) * bought.late_T[-1], side="right")
    first = np.minimum(first, len(bought.item_T) - 1)
    low = np.searchsorted(bought.group_T, bought.group_T[first])
    high = np.searchsorted(bought.group_T, bought.group_T[first], side="right")
    second = draw.integers(low, high)
    apart = np.flatnonzero(bought.item_T[first] != bought.item_T[second])[:size]
    return bought.item_T[first[apart]], bought.item_T[second[apart]]
