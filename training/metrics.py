"""Ranking metrics over ragged truth, in NumPy, one value per user.

Every function works on many users at once and keeps one number a user, because what is compared afterwards is
paired: the same users, two rankings. A user without any truth has no value (NaN) and is left out of every
mean.

Shapes: U users, K length of the ranked list, N items over all users, V catalogue with its reserved codes,
M columns of values, S bootstrap samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int32]


@dataclass(frozen=True)
class ItemSets:
    """Item codes of many users end to end: those of user u are `codes[offsets[u]:offsets[u + 1]]`.

    The codes of one user are distinct and ascend.
    """

    codes: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def from_pairs(cls, user_N: NDArray[np.int64], code_N: Codes, users: int) -> ItemSets:
        """Distinct (user, item) pairs in any order, repeats allowed, to sorted ragged rows."""
        pairs = np.unique((user_N.astype(np.int64) << 32) | code_N.astype(np.int64))
        offsets = np.searchsorted(pairs, np.arange(users + 1, dtype=np.int64) << 32)
        return cls((pairs & 0xFFFFFFFF).astype(np.int32), offsets.astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Items per user, int64 [U]."""
        return np.diff(self.offsets)

    @property
    def users(self) -> NDArray[np.int64]:
        """The user of every code, int64 [N]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.sizes)

    def slice(self, start: int, stop: int) -> ItemSets:
        """Users `start` to `stop`, renumbered from 0."""
        first, last = self.offsets[start], self.offsets[stop]
        return ItemSets(self.codes[first:last], self.offsets[start : stop + 1] - first)

    def contains(self, user_N: NDArray[np.int64], code_N: Codes) -> NDArray[np.bool_]:
        """Whether each (user, item) pair is among these rows, bool of the pairs' shape."""
        own = (self.users << 32) | self.codes.astype(np.int64)
        asked = (user_N.astype(np.int64) << 32) | code_N.astype(np.int64)
        if len(own) == 0:
            return np.zeros(asked.shape, dtype=np.bool_)
        at = np.minimum(np.searchsorted(own, asked), len(own) - 1)
        return np.asarray(own[at] == asked)

    def keep(self, mask_N: NDArray[np.bool_]) -> ItemSets:
        """The rows with only the codes where `mask_N` holds."""
        kept_before = np.concatenate([[0], np.cumsum(mask_N)])
        return ItemSets(self.codes[mask_N], kept_before[self.offsets].astype(np.int64))


def top_k(score_UV: NDArray[np.float32], k: int) -> Codes:
    """The k best items of every user, best first, int32 [U, k].

    Equal scores are ordered by the lower item code, so a ranking never depends on the sorting routine. An item scored
    −inf is not a candidate; a user with fewer than k candidates has −1 in the places left over.

    Raises:
        ValueError: if a score is NaN.
    """
    code_UM = _shortlist(score_UV, k)
    if code_UM is None:
        return _sorted_top_k(score_UV, k)
    listed_UM = np.where(code_UM >= 0, np.take_along_axis(score_UV, np.maximum(code_UM, 0), axis=1), -np.inf)
    place_UK = _sorted_top_k(listed_UM, k)
    return np.where(place_UK >= 0, np.take_along_axis(code_UM, np.maximum(place_UK, 0), axis=1), np.int32(-1))


def _shortlist(score_UV: NDArray[np.float32], k: int) -> Codes | None:
    """Codes that can be among the k best, ascending, −1 behind them, int32 [U, M]; None where that spares nothing.

    Of the largest scores of many disjoint sets of items, the k-th is reached by at least k items. Finding it takes one
    pass over the scores, a fifth of what a selection over all of them takes.
    """
    users, items = score_UV.shape
    sets = 8 * k
    depth = items // sets
    if depth < 4:
        return None
    best_US = score_UV[:, : depth * sets].reshape(users, depth, sets).max(axis=1)
    _refuse_nan(best_US, score_UV[:, depth * sets :])
    enough_U1 = np.partition(best_US, sets - k, axis=1)[:, sets - k, None]
    row, code = np.divmod(np.flatnonzero(score_UV >= enough_U1), items)
    length_U = np.bincount(row, minlength=users)
    most = int(length_U.max(initial=0))
    if most > items // 8:  # crowded by ties
        return None
    code_UM = np.full((users, most), -1, dtype=np.int32)
    code_UM[row, np.arange(len(row)) - np.repeat(np.cumsum(length_U) - length_U, length_U)] = code
    return code_UM


