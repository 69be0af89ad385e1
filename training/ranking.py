"""Rank the whole catalogue for every judged user and say how good the lists are.

Three slices, each a figure per user:

- all: the distinct items of the target group; nothing is filtered from the ranking.
- repeat: only those the user had before; the ranking is the same. Users without one are left out.
- new: only those the user never had; the user's earlier items are taken out of the ranking. Users without one
are
  left out.

Scores of all users never exist at once: a chunk of users is scored, ranked to its best 50 and forgotten.
Shapes: n users of a chunk, U users, V items with the reserved codes, K places of a ranked list, M figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training import metrics
from training.errors import EvaluationError
from training.holdout import UNKNOWN, Holdout, Requests, Scorer
from training.metrics import Codes, Floats, Interval, ItemSets

CUTOFFS = (10, 50)
DEPTH = max(CUTOFFS)
CHUNK_BYTES = 24 << 20  # scores of one chunk; larger chunks fall out of the cache and rank no faster

Figures = dict[str, Any]
Progress = Callable[[str, int, int], None]


class Slice(StrEnum):
    """Which part of the truth is asked for."""

    ALL = "all"
    REPEAT = "repeat"
    NEW = "new"


@dataclass(frozen=True)
class Judged:
    """One scorer's figures, one value per user.

    Attributes:
        values: slice → metric → float64 [U]; NaN for users that the slice leaves out.
        coverage: share of the catalogue among anybody's first 10.
        top: the first 10 items of every user in the full ranking, int32 [U, 10]; −1 where there are fewer.
    """

    values: dict[Slice, dict[str, Floats]]
    coverage: float
    top: Codes


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found: scorers by name, all over the same users."""

    user_ids: pa.Array
    judged: dict[str, Judged]
    protocol: Figures = field(default_factory=dict)

    def compare(self, one: str, other: str, metric: str = "ndcg@10", seed: int = 0) -> Interval:
        """Mean difference of two scorers in the slice `all`, paired over users, with its 95 % interval."""
        a, b = (self.judged[name].values[Slice.ALL][metric] for name in (one, other))
        return metrics.paired_bootstrap(a, b, seed=seed)

    def figures(self, seed: int = 0) -> Figures:
        """Everything as plain numbers, nested: scorer → slice → metric, scorer → coverage@10, and beside them
        `intervals` (the same names, each with low and high), `model_minus_personal_decayed`, `protocol`."""
        out: Figures = {}
        intervals: Figures = {}
        for name, judged in self.judged.items():
            flat = {(s, m): v for s, of in judged.values.items() for m, v in of.items()}
            found = metrics.bootstrap(np.stack(list(flat.values()), axis=1), seed=seed)
            out[name] = {"coverage@10": judged.coverage}
            intervals[name] = {}
            for (part, metric), interval in zip(flat, found, strict=True):
                out[name].setdefault(part.value, {})[metric] = _number(interval.mean)
                ends = {"low": _number(interval.low), "high": _number(interval.high)}
                intervals[name].setdefault(part.value, {})[metric] = ends
        if {"model", "personal_decayed"} <= self.judged.keys():
            gap = self.compare("model", "personal_decayed", seed=seed)
            out["model_minus_personal_decayed"] = {"ndcg@10": gap.mean, "low": gap.low, "high": gap.high}
        return {**out, "intervals": intervals, "protocol": self.protocol}


def evaluate(
    holdout: Holdout, scorers: Mapping[str, Scorer], items: int, progress: Progress | None = None
) -> Evaluation:
    """Judge every scorer on the same requests.

    Args:
        holdout: requests and truth.
        scorers: by the name that their figures will have.
        items: size of the catalogue with its reserved codes, V.
        progress: told "evaluate", users done, users in all.

    Raises:
        EvaluationError: if a scorer returns another shape than [n, V], or NaN.
    """
    asked = _Asked.of(holdout, items)
    judged = _judge(scorers, asked, progress)
    sizes = {part.value: int((asked.sizes[part] > 0).sum()) for part in Slice}
    protocol: Figures = {
        "users": len(holdout),
        "users_with_truth": sizes,
        "users_without_history": holdout.cold,
        "catalogue": items - UNKNOWN - 1,
        "told_time_and_context": holdout.told,
        "unknown_items_in_truth": int(holdout.unknown.sum()),
    }
    return Evaluation(holdout.user_ids, judged, protocol)


