"""A contest's logits a block of requests at a time: what is held stays in the processor's cache, forward and backward.

All that a loss needs of the negatives is the log Σ exp of each request. A block's logits live until that is taken, and
are made again in the backward pass, which folds them into the gradients at once (Wijmans et al., Cut Your Losses in
Large-Vocabulary Language Models, arXiv:2411.09009). So memory does not grow with requests × catalogue, and nothing of
that size goes through main memory a dozen times, which is what a large softmax waits for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from foundation.affinity import known_category
from foundation.objectives.contests import Bonus, Contest, Vectors
from foundation.objectives.softmax import pair_logits

BLOCK = {"cpu": 1 << 19}  # logits that are held at once: half of a processor's second cache
ELSEWHERE = 1 << 26
ROWS = 64  # at least so many requests a block: products of fewer rows are slow
GATHERED = 32  # logits of a dense product that cost as much as gathering the two vectors of one pair


@dataclass(frozen=True)
class _Layout:
    """Where a block's pairs stand: order_A sorts the pairs by request; those of block b are begin_B1[b] to the next.

    row_A, column_A: of each pair, in that order. log_weight_M: of the negatives, which are the first M candidates.
    category_CM: codes of their categories.
    """

    rows: int
    order_A: Tensor
    row_A: Tensor
    column_A: Tensor
    begin_B1: list[int]
    log_weight_M: Tensor
    category_CM: tuple[Tensor, ...]

    @property
    def negatives(self) -> int:
        """M."""
        return len(self.log_weight_M)


def contest_sums(state_RD: Tensor, among: Vectors, contest: Contest, bonus: Bonus) -> tuple[Tensor, Tensor]:
    """What a state says of a contest, as `set_softmax` reads it.

    float [R, 1], the log Σ exp of the negatives with their log weights; and float [A], logits of the shown pairs with
    theirs. What `contest_logits` says of candidates whose age decides nothing, with less of it held.
    """
    pairs, requests, negatives = contest.pairs, len(state_RD), len(contest.negatives)
    if GATHERED * len(pairs.row_A) < requests * (len(among.item_ND) - negatives):
        # Few pairs: nobody's product with the candidates that only others are shown.
        among_M = Vectors(among.item_ND[:negatives], among.popularity_N[:negatives], among.category_NC[:negatives])
        hit_A = contest.column_A < negatives
        sum_R, _ = _sums(state_RD, among_M, contest, pairs.row_A[hit_A], contest.column_A[hit_A], bonus)
        shown_A = pair_logits(state_RD, among.item_ND, pairs.row_A, contest.column_A)
        shown_A = shown_A + among.popularity_N[contest.column_A]
    else:
        sum_R, shown_A = _sums(state_RD, among, contest, pairs.row_A, contest.column_A, bonus)
    return sum_R[:, None], shown_A + bonus.shown_A + contest.log_weight_A


def _sums(
    state_RD: Tensor, among: Vectors, contest: Contest, row_A: Tensor, column_A: Tensor, bonus: Bonus
) -> tuple[Tensor, Tensor]:
    """float [R] and float [A], without what is added to the shown pairs. row_A, column_A: of pairs among which are all
    accidental hits."""
    candidates, number = len(among.item_ND), len(contest.negatives)
    rows = max(ROWS, BLOCK.get(state_RD.device.type, ELSEWHERE) // max(candidates, 1))
    order_A = torch.argsort(row_A, stable=True)
    row_A, starts = row_A[order_A], torch.arange(0, len(state_RD) + rows, rows, device=row_A.device)
    category_CM = tuple(
        known_category(among.category_NC[:number, level], lift_RS.shape[1]) for level, lift_RS in enumerate(bonus.lifts)
    )
    begin_B1, log_weight_M = torch.searchsorted(row_A, starts).tolist(), -contest.negatives.log_expected_M
    layout = _Layout(rows, order_A, row_A, column_A[order_A], begin_B1, log_weight_M, category_CM)
    found: tuple[Tensor, Tensor] = _Sums.apply(  # type: ignore[no-untyped-call]
        layout, state_RD, among.item_ND, among.popularity_N, *bonus.lifts
    )
    return found


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, layout: _Layout, state_RD: Tensor, item_ND: Tensor, bias_N: Tensor, *lifts: Tensor
    ) -> tuple[Tensor, Tensor]:
        sum_R = state_RD.new_empty(len(state_RD))
        shown_A = state_RD.new_empty(len(layout.row_A))
        for block, start in enumerate(range(0, len(state_RD), layout.rows)):
            part, pairs = slice(start, start + layout.rows), _pairs(layout, block)
            logit_BN = torch.addmm(bias_N, state_RD[part], item_ND.T)
            place = layout.row_A[pairs] - start, layout.column_A[pairs]
            shown_A[layout.order_A[pairs]] = logit_BN[place]
            sum_R[part] = torch.logsumexp(_weighted(logit_BN, layout, place, lifts, part), 1)
        ctx.layout = layout
        ctx.save_for_backward(state_RD, item_ND, bias_N, sum_R, *lifts)
        return sum_R, shown_A

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_R: Tensor, slope_A: Tensor) -> tuple[Tensor | None, ...]:
        state_RD, item_ND, bias_N, sum_R, *lifts = ctx.saved_tensors
        layout: _Layout = ctx.layout
        state_slope_RD, item_slope_ND = torch.empty_like(state_RD), torch.zeros_like(item_ND)
        bias_slope_N, lift_slopes = torch.zeros_like(bias_N), [torch.zeros_like(lift_RS) for lift_RS in lifts]
        sum_R = torch.where(sum_R > -torch.inf, sum_R, 0.0)  # where nobody competes, every share is 0
        for block, start in enumerate(range(0, len(state_RD), layout.rows)):
            part, pairs = slice(start, start + layout.rows), _pairs(layout, block)
            logit_BN = torch.addmm(bias_N, state_RD[part], item_ND.T)
            place = layout.row_A[pairs] - start, layout.column_A[pairs]
            share_BM = _weighted(logit_BN, layout, place, lifts, part)
            share_BM.sub_(sum_R[part, None]).exp_().mul_(slope_R[part, None])
            for slope_RS, category_M in zip(lift_slopes, layout.category_CM, strict=True):
                slope_RS[part].index_add_(1, category_M, share_BM)
            logit_BN[:, layout.negatives :] = 0.0
            logit_BN.index_put_(place, slope_A[layout.order_A[pairs]], accumulate=True)
            torch.mm(logit_BN, item_ND, out=state_slope_RD[part])
            item_slope_ND.addmm_(logit_BN.T, state_RD[part])
            bias_slope_N += logit_BN.sum(0)
        return None, state_slope_RD, item_slope_ND, bias_slope_N, *lift_slopes


def _pairs(layout: _Layout, block: int) -> slice:
    return slice(layout.begin_B1[block], layout.begin_B1[block + 1])


def _weighted(logit_BN: Tensor, layout: _Layout, place: tuple[Tensor, Tensor], lifts: Any, part: slice) -> Tensor:
    """float [B, M], in place: logits of the negatives with their log weights and lifts, −inf for an accidental hit."""
    logit_BM = logit_BN[:, : layout.negatives]
    logit_BM += layout.log_weight_M
    for lift_RS, category_M in zip(lifts, layout.category_CM, strict=True):
        logit_BM += lift_RS[part].index_select(1, category_M)
    row_A, column_A = place
    hit_A = column_A < layout.negatives
    logit_BM[row_A[hit_A], column_A[hit_A]] = -torch.inf
    return logit_BM