def _sorted_top_k(score_UV: NDArray[np.float32], k: int) -> Codes:
    users, items = score_UV.shape
    if k > items:
        filler = np.full((users, k - items), -1, dtype=np.int32)
        return np.concatenate([_sorted_top_k(score_UV, items), filler], axis=1)
    largest_UK = np.partition(score_UV, items - k, axis=1)[:, items - k :]
    _refuse_nan(largest_UK)  # NaN sorts last, so none hides below
    worst_U1 = largest_UK[:, :1]
    better_UV = score_UV > worst_U1
    spare_U1 = k - better_UV.sum(axis=1, keepdims=True)
    equal_UV = score_UV == worst_U1
    crowded_U = equal_UV.sum(axis=1) > spare_U1[:, 0]
    if crowded_U.any():
        some_UV = equal_UV[crowded_U]
        equal_UV[crowded_U] = some_UV & (np.cumsum(some_UV, axis=1, dtype=np.int32) <= spare_U1[crowded_U])
    chosen = np.flatnonzero(better_UV | equal_UV)  # exactly k in each row
    code_UK = (chosen % items).reshape(users, k).astype(np.int32)
    score_UK = np.take_along_axis(score_UV, code_UK, axis=1)
    order_UK = np.argsort(-score_UK, axis=1, kind="stable")  # stable: codes ascend within equal scores
    ranked_UK = np.take_along_axis(np.where(np.isneginf(score_UK), np.int32(-1), code_UK), order_UK, axis=1)
    return np.asarray(ranked_UK, dtype=np.int32)


def _refuse_nan(*scores: NDArray[np.float32]) -> None:
    if any(np.isnan(score).any() for score in scores):
        raise ValueError("a score is NaN; give −inf to an item that is not a candidate")


def hits(ranked_UK: Codes, truth: ItemSets) -> NDArray[np.bool_]:
    """Whether each ranked item belongs to its user's truth, bool [U, K]; −1 (no item) never does."""
    user_UK = np.broadcast_to(np.arange(len(ranked_UK), dtype=np.int64)[:, None], ranked_UK.shape)
    return np.asarray(truth.contains(user_UK, np.maximum(ranked_UK, 0)) & (ranked_UK >= 0))


def recall_at(hit_UK: NDArray[np.bool_], size_U: NDArray[np.int64], k: int) -> Floats:
    """Hits among the first k ÷ all of the truth, float64 [U]; NaN where there is no truth.

    The whole truth divides, not min(k, truth): a basket of 30 items can't reach 1 at k = 10.
    """
    return _ratio(hit_UK[:, :k].sum(axis=1).astype(np.float64), size_U.astype(np.float64))


def ndcg_at(hit_UK: NDArray[np.bool_], size_U: NDArray[np.int64], k: int) -> Floats:
    """Normalised discounted cumulative gain with gains 0 and 1, float64 [U]; NaN where there is no truth.

    The ideal list stops at min(k, truth), so a perfect list scores 1 whatever the size of the truth.
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 20(4), 2002.
    """
    discount_K = 1.0 / np.log2(np.arange(2, k + 2, dtype=np.float64))
    ideal_K = np.concatenate([[0.0], np.cumsum(discount_K)])
    gain_U = hit_UK[:, :k] @ discount_K[: hit_UK.shape[1]]
    return _ratio(gain_U, ideal_K[np.minimum(size_U, k)])


