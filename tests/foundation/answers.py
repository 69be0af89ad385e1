"""What a model says of requests, and how to compare it."""

from __future__ import annotations

import torch
from torch import Tensor

from foundation.jagged import EventBatch, Requests, group_offsets
from foundation.model import FoundationModel

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def answers(model: FoundationModel, batch: EventBatch, requests: Requests) -> dict[str, Tensor]:
    """Everything that the model says of the requests."""
    with torch.no_grad():
        states, item_VD = model(batch, requests), model.item_vectors()
        again, earlier = model.with_layers(batch, requests)
        plain = {"scores": model.scores(states, item_VD), "user vector": model.user_vectors(states)}
        return {
            **plain,
            "reranked": model.reranked(states, item_VD, top=9),
            "bare beside earlier layers": again.bare_RD,
            **{f"layer {depth}": bare_RD for depth, bare_RD in enumerate(earlier, start=1)},
            **{f"intent {place}": logit_RC for place, logit_RC in enumerate(states.intents)},
            "bare": states.bare_RD,
            "told": states.told_RD,
            "own request": states.own.request_P,
            "own item": states.own.code_P,
            "own features": states.own.feature_PX,
            "own features in the context": states.own.told_PX,
            **{f"shares of category {level}": share for level, share in enumerate(states.shares)},
        }


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], msg=lambda text, name=name: f"{name}: {text}", **TOLERANCE)


def other_facets(batch: EventBatch, hidden_T: Tensor, draw: torch.Generator) -> Tensor:
    """facet_TF with every facet of the hidden tokens drawn anew."""
    size_F = batch.facet_TF.max(0).values + 1
    noise_TF = (torch.rand(batch.facet_TF.shape, generator=draw) * size_F).long()
    return torch.where(hidden_T[:, None], noise_TF, batch.facet_TF)


def at_every_group(batch: EventBatch, context_TC: Tensor) -> Requests:
    """A request at the beginning of every group, told the context of its first token, and one after all of a user that
    is told nothing."""
    first_G, last_B = group_offsets(batch)[:-1], batch.offset_B1[1:]
    user_R = torch.cat([batch.user_T[first_G], torch.arange(batch.users)])
    end_R = torch.cat([first_G, last_B])
    now_B = torch.zeros(batch.users, dtype=torch.float64)
    there_B = last_B > batch.offset_B1[:-1]
    now_B[there_B] = batch.time_T[last_B[there_B] - 1]
    time_R = torch.cat([batch.time_T[first_G], now_B])
    told_RC = torch.cat([context_TC[first_G], torch.zeros(batch.users, context_TC.shape[1], dtype=torch.int64)])
    order_R = torch.argsort(user_R * (batch.tokens + 1) + end_R, stable=True)
    return Requests(user_R[order_R], end_R[order_R], time_R[order_R], told_RC[order_R])
