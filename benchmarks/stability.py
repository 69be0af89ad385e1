"""How steady vectors are: between two trainings, from day to day, from one basket to the next.

Every second household of Complete Journey, the default recipe, one pass, seeds 0 and 1, once with first weights drawn
by the seed and once with those that all runs share (`start`); figures that begin with `whole` are of all households and
two passes. Between the two seeds: the cosine of the same household or product with itself, before and after the map of
`userfm align`, on entities that the map was not fitted on; and a classifier, fitted on the one space and frozen, that
reads the other. What will be bought next week is classified, since the log knows it of everybody. Between the two
starts: NDCG@10 on the validation part, the mean of both seeds. Within one model: a household's vector beside its own of
some events or days before. Everything is as of the beginning of the validation part. Draws docs/figures/drift.svg.

Trained models stay in out/stability, under a name made of recipe, corpus and code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.ablations import Slice, corpus_of
from benchmarks.logs import Log
from benchmarks.logs import corpus_of as journey
from benchmarks.measure import Bar, Estimate, Measured, at_least, at_most
from benchmarks.models import trained
from benchmarks.plots import Line, lines
from benchmarks.trials import Progress, Trial
from foundation.alignment import UNALIGNED, cosines
from foundation.jagged import EventBatch
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training import ranking
from training.align import Fit, Known, dots_moved, fitted, held_out_of, known
from training.holdout import Columns, Part, hold_out
from training.metrics import Floats, Interval, bootstrap, mean, paired_bootstrap
from training.push import USERS
from training.ranking import evaluate
from training.recipes import Start, default
from training.scorers import model_scorers
from training.training_set import Until, select_users, trainable_events

DAY = 86_400.0
AGES = (1, 7, 28)  # days
SEEDS = (0, 1)
EPOCHS = {"": 1, "whole.": 2}
"""Passes over every second household, and over all."""
WEEK = 7 * DAY
HELD_OUT = 0.5  # of households and products: neither the map nor the classifier is fitted on them
MET = ((0, 0), (1, 4), (5, 19), (20, 99), (100, 10**9))  # how often a product was met in training
USUAL = (0.1, 0.9)  # share of households that buy in a department next week; rarer ones say nothing of so few
RESAMPLES = 200
CACHE = Path("out/stability")
PICTURE = Path(__file__).parent.parent / "docs" / "figures" / "drift.svg"
COSINE, DOTS = 0.85, 1e-5

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """Two trainings, the later to be aligned to the earlier, and what is known of both."""

    models: tuple[Subgraph, Subgraph]
    known: Known
    fit: Fit


def run(progress: Progress) -> Measured:
    """Figures by start: cosines, classifier; what one start costs beside the other; the drift within a model of the
    default recipe."""
    figures: dict[str, float] = {}
    bars: list[Bar] = []
    for size, corpus in (("", half(CACHE, progress)), ("whole.", journey(Log.JOURNEY, CACHE, progress))):
        pairs = pairs_of(corpus, EPOCHS[size], progress)
        for start, pair in pairs.items():
            agreed, held = agreement(pair)
            agreed |= transfer(pair, corpus)
            figures |= {f"{size}{start}.{name}": value for name, value in agreed.items()}
            bars += [replace(bar, name=f"{size}{start}.{bar.name}") for bar in held]
        figures |= {f"{size}{name}": value for name, value in costs(pairs, corpus).items()}
        if not size:
            figures |= drift(pairs[default(corpus).start].models[0], corpus)
    return Measured(figures, tuple(bars))


def half(folder: Path, progress: Progress) -> Corpus:
    """Every second household of Complete Journey, tokenized once."""
    out = folder / Slice.JOURNEY
    folder.mkdir(parents=True, exist_ok=True)
    return Corpus.open(out if (out / "corpus.json").exists() else corpus_of(Slice.JOURNEY, folder, progress))


def pairs_of(corpus: Corpus, epochs: int, progress: Progress) -> dict[Start, Pair]:
    """Both seeds for each start, trained where they are not in the cache."""
    recipe = replace(default(corpus), epochs=epochs)
    asked = {
        (start, seed): Trial(corpus.folder, replace(recipe, start=start, seed=seed))
        for start in Start
        for seed in SEEDS
    }
    found = trained(list(asked.values()), CACHE, len(os.sched_getaffinity(0)), progress)
    pairs = {}
    for start in Start:
        earlier, later = (Subgraph.from_pretrained(found[asked[start, seed]]) for seed in SEEDS)
        both = known(later, earlier, corpus, Until.VALIDATION, progress)
        pairs[start] = Pair((earlier, later), both, fitted(both, earlier.aligned_space, held_out=HELD_OUT))
    return pairs


def costs(pairs: Mapping[Start, Pair], corpus: Corpus) -> dict[str, float]:
    """NDCG@10 of the whole model and of stored vectors by start, both seeds; shared − seed, paired over households."""
    held = hold_out(corpus.tokens(), Columns.of(corpus.tokenizer), corpus.split, Part.VALIDATION)
    figures, ndcg_U = {}, {}
    for start, pair in pairs.items():
        judged = [evaluate(held, model_scorers(one), len(corpus.tokenizer.items)).judged for one in pair.models]
        for scorer in ("model", "embedding"):
            values = [one[scorer].values[ranking.Slice.ALL]["ndcg@10"] for one in judged]
            ndcg_U[start, scorer] = np.mean(values, axis=0)
            figures[f"{start}.{scorer}.ndcg@10"] = mean(ndcg_U[start, scorer])
    for scorer in ("model", "embedding"):
        gap = paired_bootstrap(ndcg_U[Start.SHARED, scorer], ndcg_U[Start.SEED, scorer])
        figures |= named(f"shared_minus_seed.{scorer}.ndcg@10", gap)
    return figures


def agreement(pair: Pair) -> tuple[dict[str, float], list[Bar]]:
    """Cosine of held-out households and products with themselves; products by how often they were met, too."""
    figures: dict[str, float] = {}
    bars = []
    kinds = zip(
        ("users", "items"), (pair.known.users, pair.known.items), held_out_of(pair.known, HELD_OUT), strict=True
    )
    for name, kind, judge_N in kinds:
        for when, alignment in (("before", UNALIGNED), ("after", pair.fit.alignment)):
            cosine_N = cosines(alignment(kind.source_ND), kind.target_ND, kind.source_ND.shape[1] - 1)
            counted_N = judge_N & (kind.weight_N > 0)
            found = interval(cosine_N[counted_N])
            figures |= named(f"cosine_{name}_{when}", found)
            share_N = kind.weight_N[counted_N].double() / kind.weight_N[counted_N].double().mean()
            if name == "items":
                figures[f"cosine_items_{when}_by_meeting"] = float((cosine_N[counted_N] * share_N).mean())
                figures |= by_meetings(cosine_N, kind.weight_N, judge_N, when)
        bars.append(at_least(f"cosine_{name}_after", Estimate(found.mean, found.low, found.high), COSINE))
    moved = dots_moved(pair.fit.alignment, pair.known.users.source_ND, pair.known.items.source_ND, most=2_000)
    figures["dots_moved"] = moved
    bars.append(at_most("dots_moved", Estimate(moved, moved, moved), DOTS))
    for name, judged in (("users", pair.fit.users), ("items", pair.fit.items)):
        figures[f"scale_{name}"] = judged.scale
    return figures, bars


def by_meetings(cosine_N: Tensor, met_N: Tensor, judge_N: Tensor, when: str) -> dict[str, float]:
    """Mean cosine of held-out products that were met so often."""
    figures = {}
    for low, high in MET:
        chosen_N = judge_N & (met_N >= low) & (met_N <= high)
        name = f"{low}" if low == high else f"{low}_to_{high}" if high < MET[-1][1] else f"{low}_on"
        figures[f"cosine_items_{when}.met_{name}"] = float(cosine_N[chosen_N].mean())
    return figures


def transfer(pair: Pair, corpus: Corpus) -> dict[str, float]:
    """AUC of a frozen classifier on households that it was not fitted on, mean over departments: on the space that it
    was fitted on, on the later one aligned, and on the later one as it is; and what is lost, paired over households."""
    users = pair.known.users
    judge_B = held_out_of(pair.known, HELD_OUT)[0].numpy()
    bought_BC = bought_next_week(pair.models[0], corpus)
    share_C = bought_BC.mean(axis=0)
    bought_BC = bought_BC[:, (share_C > USUAL[0]) & (share_C < USUAL[1])]
    spaces = {
        "same": users.target_ND,
        "aligned": pair.fit.alignment(users.source_ND),
        "unaligned": users.source_ND,
    }
    frozen = [classifier().fit(users.target_ND[~judge_B, :-1].numpy(), bought_B[~judge_B]) for bought_B in bought_BC.T]
    scores = {
        name: np.stack([model.decision_function(vectors_BD[judge_B, :-1].numpy()) for model in frozen], axis=1)
        for name, vectors_BD in spaces.items()
    }
    figures = {"departments": float(bought_BC.shape[1])}
    found = areas(scores, bought_BC[judge_B])
    for name, value_S in found.items():
        figures |= named(f"auc_{name}", percentiles(value_S))
    for name in ("aligned", "unaligned"):
        figures |= named(f"auc_{name}_minus_same", percentiles(found[name] - found["same"]))
    return figures


def classifier() -> Pipeline:
    """Logistic regression on standardised dimensions."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1_000))