def weighted_recall_at(
    ranked_UK: Codes, hit_UK: NDArray[np.bool_], weight_V: Floats, total_U: Floats, k: int
) -> Floats:
    """Weight of the hits among the first k ÷ weight of the whole truth, float64 [U].

    With weights of 1 ÷ popularity a hit on what everybody buys counts little: the self-normalised
    inverse-propensity estimate (γ = 1) of Yang et al., "Unbiased offline recommender evaluation for
    missing-not-at-random implicit feedback", RecSys 2018. `total_U` is the weight of the truth, 0 without
    any.
    """
    weight_UK = weight_V[np.maximum(ranked_UK[:, :k], 0)] * hit_UK[:, :k]
    return _ratio(weight_UK.sum(axis=1), total_U)


def recommended(ranked_UK: Codes, k: int, items: int) -> NDArray[np.bool_]:
    """Which items stand among anybody's first k, bool [V]. Chunks of users are joined with `|`."""
    seen_V = np.zeros(items, dtype=np.bool_)
    first = ranked_UK[:, :k]
    seen_V[first[first >= 0]] = True
    return seen_V


def coverage(recommended_V: NDArray[np.bool_], catalogue: int) -> float:
    """Share of the catalogue that was recommended to anybody, 0 to 1."""
    return float(recommended_V.sum() / catalogue)


@dataclass(frozen=True)
class Interval:
    """A mean over users and the bootstrap interval around it."""

    mean: float
    low: float
    high: float


def bootstrap(value_UM: Floats, seed: int = 0, samples: int = 2000, level: float = 0.95) -> list[Interval]:
    """Means over users with percentile bootstrap intervals, one for each of the M columns.

    The users are what is resampled, since the items of one user are no independent draws, and every column
    sees the same samples. Users without a value in a column (NaN) are left out of that column. Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    users, columns = value_UM.shape
    known_UM = ~np.isnan(value_UM)
    both = np.concatenate([np.where(known_UM, value_UM, 0.0), known_UM], axis=1)
    rng = np.random.default_rng(seed)
    block = max(1, 4_000_000 // max(users, 1))  # counts of at most 32 MB at a time
    sums = [np.zeros((0, 2 * columns))]
    for done in range(0, samples if users else 0, block):
        size = min(block, samples - done)
        drawn = rng.integers(0, users, size=(size, users)) + np.arange(size)[:, None] * users
        sums.append(np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users) @ both)
    sum_S = np.concatenate(sums)
    mean_SM = _ratio(sum_S[:, :columns], sum_S[:, columns:])
    return [_percentiles(mean(value_UM[:, m]), mean_SM[:, m], level) for m in range(columns)]


def paired_bootstrap(a_U: Floats, b_U: Floats, seed: int = 0, samples: int = 10_000, level: float = 0.95) -> Interval:
    """Mean of a − b over the users who have both values, with its bootstrap interval.

    Pairing takes the difference between users, far larger than the one between systems, out of the interval.

    Raises:
        ValueError: if the two do not hold one value for each of the same users.
    """
    if a_U.shape != b_U.shape:
        raise ValueError(f"a paired comparison needs the same users on both sides, got {len(a_U)} and {len(b_U)}")
    return bootstrap((a_U - b_U)[:, None], seed=seed, samples=samples, level=level)[0]


def _percentiles(centre: float, mean_S: Floats, level: float) -> Interval:
    mean_S = mean_S[~np.isnan(mean_S)]
    if len(mean_S) == 0:
        return Interval(centre, float("nan"), float("nan"))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(mean_S, [tail, 1.0 - tail])
    return Interval(centre, float(low), float(high))


def mean(value_U: Floats) -> float:
    """Mean over the users who have a value; NaN when nobody has."""
    known = ~np.isnan(value_U)
    return float(value_U[known].mean()) if known.any() else float("nan")


def _ratio(above: Floats, below: Floats) -> Floats:
    out: Floats = np.full(above.shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out
