"""What a model has to beat: popularity, personal counts, and personal counts that fade.

Each baseline is a function from the item events before the split to a `Scorer`, and a scorer counts only what
its requests show it, as the model does. Scores are ranks: only their order means anything.

Ties are broken by popularity of the last 28 days before the split, then by the lower item code (the item seen
first). That matters: with few distinct counts, ties alone move the NDCG@10 of personal counts on grocery
baskets between .184 and .191. Items a user never had follow those it had, in the order of popularity.

Shapes: n requests of a chunk, V items with the reserved codes, N item events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from training.holdout import UNKNOWN, Columns, ItemEvents, Requests, Scorer
from training.metrics import Codes, Floats
from training.rows import list_values

DAY = 86400.0
POPULARITY_DAYS = 28.0
HALF_LIFE_DAYS = 112.0

Weights = Callable[[Floats], Floats]  # age of an event at the request, in seconds, to what it counts


def item_popularity(before: ItemEvents, items: int, at: float, days: float = POPULARITY_DAYS) -> Floats:
    """How often each item occurs in the `days` before `at`, float64 [V]; `days` may be infinite.

    Args:
        before: item events before the split, of all users.
        items: size of the catalogue with its reserved codes, V.
        at: seconds since the epoch; events at or after it are not counted.
        days: length of the window.
    """
    since = -np.inf if np.isinf(days) else at - days * DAY
    recent = (before.time >= since) & (before.time < at)
    return np.bincount(before.item[recent], minlength=items).astype(np.float64)


def popularity(popularity_V: Floats) -> Scorer:
    """Everybody gets the most popular items."""
    order_V = _order(popularity_V)

    def score(requests: Requests) -> NDArray[np.float32]:
        return np.broadcast_to(order_V, (len(requests), len(order_V)))

    return score


def personal_count(popularity_V: Floats, columns: Columns) -> Scorer:
    """The items a user had most often, ties by popularity.

    One token counts one: an item bought three times in one basket counts once where the schema merges it. What met no
    interest counts nothing.

    Args:
        popularity_V: `item_popularity`, which breaks ties.
        columns: those of the token table.
    """
    return _personal(popularity_V, columns, np.ones_like)


def personal_decayed(popularity_V: Floats, columns: Columns, half_life: float = HALF_LIFE_DAYS * DAY) -> Scorer:
    """Personal counts in which an event counts half as much for every `half_life` that has passed, ties by
    popularity.

    Args:
        popularity_V: `item_popularity`, which breaks ties.
        columns: those of the token table.
        half_life: in seconds (in positions for a log without times).
    """
    return _personal(popularity_V, columns, lambda age: np.exp2(-age / half_life))


def best_half_life(judge: Callable[[float], float], half_lives: Iterable[float]) -> float:
    """The half-life with the highest figure on *validation* data; the shorter one of equals.

    Args:
        judge: figure of one half-life, such as NDCG@10 of `personal_decayed` on the validation holdout.
        half_lives: those to try, in the unit of the log's clock.
    """
    return max(sorted(half_lives), key=judge)


def _order(value_V: Floats) -> NDArray[np.float32]:
    """Values as dense ranks within [0, 1), equal for equal values; the reserved codes are no candidates."""
    distinct, rank_V = np.unique(value_V, return_inverse=True)
    order_V = (rank_V / len(distinct)).astype(np.float32)
    order_V[: UNKNOWN + 1] = -np.inf
    return order_V


def _personal(popularity_V: Floats, columns: Columns, weights: Weights) -> Scorer:
    order_V = _order(popularity_V)

    def score(requests: Requests) -> NDArray[np.float32]:
        row_N, code_N, age_N = _events(requests, columns)
        pair, place_N = np.unique((row_N << 32) | code_N.astype(np.int64), return_inverse=True)
        row, code = pair >> 32, pair & 0xFFFFFFFF
        total = np.bincount(place_N, weights=weights(age_N), minlength=len(pair)).astype(np.float64)
        score_nV = np.repeat(order_V[None], len(requests), axis=0)
        score_nV[row, code] = _ranks(row, total, popularity_V[code])
        return score_nV

    return score


def _ranks(row: NDArray[np.int64], first: Floats, second: Floats) -> NDArray[np.float32]:
    """1, 2, … within each row by `first`, then `second`; equal for equal pairs.

    Ranks rather than sums of both, since float32 can't hold a count and a tie-breaker exactly.
    """
    order = np.lexsort((second, first, row))
    changed = np.zeros(len(order), dtype=np.bool_)
    for key in (row, first, second):
        changed[1:] |= np.diff(key[order]) != 0
    dense = np.cumsum(changed)
    start = np.searchsorted(row[order], row[order])  # where each row begins; row is ascending
    rank = np.empty(len(order), dtype=np.float32)
    rank[order] = 1 + dense - dense[start]
    return rank


def _events(requests: Requests, columns: Columns) -> tuple[NDArray[np.int64], Codes, Floats]:
    """The known items in the histories that met interest: index of the request, item code, age at the request."""
    code_T, offsets = list_values(requests.history[columns.item])
    time_T, _ = list_values(requests.history["time"])
    row_T = np.repeat(np.arange(len(requests), dtype=np.int64), np.diff(offsets))
    known = (code_T > UNKNOWN) & columns.wanted(requests.history)
    return row_T[known], code_T[known], requests.at[row_T[known]] - time_T[known]
