"""Softmax over sampled candidates. Each loss is (sum, weight): over ranks, it is the global sum ÷ the global weight.

No more than `CHUNK` negatives are scored at a time: the logits of a chunk live until its log Σ exp is taken, and are
made again in the backward pass, so memory grows with requests × CHUNK and catalogue × width, never with requests ×
catalogue (Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, arXiv:2411.09009, by the checkpoints of
torch instead of a kernel of its own).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from foundation.jagged import segment_max, segment_sum
from foundation.objectives.targets import Negatives, Shown

CHUNK = 4_096  # negatives whose logits are held at once
PAIRS = 65_536  # pairs whose vectors are held at once


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


def chunks(number: int, size: int) -> list[slice]:
    """0 .. number in parts of at most `size`; one empty part of nothing."""
    return [slice(start, min(start + size, number)) for start in range(0, max(number, 1), size)]


def pair_logits(state_RD: Tensor, item_ND: Tensor, row_A: Tensor, column_A: Tensor) -> Tensor:
    """float [A]: the dot product of each pair (row of a state, row of an item)."""

    def dots(part: slice) -> Tensor:
        return (state_RD[row_A[part]] * item_ND[column_A[part]]).sum(1)

    return torch.cat([recomputed(dots, part) for part in chunks(len(row_A), PAIRS)])


def log_sum_exp(logit_RC: Tensor) -> Tensor:
    """float [R]; −inf, with gradient 0, for a row of −inf: there the gradient of torch.logsumexp is no number."""
    top_R = logit_RC.detach().amax(1)
    none_R = top_R == -torch.inf
    top_R = torch.where(none_R, 0.0, top_R)
    total_R = torch.exp(logit_RC - top_R[:, None]).sum(1)
    return torch.where(none_R, -torch.inf, torch.log(torch.where(none_R, 1.0, total_R)) + top_R)


def recomputed(function: Callable[[slice], Tensor], part: slice) -> Tensor:
    """function(part), of which only the result is kept; the backward pass calls it again."""
    # Nothing in it draws random numbers.
    found: Tensor = checkpoint(function, part, use_reentrant=False, preserve_rng_state=False)
    return found
