"""Products that nobody had met before a cut: who takes which of them afterwards, and how well that is foretold.

One request a user, made at the cut without any context; the truth is every cold product that the user takes in the
part. Ranked are the cold products alone: those that nobody met before the cut and somebody meets in the part. Which
those are is known only afterwards, but a shop knows its new products, and no scorer is told who takes one.

Shapes: U users, V items with the reserved codes, C cold items, X dimensions of content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenization.corpus.corpus import Corpus
from tokenization.items.content import ItemTable
from tokenization.tokenizer.split import Split
from training import metrics
from training.holdout import Columns, Holdout, ItemEvents, Part, Scorer, hold_out
from training.metrics import Floats, ItemSets
from training.rows import list_values

DAY = 86_400.0
CHUNK = 128
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class ColdItems:
    """Users who take cold products after a cut. held: their requests. cold_C: codes of the cold products, ascending.
    truth: of each user, as places in cold_C. at: the cut, epoch seconds."""

    held: Holdout
    cold_C: NDArray[np.int64]
    truth: ItemSets
    at: float

    def __len__(self) -> int:
        return len(self.held)


def ends(split: Split, part: Part) -> tuple[float, float]:
    """When a part of a log that is split by time begins and ends, epoch seconds."""
    begin, end = (split.time, np.inf) if part is Part.TEST else (split.validation, split.time)
    assert begin is not None
    assert end is not None
    return begin, end


def cold_items(corpus: Corpus, part: Part) -> ColdItems:
    """The cold products of a part of a log that is split by time, and who takes them."""
    tokens, split = corpus.tokens(), corpus.split
    columns = Columns.of(corpus.tokenizer)
    held = hold_out(tokens, columns, split, part, told=False)
    begin, end = ends(split, part)
    time_T, offset_R = list_values(tokens["time"])
    item_T, _ = list_values(tokens[columns.item])
    row_T = np.repeat(np.arange(len(offset_R) - 1), np.diff(offset_R))
    met_V = np.zeros(len(corpus.tokenizer.items), np.bool_)
    met_V[item_T[time_T < begin]] = True
    met_V[:2] = True
    taken_T = (time_T >= begin) & (time_T < end) & ~met_V[item_T] & np.isin(row_T, held.asked.row)
    cold_C = np.unique(item_T[taken_T]).astype(np.int64)
    row_U = np.unique(row_T[taken_T])
    chosen_U = np.searchsorted(held.asked.row, row_U)
    user_N, place_N = np.searchsorted(row_U, row_T[taken_T]), np.searchsorted(cold_C, item_T[taken_T])
    return ColdItems(
        _only(held, chosen_U), cold_C, ItemSets.from_pairs(user_N, place_N.astype(np.int32), len(row_U)), begin
    )


def recall(cold: ColdItems, score_UC: Scores, k: int = 50) -> Floats:
    """[U] share of the cold products that a user took among the first k of all of them."""
    return metrics.recall_at(metrics.hits(metrics.top_k(score_UC, k), cold.truth), cold.truth.sizes, k)


def scores(cold: ColdItems, scorers: Mapping[str, Scorer]) -> dict[str, Scores]:
    """[U, C] of each scorer: what it says of the cold products."""
    found: dict[str, list[Scores]] = {name: [] for name in scorers}
    for _, requests in cold.held.chunks(CHUNK):
        for name, scorer in scorers.items():
            found[name].append(np.asarray(scorer(requests))[:, cold.cold_C])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def category_popularity(cold: ColdItems, items: ItemTable, kind: str, days: float = 28.0) -> Scores:
    """[U, C]: how often the items of each cold product's category were met lately, the same for everybody; among
    products of one category, in the order of their codes."""
    before = cold.held.before
    recent = before.time >= cold.at - days * DAY
    category_V = items.categories[kind]
    count_S = np.bincount(category_V[before.item[recent]], minlength=items.category_sizes[kind])
    return np.broadcast_to(count_S[category_V[cold.cold_C]].astype(np.float32), (len(cold), len(cold.cold_C)))


@dataclass(frozen=True)
class Neighbours:
    """Settings of content-kNN. content: `text`, `categories` or `both`; half_life: days after which a meeting counts
    half as much, inf for alike."""

    content: str
    half_life: float


def content_neighbours(cold: ColdItems, items: ItemTable, settings: Neighbours) -> Scores:
    """[U, C] likeness of each cold product's content to the decayed mean of the content of what the user met: cosine of
    texts, share of the product's categories in the history, or both."""
    found_UC = np.zeros((len(cold), len(cold.cold_C)), np.float32)
    place_N, item_N, weight_N = _histories(cold, settings.half_life)
    if settings.content in ("text", "both"):
        vectors = items.distinct_vectors
        profile_UX = _summed(place_N, weight_N, len(cold), vectors[items.text_of[item_N]])
        profile_UX /= np.maximum(np.linalg.norm(profile_UX, axis=1, keepdims=True), 1e-9)
        found_UC += profile_UX @ vectors[items.text_of[cold.cold_C]].T
    if settings.content in ("categories", "both"):
        for kind, size in items.category_sizes.items():
            share_US = np.zeros((len(cold), size), np.float32)
            np.add.at(share_US, (place_N, items.categories[kind][item_N]), weight_N)
            share_US /= np.maximum(np.linalg.norm(share_US, axis=1, keepdims=True), 1e-9)
            found_UC += share_US[:, items.categories[kind][cold.cold_C]] / len(items.category_sizes)
    return found_UC


def grid() -> Iterator[Neighbours]:
    """The settings that content-kNN is tuned over."""
    for content in ("text", "categories", "both"):
        for half_life in (14.0, 56.0, 112.0, np.inf):
            yield Neighbours(content, half_life)


def _only(held: Holdout, chosen_U: NDArray[np.int64]) -> Holdout:
    """The same, of some users; their truth is another, and stays empty."""
    asked = replace(
        held.asked,
        row=held.asked.row[chosen_U],
        known=held.asked.known[chosen_U],
        at=held.asked.at[chosen_U],
        context=held.asked.context[chosen_U],
    )
    nobody = ItemSets(np.zeros(0, np.int32), np.zeros(len(chosen_U) + 1, np.int64))
    return replace(held, asked=asked, truth=nobody, seen=nobody, unknown=held.unknown[chosen_U])


def _histories(cold: ColdItems, half_life: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The user's place, item and weight of every meeting before the cut."""
    before: ItemEvents = cold.held.before
    place_R = np.full(cold.held.tokens.num_rows, -1)
    place_R[cold.held.asked.row] = np.arange(len(cold))
    place_N = place_R[before.row]
    mine = place_N >= 0
    weight_N = np.exp2(-(cold.at - before.time[mine]) / (half_life * DAY)).astype(np.float32)
    return place_N[mine], before.item[mine].astype(np.int64), weight_N


def _summed(place_N: NDArray[np.int64], weight_N: NDArray[np.float32], users: int, row_NX: Scores) -> Scores:
    out_UX = np.zeros((users, row_NX.shape[1]), np.float32)
    bounds = np.searchsorted(place_N, np.arange(users + 1))
    for user in range(users):  # of users, not of events
        mine = slice(bounds[user], bounds[user + 1])
        out_UX[user] = weight_N[mine] @ row_NX[mine]
    return out_UX


def user_ids(cold: ColdItems) -> pa.Array:
    """Ids of the users that are judged."""
    return cold.held.user_ids
