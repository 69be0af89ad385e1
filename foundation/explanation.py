"""Which past events moved a score: naive occlusion, one event left out at a time (Zeiler & Fergus, arXiv:1311.2901)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from foundation.errors import ModelError
from foundation.jagged import EventBatch, offsets_of
from foundation.repeat import FIRST_ITEM
from foundation.subgraph import Subgraph

COPIES = 64  # histories scored at a time


def occlusion(
    subgraph: Subgraph,
    tokens: pa.Table,
    item_code: int,
    at: float | None = None,
    context_C: Tensor | None = None,
    last: int = 128,
) -> pa.Table:
    """How much the score of one item falls when each of a user's last events is left out.

    tokens: one row of a token table. at: epoch seconds of the request. context_C: int64 [C], 0 = not told.
    Returns position (token of the row), item_id (null without one), time (epoch s), weight (score − score
    without the event), heaviest first. Raises ModelError for several users or an item that is no candidate.
    """
    if tokens.num_rows != 1:
        raise ModelError(f"explain one user at a time, got {tokens.num_rows} rows")
    if not FIRST_ITEM <= item_code < len(subgraph.tokenizer.items):
        raise ModelError(f"item code {item_code} is no candidate of this model")
    _, history = subgraph.pack(tokens)
    position_N = torch.arange(max(history.tokens - last, 0), history.tokens)
    moment = float(history.start_B[0] + history.time_T[-1]) if at is None and history.tokens else at
    full = _scores(subgraph, [history], item_code, moment, context_C)
    without = [_without(history, int(position)) for position in position_N]
    weight_N = full - _scores(subgraph, without, item_code, moment, context_C)
    order = torch.argsort(weight_N, descending=True, stable=True)
    position_N = position_N[order]
    item_N = history.facet_TF[position_N, subgraph.model.config.item_column].numpy()
    return pa.table(
        {
            "position": pa.array(position_N.numpy()),
            "item_id": subgraph.tokenizer.items.ids.decode(item_N.astype(np.int32)),
            "time": pa.array((history.start_B[0] + history.time_T[position_N]).numpy()),
            "weight": pa.array(weight_N[order].numpy()),
        }
    )


@torch.inference_mode()
def _scores(
    subgraph: Subgraph, histories: list[EventBatch], item_code: int, at: float | None, context_C: Tensor | None
) -> Tensor:
    item_VD = subgraph.item_vectors()
    parts = []
    for start in range(0, len(histories), COPIES):
        batch = _joined(histories[start : start + COPIES])
        at_B = None if at is None else torch.full((batch.users,), at, dtype=torch.float64)
        context_BC = None if context_C is None else context_C.expand(batch.users, -1)
        states = subgraph.states(batch, at_B, context_BC)
        parts.append(subgraph.model.scores(states, item_VD)[:, item_code])
    return torch.cat(parts) if parts else torch.zeros(0)


def _without(history: EventBatch, position: int) -> EventBatch:
    keep_T = torch.arange(history.tokens) != position
    return history.picked(keep_T, torch.tensor([0, history.tokens - 1]), torch.arange(1))


def _joined(histories: list[EventBatch]) -> EventBatch:
    length_B = torch.tensor([history.tokens for history in histories])
    return EventBatch(
        torch.cat([history.facet_TF for history in histories]),
        torch.cat([history.time_T for history in histories]),
        torch.cat([history.begin_T for history in histories]),
        torch.cat([history.opening_T for history in histories]),
        torch.cat([history.group_T for history in histories]),
        offsets_of(length_B),
        torch.cat([history.start_B for history in histories]),
        torch.cat([history.attribute_BA for history in histories]),
    )
