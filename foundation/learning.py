"""One training step's losses: the model's outputs joined with what really came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foundation.jagged import EventBatch, Requests
from foundation.model import FoundationModel, UserStates
from foundation.objectives import Negatives, Targets, candidate_weights, facet_cross_entropy, set_softmax
from foundation.pooling import pooled_own
from foundation.repeat import FIRST_ITEM


@dataclass(frozen=True)
class Lesson:
    """A batch with its requests, the targets of each horizon and the negatives that all requests share."""

    batch: EventBatch
    requests: Requests
    targets: tuple[Targets, ...]
    negatives: Negatives


@dataclass(frozen=True)
class Loss:
    """A named part of the loss: `total` summed over `weight` targets, entering with factor `share`."""

    name: str
    total: Tensor
    weight: Tensor
    share: float


@dataclass(frozen=True)
class _Columns:
    """The N distinct candidates of a step, and where own items, negatives and targets stand among them."""

    code_N: Tensor
    own_P: Tensor
    negative_M: Tensor
    target_E: tuple[Tensor, ...]


def losses(model: FoundationModel, lesson: Lesson, later_share: float, embedding_share: float) -> list[Loss]:
    """Losses of the next items (conditioned and bare), the stored embedding, later horizons and facets.

    later_share: factor of each horizon ≥ 2. embedding_share: factor of the dot product of stored vectors, whose
    metric is that of the store.
    """
    states = model(lesson.batch, lesson.requests)
    targets = tuple(_with_items(target) for target in lesson.targets)
    columns = _columns(states, lesson.negatives, targets)
    item_ND, popularity_N = model.tower(columns.code_N), model.tower.popularity(columns.code_N)
    own = states.own
    bare_P = model.bare_repeat(own.feature_PX, own.request_P, states.bare_RD, item_ND, columns.own_P)
    told_P = model.told_repeat(own.told_PX, own.request_P, states.told_RD, item_ND, columns.own_P)
    weights = [_weights(states, lesson.negatives, columns, horizon, target) for horizon, target in enumerate(targets)]

    affinity_RN = model.affinity(states.shares, model.tower.category_VC[columns.code_N])

    def item_loss(state_RD: Tensor, bonus_P: Tensor | None, horizon: int) -> tuple[Tensor, Tensor]:
        logit_RN = state_RD @ item_ND.T + popularity_N
        if bonus_P is not None:
            logit_RN = logit_RN + affinity_RN
            logit_RN = logit_RN.index_put((own.request_P, columns.own_P), bonus_P, accumulate=True)
        target = targets[horizon]
        return set_softmax(logit_RN, weights[horizon], target.request_E, columns.target_E[horizon], target.weight_E)

    own_RD = pooled_own(own, bare_P, len(states.bare_RD), item_ND, columns.own_P)
    user_RD = model.pooling(states.bare_RD, own_RD)
    found = [
        Loss("next", *item_loss(model.horizons[0](states.told_RD), told_P, 0), share=1.0),
        Loss("embedding", *item_loss(user_RD, None, 0), share=embedding_share),
    ]
    for horizon in range(1, len(targets)):
        ahead = item_loss(model.horizons[horizon](states.bare_RD), None, horizon)
        found.append(Loss(f"next_{horizon + 1}", *ahead, share=later_share))
    return found + _facet_losses(model, states, lesson.targets)


def _facet_losses(model: FoundationModel, states: UserStates, targets: Sequence[Targets]) -> list[Loss]:
    """Facets are predicted from the bare state: a context facet would otherwise be told what it should guess."""
    found = []
    for column, ((name, share), head) in enumerate(zip(model.config.targets, model.facet_heads, strict=True)):
        for horizon, target in enumerate(targets):
            logit_RC = head(model.horizons[horizon](states.bare_RD))
            code_E = target.facet_EF[:, column]
            code_E = torch.where(code_E < logit_RC.shape[1], code_E, 1)
            total, weight = facet_cross_entropy(logit_RC, target.request_E, code_E, target.weight_E)
            suffix = "" if horizon == 0 else f"_{horizon + 1}"
            found.append(Loss(f"{name}{suffix}", total, weight, share / len(targets)))
    return found


def _with_items(target: Targets) -> Targets:
    keep_E = target.item_E >= FIRST_ITEM
    return Targets(target.request_E[keep_E], target.item_E[keep_E], target.facet_EF[keep_E], target.weight_E[keep_E])


def _columns(states: UserStates, negatives: Negatives, targets: Sequence[Targets]) -> _Columns:
    parts = [states.own.code_P, negatives.code_N, *(target.item_E for target in targets)]
    code_N, place = torch.unique(torch.cat(parts), return_inverse=True)
    own_P, negative_M, *target_E = place.split([len(part) for part in parts])
    return _Columns(code_N, own_P, negative_M, tuple(target_E))


def _weights(states: UserStates, negatives: Negatives, columns: _Columns, horizon: int, target: Targets) -> Tensor:
    return candidate_weights(
        len(states.bare_RD),
        len(columns.code_N),
        (columns.negative_M, negatives.log_expected_N),
        (states.own.request_P, columns.own_P),
        (target.request_E, columns.target_E[horizon]),
    )