def areas(scores: Mapping[str, Floats], truth_BC: Mask) -> dict[str, Floats]:
    """[1 + RESAMPLES] mean area under the ROC curve over departments, of all households and of resampled ones, the same
    for all scores."""
    draw = np.random.default_rng(0)
    households = len(truth_BC)
    rows = [np.arange(households), *draw.integers(0, households, (RESAMPLES, households))]
    return {name: np.array([area(score_BC[row], truth_BC[row]) for row in rows]) for name, score_BC in scores.items()}


def area(score_BC: Floats, truth_BC: Mask) -> float:
    """Mean over departments of the chance that a household that buys has a higher score than one that does not, ties
    half: the Mann-Whitney form of the area."""
    rank_BC = rankdata(score_BC, axis=0)
    buy_C = truth_BC.sum(axis=0)
    above_C = (rank_BC * truth_BC).sum(axis=0) - buy_C * (buy_C + 1) / 2
    return float((above_C / (buy_C * (len(truth_BC) - buy_C))).mean())


def bought_next_week(subgraph: Subgraph, corpus: Corpus) -> Mask:
    """bool [households that have an event before, departments]: who bought there in the week after the cut."""
    cut = corpus.split.validation
    assert cut is not None
    batch = history(subgraph, corpus)
    time_T = batch.time_T + batch.start_B[batch.user_T]
    before_B = torch.zeros(batch.users, dtype=torch.bool).index_fill(0, batch.user_T[time_T < cut], True)
    code_T = batch.facet_TF[:, subgraph.model.config.item_column]
    sizes = [name for name, _ in subgraph.model.config.item.categories]
    department_T = subgraph.model.tower.category_VC[code_T, sizes.index("department")]
    bought_BC = torch.zeros(batch.users, int(subgraph.model.tower.category_VC[:, sizes.index("department")].max()) + 1)
    week_T = (time_T >= cut) & (time_T < cut + WEEK) & (code_T > 1)
    bought_BC[batch.user_T[week_T], department_T[week_T]] = 1
    return np.asarray(bought_BC[before_B].bool().numpy())


