"""One training step's losses: the model's outputs joined with what really came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.affinity import candidate_lifts, pair_lifts
from foundation.jagged import EventBatch, Requests
from foundation.model import FoundationModel, UserStates
from foundation.objectives import (
    Negatives,
    Shown,
    Targets,
    facet_cross_entropy,
    negative_weights,
    set_softmax,
    shown,
)
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
class _Candidates:
    """The N distinct candidates of a step, its M negatives first.

    column_V: of each item code, for those among the N. own_P: columns of the users' own items.
    """

    code_N: Tensor
    column_V: Tensor
    own_P: Tensor


@dataclass(frozen=True)
class _Contest:
    """What competes to be the groups at one horizon: weighted negatives, and shown pairs with their columns."""

    target: Targets
    pairs: Shown
    column_A: Tensor
    weight_RM: Tensor


def losses(model: FoundationModel, lesson: Lesson, later_share: float, embedding_share: float) -> list[Loss]:
    """Losses of the next items (conditioned and bare), the stored embedding, later horizons and facets.

    later_share: factor of each horizon ≥ 2. embedding_share: factor of the dot product of stored vectors, whose
    metric is that of the store.
    """
    states = model(lesson.batch, lesson.requests)
    own = states.own
    targets = tuple(_with_items(target) for target in lesson.targets)
    candidates = _candidates(own.code_P, lesson.negatives, targets, model.tower.codes)
    item_ND, popularity_N = model.tower(candidates.code_N), model.tower.popularity(candidates.code_N)
    # Own items compete at once only: what returns later is for the horizons' dot products to find among the rest.
    nobodys = (own.request_P[:0], own.code_P[:0])
    owns = [(own.request_P, own.code_P), *(nobodys for _ in targets[1:])]
    contests = [
        _contest(states, lesson.negatives, candidates, mine, target) for mine, target in zip(owns, targets, strict=True)
    ]

    def item_loss(
        state_RD: Tensor, contest: _Contest, bonus_RM: Tensor | float = 0.0, bonus_A: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor]:
        logit_RN = state_RD @ item_ND.T + popularity_N
        negative_RM = logit_RN[:, : contest.weight_RM.shape[1]] + (contest.weight_RM + bonus_RM)
        shown_A = logit_RN[contest.pairs.row_A, contest.column_A] + bonus_A
        return set_softmax(negative_RM, shown_A, contest.pairs, contest.target.request_E, contest.target.weight_E)

    def bonuses() -> tuple[Tensor | float, Tensor]:
        pairs, category_VC = contests[0].pairs, model.tower.category_VC
        lifts = model.affinity(states.shares)
        told_P = model.told_repeat(own.told_PX, own.request_P, states.told_RD, item_ND, candidates.own_P)
        # The own items are the first of the pairs; a target that is new to the user has no past to read.
        told_A = F.pad(told_P, (0, len(pairs.row_A) - len(told_P)))
        lift_A = pair_lifts(lifts, pairs.row_A, category_VC[pairs.code_A])
        return candidate_lifts(lifts, category_VC[lesson.negatives.code_M]), told_A + lift_A

    bare_P = model.bare_repeat(own.feature_PX, own.request_P, states.bare_RD, item_ND, candidates.own_P)
    own_RD = pooled_own(own, bare_P, len(states.bare_RD), item_ND, candidates.own_P)
    found = [
        Loss("next", *item_loss(model.horizons[0](states.told_RD), contests[0], *bonuses()), share=1.0),
        Loss("embedding", *item_loss(model.pooling(states.bare_RD, own_RD), contests[0]), share=embedding_share),
    ]
    for ahead, contest in enumerate(contests[1:], start=1):
        later = item_loss(model.horizons[ahead](states.bare_RD), contest)
        found.append(Loss(f"next_{ahead + 1}", *later, share=later_share))
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


def _candidates(own_P: Tensor, negatives: Negatives, targets: Sequence[Targets], codes: int) -> _Candidates:
    parts = torch.cat([own_P, *(target.item_E for target in targets)])
    wanted_V = torch.zeros(codes, dtype=torch.bool, device=parts.device)
    wanted_V[parts] = True
    wanted_V[negatives.code_M] = False
    code_N = torch.cat([negatives.code_M, wanted_V.nonzero().squeeze(1)])
    column_V = torch.zeros(codes, dtype=torch.int64, device=parts.device)
    column_V[code_N] = torch.arange(len(code_N), device=parts.device)
    return _Candidates(code_N, column_V, column_V[own_P])


def _contest(
    states: UserStates, negatives: Negatives, candidates: _Candidates, own: tuple[Tensor, Tensor], target: Targets
) -> _Contest:
    pairs = shown(own, (target.request_E, target.item_E), len(candidates.column_V))
    weight_RM = negative_weights(negatives, pairs, len(states.bare_RD))
    return _Contest(target, pairs, candidates.column_V[pairs.code_A], weight_RM)
