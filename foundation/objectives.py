"""Losses as pure functions. Each returns (sum, weight): over ranks, the loss is the global sum ÷ the global weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.jagged import segment_max, segment_sum


@dataclass(frozen=True)
class Targets:
    """What really came at one horizon: E pairs (request, target event).

    request_E: int64 row of the request. item_E: int64 item code, < 2 where the event has no item.
    facet_EF: int64 codes of the predicted facets, in the order of ModelConfig.targets. weight_E: float32.
    """

    request_E: Tensor
    item_E: Tensor
    facet_EF: Tensor
    weight_E: Tensor


@dataclass(frozen=True)
class Negatives:
    """M items drawn once for the whole batch. code_M: int64, distinct, ascending. log_expected_M: log of the expected
    number of times each was drawn, the correction of sampled softmax (Bengio & Senécal, 2008; Yi et al., 2019)."""

    code_M: Tensor
    log_expected_M: Tensor


@dataclass(frozen=True)
class Shown:
    """A pairs (request, candidate) that always take part in the request's softmax, with weight 1.

    row_A: int64 request. code_A: int64 item code. place_E: where among the A each target stands.
    """

    row_A: Tensor
    code_A: Tensor
    place_E: Tensor


def shown(own: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], codes: int) -> Shown:
    """Own items and targets, each pair once.

    own, target: (row of the request, item code); own pairs are distinct and ascend by row, then code. codes: more
    than the largest code.
    """
    own_P, target_E = (row * codes + code for row, code in (own, target))
    place_E = torch.searchsorted(own_P, target_E)
    padded = torch.cat([own_P, own_P.new_full((1,), -1)])
    fresh_E = padded[place_E] != target_E
    fresh, among_fresh = torch.unique(target_E[fresh_E], return_inverse=True)
    place_E[fresh_E] = len(own_P) + among_fresh
    return Shown(torch.cat([own[0], fresh // codes]), torch.cat([own[1], fresh % codes]), place_E)


def negative_weights(negatives: Negatives, pairs: Shown, requests: int) -> Tensor:
    """Log weight of each of the M negatives in each request's denominator, float [R, M].

    −log of the expected count, so that those drawn stand for the rest of the catalogue; −inf for an accidental
    hit, a negative that the request is shown anyway.
    """
    weight_RM = (-negatives.log_expected_M).expand(requests, -1).clone()
    column_A = torch.searchsorted(negatives.code_M, pairs.code_A)
    padded = torch.cat([negatives.code_M, negatives.code_M.new_full((1,), -1)])
    hit_A = padded[column_A] == pairs.code_A
    weight_RM[pairs.row_A[hit_A], column_A[hit_A]] = -torch.inf
    return weight_RM


def set_softmax(
    negative_RM: Tensor, shown_A: Tensor, pairs: Shown, row_E: Tensor, weight_E: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of every member of a target set under one softmax a request; (sum, weight).

    The members share their denominator: the likelihood of a set drawn with replacement, as in the dense
    all-action loss of Pancha et al., PinnerFormer, arXiv:2205.04507.

    negative_RM: logits of the negatives plus their log weights. shown_A: logits of the shown pairs. row_E: request
    of each target.
    """
    requests = len(negative_RM)
    top_R = segment_max(shown_A.detach(), pairs.row_A, requests)
    if negative_RM.shape[1]:
        top_R = torch.maximum(top_R, negative_RM.detach().amax(1))
    top_R = torch.where(top_R > -torch.inf, top_R, 0.0)  # a request without candidates has no target either
    total_R = torch.exp(negative_RM - top_R[:, None]).sum(1)
    total_R = total_R + segment_sum(torch.exp(shown_A - top_R[pairs.row_A]), pairs.row_A, requests)
    loss_E = torch.log(total_R[row_E]) + top_R[row_E] - shown_A[pairs.place_E]
    return (loss_E * weight_E).sum(), weight_E.sum()


def facet_cross_entropy(logit_RC: Tensor, row_E: Tensor, code_E: Tensor, weight_E: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of one facet's codes over the target events; absent codes (0) count nothing; (sum, weight)."""
    weight_E = torch.where(code_E > 0, weight_E, 0.0)
    loss_E = -F.log_softmax(logit_RC, dim=1)[row_E, code_E]
    return (loss_E * weight_E).sum(), weight_E.sum()