def drift(subgraph: Subgraph, corpus: Corpus) -> dict[str, float]:
    """Cosine of each household's vector with its own of one event, one basket, and some days before; draws by days."""
    cut = corpus.split.validation
    assert cut is not None
    batch = trainable_events(history(subgraph, corpus), corpus.split, Until.VALIDATION)
    figures: dict[str, float] = {}
    now_BD = vectors(subgraph, batch, None)
    length_B = batch.offset_B1.diff()
    last_G = batch.group_T[torch.clamp(batch.offset_B1[1:] - 1, min=0)]
    token_T = torch.arange(batch.tokens) - batch.offset_B1[:-1][batch.user_T]
    shorter = {
        "event": token_T < length_B[batch.user_T] - 1,
        "group": batch.group_T < last_G[batch.user_T],
    }
    for name, keep_T in shorter.items():
        earlier = only(batch, keep_T)
        there_B = earlier.offset_B1.diff() > 0
        figures |= spread(
            f"drift_1_{name}", cosines(vectors(subgraph, earlier, None), now_BD, now_BD.shape[1] - 1)[there_B]
        )
    at_cut_BD, drawn = vectors(subgraph, batch, cut), []
    time_T = batch.time_T + batch.start_B[batch.user_T]
    for days in AGES:
        earlier = only(batch, time_T < cut - days * DAY)
        there_B = earlier.offset_B1.diff() > 0
        came_B = earlier.offset_B1.diff() < length_B
        cosine_B = cosines(vectors(subgraph, earlier, cut - days * DAY), at_cut_BD, now_BD.shape[1] - 1)
        figures |= spread(f"drift_{days}d", cosine_B[there_B])
        figures |= spread(f"drift_{days}d_came", cosine_B[there_B & came_B])
        drawn.append((cosine_B[there_B], cosine_B[there_B & came_B]))
    draw_drift(drawn)
    return figures


