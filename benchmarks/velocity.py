"""How soon a new product is recommended as well as an old one that sells as much.

Of everything that users take in the held-out part and never had before, the place of the item in the model's ranking
of all items, as log2: a difference of 1 is a place twice as far down. New is what was first met within eight weeks
before the cut, or never; old what had been met for sixteen weeks. A new item that k users take in the part is compared
with the old ones that as many take, by how often anybody had met the new one before the cut.

Shapes: U users, P pairs (user, item), V items with the reserved codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.cold_items import ends
from tokenization.corpus.corpus import Corpus
from training import metrics
from training.holdout import Columns, Holdout, Part, Scorer, hold_out
from training.metrics import Floats, Interval
from training.rows import list_values

DAY = 86_400.0
NEW, OLD = 56.0, 112.0
MEETINGS = (0, 1, 2, 4, 8, 16, 32)
"""Bins of how often a new item was met: from each of these up to the next one."""
_TAKERS = (1, 2, 3, 5, 9, 17)
_CHUNK = 128
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Debuts:
    """Pairs of a user and an item that is new to the user, taken in the part.

    user_P: place among the judged users of `held`. met_P: meetings of the item before the cut. taken_P: bin of how many
    users take it in the part. new_P, old_P: as above; an item may be neither.
    """

    held: Holdout
    user_P: Ints
    item_P: Ints
    met_P: Ints
    taken_P: Ints
    new_P: NDArray[np.bool_]
    old_P: NDArray[np.bool_]


def debuts(corpus: Corpus, part: Part) -> Debuts:
    """What users take in a part of a log that is split by time, and never had before."""
    tokens, split, columns = corpus.tokens(), corpus.split, Columns.of(corpus.tokenizer)
    held, codes = hold_out(tokens, columns, split, part, told=False), len(corpus.tokenizer.items)
    begin, end = ends(split, part)
    time_T, offset_R = list_values(tokens["time"])
    item_T, _ = list_values(tokens[columns.item])
    row_T = np.repeat(np.arange(len(offset_R) - 1), np.diff(offset_R))
    count_V = np.bincount(held.before.item, minlength=codes)
    first_V = np.full(codes, np.inf)
    np.minimum.at(first_V, held.before.item, held.before.time)
    inside_T = (time_T >= begin) & (time_T < end) & (item_T > 1) & np.isin(row_T, held.asked.row)
    pair_P = np.unique(row_T[inside_T] * codes + item_T[inside_T])
    pair_P = np.setdiff1d(pair_P, np.unique(held.before.row * codes + held.before.item))
    row_P, item_P = np.divmod(pair_P, codes)
    takers_V = np.bincount(item_P, minlength=codes)
    age_P = (begin - first_V[item_P]) / DAY
    return Debuts(
        held=held,
        user_P=np.searchsorted(held.asked.row, row_P),
        item_P=item_P,
        met_P=count_V[item_P],
        taken_P=np.searchsorted(_TAKERS, takers_V[item_P], side="right"),
        new_P=age_P <= NEW,  # never met: an age of minus infinity
        old_P=age_P > OLD,
    )


def places(found: Debuts, scorer: Scorer) -> Floats:
    """[P] log2 of the place of each pair's item in the ranking of all items, from 0; ties share the best place."""
    place_P = np.zeros(len(found.item_P))
    bounds = np.searchsorted(found.user_P, np.arange(len(found.held) + 1))
    for start, requests in found.held.chunks(_CHUNK):
        for user, score_V in enumerate(np.asarray(scorer(requests)), start):
            mine = slice(bounds[user], bounds[user + 1])
            sorted_V = np.sort(score_V)
            place_P[mine] = len(sorted_V) - np.searchsorted(sorted_V, score_V[found.item_P[mine]], side="right")
    return np.log2(place_P + 1)


def behind(found: Debuts, place_P: Floats) -> list[Interval]:
    """For each bin of meetings, how many doublings new items stand behind old ones that sell as much, with the interval
    over users; below 0 they stand before them."""
    old = found.old_P
    count = np.bincount(found.taken_P[old], minlength=len(_TAKERS) + 1)
    total = np.bincount(found.taken_P[old], weights=place_P[old], minlength=len(_TAKERS) + 1)
    usual = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    gap_P = place_P - usual[found.taken_P]
    bin_P = np.searchsorted(MEETINGS, found.met_P, side="right") - 1
    value_UM = np.full((len(found.held), len(MEETINGS)), np.nan)
    for column in range(len(MEETINGS)):
        chosen = found.new_P & (bin_P == column) & ~np.isnan(gap_P)
        number_U = np.bincount(found.user_P[chosen], minlength=len(found.held))
        sum_U = np.bincount(found.user_P[chosen], weights=gap_P[chosen], minlength=len(found.held))
        np.divide(sum_U, number_U, out=value_UM[:, column], where=number_U > 0)
    return metrics.bootstrap(value_UM)


def caught_up(gaps: list[Interval]) -> float:
    """Meetings from which on a new item stands no further down than an old one, as far as the interval tells; inf where
    it never does."""
    return next((float(met) for met, gap in zip(MEETINGS, gaps, strict=True) if gap.low <= 0.0), float("inf"))
