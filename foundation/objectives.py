"""Losses as pure functions. Each returns (sum, weight): over ranks, the loss is the global sum ÷ the global weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """Items drawn once for the whole batch. code_N: int64, distinct. log_expected_N: log of the expected number
    of times each was drawn, the correction of sampled softmax (Bengio & Senécal, 2008; Yi et al., 2019)."""

    code_N: Tensor
    log_expected_N: Tensor


def candidate_weights(
    requests: int,
    candidates: int,
    negative: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
) -> Tensor:
    """Log weight of each candidate in each request's softmax denominator, float [R, N]; −inf leaves it out.

    negative: (columns, log expected count): stand for the rest of the catalogue. own, target: (rows, columns) that
    always take part, with weight 1; where one was also drawn as a negative, that accidental hit is thereby undone.
    """
    columns, log_expected = negative
    weight_RN = torch.full((requests, candidates), -torch.inf, device=log_expected.device)
    weight_RN[:, columns] = -log_expected
    weight_RN[own] = 0.0
    weight_RN[target] = 0.0
    return weight_RN


def set_softmax(
    logit_RN: Tensor, log_weight_RN: Tensor, row_E: Tensor, column_E: Tensor, weight_E: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of every member of a target set under one softmax a request; (sum, weight).

    The members share their denominator: the likelihood of a set drawn with replacement, as in the dense
    all-action loss of Pancha et al., PinnerFormer, arXiv:2205.04507.
    """
    log_total_R = torch.logsumexp(logit_RN + log_weight_RN, dim=1)
    loss_E = log_total_R[row_E] - logit_RN[row_E, column_E]
    return (loss_E * weight_E).sum(), weight_E.sum()


def facet_cross_entropy(logit_RC: Tensor, row_E: Tensor, code_E: Tensor, weight_E: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of one facet's codes over the target events; absent codes (0) count nothing; (sum, weight)."""
    weight_E = torch.where(code_E > 0, weight_E, 0.0)
    loss_E = -F.log_softmax(logit_RC, dim=1)[row_E, code_E]
    return (loss_E * weight_E).sum(), weight_E.sum()