def history(subgraph: Subgraph, corpus: Corpus) -> EventBatch:
    """Everything that the log has of all households."""
    return subgraph.pack(corpus.tokens())[1]


def only(batch: EventBatch, keep_T: Tensor) -> EventBatch:
    """The same users with some of their tokens."""
    length_B = torch.bincount(batch.user_T[keep_T], minlength=batch.users)
    offset_B1 = torch.cat([torch.zeros(1, dtype=torch.int64), length_B.cumsum(0)])
    return batch.picked(keep_T, offset_B1, torch.arange(batch.users))


def vectors(subgraph: Subgraph, batch: EventBatch, at: float | None) -> Tensor:
    """float32 [B, D] of the users at a moment; None: each user's last event."""
    parts = []
    with torch.inference_mode():
        for start in range(0, batch.users, USERS):
            part = select_users(batch, torch.arange(start, min(start + USERS, batch.users)))
            at_B = None if at is None else torch.full((part.users,), at, dtype=torch.float64)
            parts.append(subgraph(part, at_B))
    return torch.cat(parts)


def spread(name: str, cosine_B: Tensor) -> dict[str, float]:
    """The mean with its interval, and how households differ."""
    found = np.quantile(cosine_B.numpy(), [0.05, 0.5, 0.95])
    ends = {f"{name}_{part}": float(value) for part, value in zip(("p5", "median", "p95"), found, strict=True)}
    return named(name, interval(cosine_B)) | ends


def draw_drift(drawn: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Median, and where nine of ten households lie."""
    picture = {}
    for place, name in enumerate(("all households", "those that came since")):
        ends = np.array([np.quantile(pair[place].numpy(), [0.05, 0.5, 0.95]) for pair in drawn])
        picture[name] = Line(ends[:, 1].tolist(), ends[:, 0].tolist(), ends[:, 2].tolist())
    label = "cosine with the vector of that day"
    lines(PICTURE, AGES, picture, "days since", label, "Drift of a household's vector (band: nine of ten)")


def interval(value_N: Tensor) -> Interval:
    """Mean with its 95 % bootstrap interval over entities."""
    return bootstrap(value_N.double().numpy()[:, None], samples=500)[0]


def percentiles(value_S: Floats) -> Interval:
    """The first, and the 95 % interval of the others."""
    low, high = np.quantile(value_S[1:], [0.025, 0.975])
    return Interval(float(value_S[0]), float(low), float(high))


def named(name: str, found: Interval) -> dict[str, float]:
    """Three figures of one."""
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
