"""Who competes in a softmax over items, and what a state says of them.

Every request's contest has the step's M negatives, weighted by their proposal, and pairs that are always shown: its
user's own items and its targets, with weight one, and what it was shown in vain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foundation.affinity import candidate_lifts
from foundation.item_age import Aged
from foundation.objectives.softmax import CHUNK, chunks, log_sum_exp, negative_weights, pair_logits, recomputed
from foundation.objectives.targets import Negatives, Shown, Targets, shown, with_impressions
from foundation.repeat import FIRST_ITEM, OwnItems


@dataclass(frozen=True)
class Candidates:
    """The N distinct candidates of a step, its M negatives first.

    code_N: int64. column_V: of each item code, for those among the N.
    """

    code_N: Tensor
    column_V: Tensor


@dataclass(frozen=True)
class Vectors:
    """What the item tower knows of N candidates: vectors, popularity logits, codes of their categories.

    aged: what is added to both by the age of each candidate at each request; empty where age decides nothing.
    """

    item_ND: Tensor
    popularity_N: Tensor
    category_NC: Tensor
    aged: tuple[Aged, ...] = ()

    def first(self, width: int) -> Vectors:
        """What they are by their first dimensions alone; popularity and categories as they are."""
        aged = tuple(replace(one, id_ND=one.id_ND[:, :width]) for one in self.aged)
        return replace(self, item_ND=self.item_ND[:, :width], aged=aged)

    def logits(self, state_RD: Tensor) -> Tensor:
        """float [R, N] of all candidates: a dense product is faster on every device than a vector for each pair."""
        logit_RN = state_RD @ self.item_ND.T + self.popularity_N
        for aged in self.aged:
            logit_RN = logit_RN + aged.logits(state_RD)
        return logit_RN

    def some_logits(self, state_RD: Tensor, part: slice) -> Tensor:
        """float [R, C] of some of them."""
        logit_RC = state_RD @ self.item_ND[part].T + self.popularity_N[part]
        for aged in self.aged:
            logit_RC = logit_RC + aged.some_logits(state_RD, part)
        return logit_RC

    def pair_logits(self, state_RD: Tensor, row_A: Tensor, column_A: Tensor) -> Tensor:
        """float [A] of pairs of a request and a candidate."""
        logit_A = pair_logits(state_RD, self.item_ND, row_A, column_A) + self.popularity_N[column_A]
        for aged in self.aged:
            dot_A = pair_logits(state_RD, aged.id_ND, row_A, column_A)
            logit_A = logit_A + aged.pair_logits(dot_A, row_A, column_A)
        return logit_A


@dataclass(frozen=True)
class Contest:
    """What competes to be the targets: negatives, and shown pairs with their columns among the candidates.

    log_weight_A: of the shown pairs; 0 of all but impressions.
    """

    target: Targets
    pairs: Shown
    column_A: Tensor
    negatives: Negatives
    log_weight_A: Tensor | float = 0.0


@dataclass(frozen=True)
class Bonus:
    """What a score adds to the dot product: lifts of categories, float [R, S] each, and something for shown pairs."""

    lifts: tuple[Tensor, ...] = ()
    shown_A: Tensor | float = 0.0


def wanted(target: Targets) -> Targets:
    """The targets that are items somebody was interested in, by as much as they were."""
    some = target.picked((target.item_E >= FIRST_ITEM) & (target.reward_E > 0))
    return replace(some, weight_E=some.weight_E * some.reward_E)


def shown_in_vain(target: Targets) -> Targets:
    """The events with an item in which nobody was interested."""
    return target.picked((target.item_E >= FIRST_ITEM) & (target.reward_E == 0))


def candidates(own_P: Tensor, negatives: Negatives, targets: Sequence[Targets], codes: int) -> Candidates:
    """All items that some contest of the step needs. own_P: codes of own items; codes: of the whole vocabulary."""
    parts = torch.cat([own_P, *(target.item_E for target in targets)])
    wanted_V = torch.zeros(codes, dtype=torch.bool, device=parts.device)
    wanted_V[parts] = True
    wanted_V[negatives.code_M] = False
    code_N = torch.cat([negatives.code_M, wanted_V.nonzero().squeeze(1)])
    column_V = torch.zeros(codes, dtype=torch.int64, device=parts.device)
    column_V[code_N] = torch.arange(len(code_N), device=parts.device)
    return Candidates(code_N, column_V)


def contest(among: Candidates, negatives: Negatives, target: Targets, own: OwnItems | None) -> Contest:
    """The contest for some targets (`wanted`). own: items of the users that compete too; None: none do."""
    nobodys = target.request_E[:0], target.item_E[:0]
    mine = nobodys if own is None else (own.request_P, own.code_P)
    pairs = shown(mine, (target.request_E, target.item_E), len(among.column_V))
    return Contest(target, pairs, among.column_V[pairs.code_A], negatives)


def against_impressions(among: Candidates, contest: Contest, vain: Targets, weight: float) -> Contest:
    """The contest in which what was shown in vain competes too, as if it stood there `weight` times.

    Where it is among the user's own items or the targets it competes already, with weight one.
    """
    pairs = with_impressions(contest.pairs, (vain.request_E, vain.item_E), len(among.column_V))
    more = len(pairs.row_A) - len(contest.pairs.row_A)
    weight_A = torch.zeros(len(pairs.row_A), device=pairs.row_A.device)
    weight_A[len(weight_A) - more :] = math.log(weight)
    return replace(contest, pairs=pairs, column_A=among.column_V[pairs.code_A], log_weight_A=weight_A)


def contest_logits(
    state_RD: Tensor, among: Vectors, contest: Contest, bonus: Bonus, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """What a state says of a contest, as `set_softmax` reads it.

    float [R, M], logits of the negatives with their log weights, or, of more than `chunk` negatives, the log Σ exp of
    each chunk of them; and float [A], logits of the shown pairs with theirs.
    """
    negatives, pairs, extra_A = contest.negatives, contest.pairs, bonus.shown_A + contest.log_weight_A
    if len(negatives) > chunk:

        def reduced(part: slice) -> Tensor:
            return log_sum_exp(weighted_logits(state_RD, among, contest, part, bonus.lifts))

        negative_RK = torch.stack([recomputed(reduced, part) for part in chunks(len(negatives), chunk)], dim=1)
        return negative_RK, among.pair_logits(state_RD, pairs.row_A, contest.column_A) + extra_A
    logit_RN = among.logits(state_RD)
    lift_RM = candidate_lifts(bonus.lifts, among.category_NC[: len(negatives)])
    weight_RM = negative_weights(negatives, pairs, len(state_RD)) + lift_RM
    negative_RM = logit_RN[:, : len(negatives)] + weight_RM
    return negative_RM, logit_RN[pairs.row_A, contest.column_A] + extra_A


def weighted_logits(
    state_RD: Tensor, among: Vectors, contest: Contest, part: slice, lifts: tuple[Tensor, ...] = ()
) -> Tensor:
    """float [R, C]: logits of some of the negatives, with their log weights."""
    negatives = contest.negatives
    some = Negatives(negatives.code_M[part], negatives.log_expected_M[part])
    logit_RC = among.some_logits(state_RD, part)
    logit_RC = logit_RC + candidate_lifts(lifts, among.category_NC[part])
    return logit_RC + negative_weights(some, contest.pairs, len(state_RD))
