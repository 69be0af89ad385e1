"""Since when the items of a log are met, and how often a log asks for one that nobody had met before."""

from __future__ import annotations

import torch
from torch import Tensor

from foundation.item_age import NEVER, UNKNOWN_AGE, ItemAges, moments
from foundation.jagged import EventBatch
from foundation.repeat import FIRST_ITEM
from tokenization.tokenizer.tokenizer import Tokenizer

LATELY = 1 / 8
"""The last part of a log's span, whose first meetings are those of new items; and the first part, whose are not: what
is met there for the first time may have been met for years before the log began."""
_SAME = 1e-3  # seconds by which a time may differ for having been told in another way


def item_ages(events: EventBatch, end: float, recent_V: Tensor, tokenizer: Tokenizer, item_column: int) -> ItemAges:
    """Ages of all items as far as these events, of which the last was at `end`, tell them.

    An item is met from its release on, where the items table says that, else from its first meeting in the log. Nobody
    knows the age of one that was there when the log begins, nor any age in a log of positions, which every user counts
    for themselves. recent_V: as in `ItemContent`.
    """
    first_V = first_meetings(events, item_column, len(tokenizer.items))
    met_V, as_of_1 = torch.isfinite(first_V), moments(torch.tensor([end], dtype=torch.float64))
    nothing_V = torch.zeros(len(first_V))
    if tokenizer.schema.time is None or not bool(met_V.any()):
        return ItemAges(torch.where(met_V, UNKNOWN_AGE, NEVER), as_of_1, nothing_V, nothing_V > 0)
    begin = float(first_V[met_V].min())
    early, late = begin + LATELY * (end - begin), end - LATELY * (end - begin)
    told_V = torch.nan_to_num(torch.from_numpy(tokenizer.items.first_seen), nan=torch.inf)
    released_V = told_V < first_V - _SAME
    since_V = moments(torch.where(met_V, torch.minimum(first_V, told_V), 0.0))
    since_V = torch.where(~released_V & (first_V < early), UNKNOWN_AGE, since_V)
    unmet_V = first_V >= late
    unmet_V[:FIRST_ITEM] = False
    debut_V = nothing_V.clone()
    debut_V[: len(recent_V)] = recent_V
    return ItemAges(torch.where(met_V, since_V, NEVER), as_of_1, debut_V * unmet_V, unmet_V)


def cold_rate(events: EventBatch, end: float, item_column: int) -> float:
    """Share of the meetings in the last part of the log's span whose item nobody had met before that part: what a model
    that was trained until then would have been asked for without having seen it. 0 where the log holds no item."""
    item_T, time_T = events.facet_TF[:, item_column], _seconds(events)
    item_T, time_T = item_T[item_T >= FIRST_ITEM], time_T[item_T >= FIRST_ITEM]
    if not len(item_T):
        return 0.0
    first_V = _firsts(item_T, time_T, int(item_T.max()) + 1)
    since = end - LATELY * (end - float(time_T.min()))
    late_T = time_T >= since
    return float((first_V[item_T[late_T]] >= since).double().mean())


def first_meetings(events: EventBatch, item_column: int, codes: int) -> Tensor:
    """float64 [V] epoch seconds at which each item was met first; inf for one that nobody met."""
    return _firsts(events.facet_TF[:, item_column], _seconds(events), codes)


def _seconds(events: EventBatch) -> Tensor:
    return events.time_T + events.start_B[events.user_T]


def _firsts(item_T: Tensor, time_T: Tensor, codes: int) -> Tensor:
    first_V = torch.full((codes,), torch.inf, dtype=torch.float64).scatter_reduce_(0, item_T, time_T, "amin")
    first_V[:FIRST_ITEM] = torch.inf
    return first_V
