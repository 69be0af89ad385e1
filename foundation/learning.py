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
from foundation.objectives.facets import facet_cross_entropy
from foundation.objectives.softmax import negative_weights, set_softmax
from foundation.objectives.targets import Negatives, Shown, Targets, shown
from foundation.pooling import pooled_own
from foundation.repeat import FIRST_ITEM


@dataclass(frozen=True)
class Objectives:
    """What is learned besides the next items, as the share of each loss.

    later: of each horizon ≥ 2. embedding: of the dot product of stored vectors, whose metric is that of the store.
    """

    later: float = 0.3
    embedding: float = 0.3


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
class _Said:
    """What the model says of a lesson: the users' states, and vector and popularity of each candidate."""

    states: UserStates
    candidates: _Candidates
    item_ND: Tensor
    popularity_N: Tensor


@dataclass(frozen=True)
class _Contest:
    """What competes to be the groups at one horizon: weighted negatives, and shown pairs with their columns."""

    target: Targets
    pairs: Shown
    column_A: Tensor
    weight_RM: Tensor


@dataclass(frozen=True)
class _Bonus:
    """What a score adds to the dot product, for the negatives and for the shown pairs."""

    negative_RM: Tensor | float
    shown_A: Tensor | float


def losses(model: FoundationModel, lesson: Lesson, objectives: Objectives) -> list[Loss]:
    """Losses of the next items (conditioned and bare), the stored embedding, later horizons and facets."""
    targets = tuple(_with_items(target) for target in lesson.targets)
    said = _said(model, lesson, targets)
    now, *later = _contests(said, lesson, targets)
    told_RD, nothing = model.horizons[0](said.states.told_RD), _Bonus(0.0, 0.0)
    found = [
        Loss("next", *_item_loss(said, told_RD, now, _told_bonus(model, said, lesson, now)), share=1.0),
        Loss("embedding", *_item_loss(said, _stored(model, said), now, nothing), share=objectives.embedding),
    ]
    for ahead, contest in enumerate(later, start=1):
        bare_RD = model.horizons[ahead](said.states.bare_RD)
        found.append(Loss(f"next_{ahead + 1}", *_item_loss(said, bare_RD, contest, nothing), share=objectives.later))
    return found + _facet_losses(model, said.states, lesson.targets)


def _said(model: FoundationModel, lesson: Lesson, targets: Sequence[Targets]) -> _Said:
    states = model(lesson.batch, lesson.requests)
    candidates = _candidates(states.own.code_P, lesson.negatives, targets, model.tower.codes)
    return _Said(states, candidates, model.tower(candidates.code_N), model.tower.popularity(candidates.code_N))


def _item_loss(said: _Said, state_RD: Tensor, contest: _Contest, bonus: _Bonus) -> tuple[Tensor, Tensor]:
    logit_RN = state_RD @ said.item_ND.T + said.popularity_N
    negative_RM = logit_RN[:, : contest.weight_RM.shape[1]] + (contest.weight_RM + bonus.negative_RM)
    shown_A = logit_RN[contest.pairs.row_A, contest.column_A] + bonus.shown_A
    return set_softmax(negative_RM, shown_A, contest.pairs, contest.target.request_E, contest.target.weight_E)


def _told_bonus(model: FoundationModel, said: _Said, lesson: Lesson, contest: _Contest) -> _Bonus:
    """Repeat path and category affinity, as in `FoundationModel.scores`."""
    own, pairs, category_VC = said.states.own, contest.pairs, model.tower.category_VC
    told_P = model.told_repeat(own.told_PX, own.request_P, said.states.told_RD, said.item_ND, said.candidates.own_P)
    # The own items are the first of the pairs; a target that is new to the user has no past to read.
    told_A = F.pad(told_P, (0, len(pairs.row_A) - len(told_P)))
    lifts = model.affinity(said.states.shares)
    lift_A = pair_lifts(lifts, pairs.row_A, category_VC[pairs.code_A])
    return _Bonus(candidate_lifts(lifts, category_VC[lesson.negatives.code_M]), told_A + lift_A)


def _stored(model: FoundationModel, said: _Said) -> Tensor:
    """The user embedding without its popularity dimension, as in `FoundationModel.user_vectors`."""
    own, bare_RD, own_P = said.states.own, said.states.bare_RD, said.candidates.own_P
    bare_P = model.bare_repeat(own.feature_PX, own.request_P, bare_RD, said.item_ND, own_P)
    stored_RD: Tensor = model.pooling(bare_RD, pooled_own(own, bare_P, len(bare_RD), said.item_ND, own_P))
    return stored_RD


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


def _contests(said: _Said, lesson: Lesson, targets: Sequence[Targets]) -> list[_Contest]:
    """One for each horizon. Own items compete in the first only: what returns later is for the dot product to find."""
    own, column_V = said.states.own, said.candidates.column_V
    found = []
    for ahead, target in enumerate(targets):
        competing = slice(None) if ahead == 0 else slice(0)
        pairs = shown(
            (own.request_P[competing], own.code_P[competing]), (target.request_E, target.item_E), len(column_V)
        )
        weight_RM = negative_weights(lesson.negatives, pairs, len(lesson.requests))
        found.append(_Contest(target, pairs, column_V[pairs.code_A], weight_RM))
    return found