@dataclass(frozen=True)
class _Asked:
    """A holdout with its truth by slice and the weights for the debiased figure."""

    holdout: Holdout
    items: int
    truth: dict[Slice, ItemSets]
    sizes: dict[Slice, NDArray[np.int64]]
    weight_V: Floats
    weight_U: Floats

    @classmethod
    def of(cls, holdout: Holdout, items: int) -> _Asked:
        truth = holdout.truth
        had = holdout.seen.contains(truth.users, truth.codes)
        parts = {Slice.ALL: truth, Slice.REPEAT: truth.keep(had), Slice.NEW: truth.keep(~had)}
        unknown = {Slice.ALL: holdout.unknown, Slice.REPEAT: 0 * holdout.unknown, Slice.NEW: holdout.unknown}
        weight_V: Floats = 1.0 / (1.0 + np.bincount(holdout.before.item, minlength=items).astype(np.float64))
        known_U = np.bincount(truth.users, weights=weight_V[truth.codes], minlength=len(truth)).astype(np.float64)
        sizes = {part: parts[part].sizes + unknown[part] for part in Slice}
        return cls(holdout, items, parts, sizes, weight_V, known_U + holdout.unknown)


@dataclass
class _Sheet:
    """What is noted of one scorer, chunk after chunk."""

    values: list[dict[tuple[Slice, str], Floats]]
    tops: list[Codes]
    covered_V: NDArray[np.bool_]

    def judged(self) -> Judged:
        whole = {key: np.concatenate([part[key] for part in self.values]) for key in self.values[0]}
        by_slice = {part: {m: v for (s, m), v in whole.items() if s is part} for part in Slice}
        covered = metrics.coverage(self.covered_V, len(self.covered_V) - UNKNOWN - 1)
        return Judged(by_slice, covered, np.concatenate(self.tops))


def _judge(scorers: Mapping[str, Scorer], asked: _Asked, progress: Progress | None) -> dict[str, Judged]:
    """Every scorer sees a chunk before the next one is cut, so those that share work can share it."""
    chunk = max(1, CHUNK_BYTES // (4 * asked.items))
    sheets = {name: _Sheet([], [], np.zeros(asked.items, dtype=np.bool_)) for name in scorers}
    for start, requests in asked.holdout.chunks(chunk):
        for name, scorer in scorers.items():
            score_nV = _scores(name, scorer, requests, asked.items)
            values, ranked_nK = _judge_chunk(name, score_nV, asked, start)
            sheet = sheets[name]
            sheet.values.append(values)
            sheet.tops.append(ranked_nK[:, :10])
            sheet.covered_V |= metrics.recommended(ranked_nK, 10, asked.items)
        if progress:
            progress("evaluate", start + len(requests), len(asked.holdout))
    return {name: sheet.judged() for name, sheet in sheets.items()}


def _scores(name: str, scorer: Scorer, requests: Requests, items: int) -> NDArray[np.float32]:
    """Scores of a chunk, the evaluator's own copy, without the reserved codes."""
    score_nV = np.array(scorer(requests), dtype=np.float32, order="C")
    if score_nV.shape != (len(requests), items):
        wanted = (len(requests), items)
        raise EvaluationError(f"scorer {name!r} returned shape {score_nV.shape}; {wanted} was asked for")
    score_nV[:, : UNKNOWN + 1] = -np.inf
    return score_nV


def _judge_chunk(
    name: str, score_nV: NDArray[np.float32], asked: _Asked, start: int
) -> tuple[dict[tuple[Slice, str], Floats], Codes]:
    stop = start + len(score_nV)
    seen = asked.holdout.seen.slice(start, stop)
    full_nK = _ranked(name, score_nV)
    score_nV[seen.users, seen.codes] = -np.inf  # from here on only what is new to each user
    ranked = {Slice.ALL: full_nK, Slice.REPEAT: full_nK, Slice.NEW: _ranked(name, score_nV)}
    values: dict[tuple[Slice, str], Floats] = {}
    for part in Slice:
        size_n = asked.sizes[part][start:stop]
        hit_nK = metrics.hits(ranked[part], asked.truth[part].slice(start, stop))
        for k in CUTOFFS:
            values[part, f"recall@{k}"] = metrics.recall_at(hit_nK, size_n, k)
        values[part, "ndcg@10"] = metrics.ndcg_at(hit_nK, size_n, 10)
        if part is Slice.ALL:
            total_n = asked.weight_U[start:stop]
            values[part, "debiased_recall@10"] = metrics.weighted_recall_at(
                full_nK, hit_nK, asked.weight_V, total_n, 10
            )
    return values, full_nK


def _ranked(name: str, score_nV: NDArray[np.float32]) -> Codes:
    try:
        return metrics.top_k(score_nV, DEPTH)
    except ValueError as error:
        raise EvaluationError(f"scorer {name!r}: {error}") from error


def _number(value: float) -> float | None:
    """NaN has no place in JSON: a figure that nobody has is null."""
    return None if math.isnan(value) else value
