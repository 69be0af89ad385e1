"""Self-distillation: what an earlier layer says of a contest is drawn towards what the last one says.

Zhang et al., Be Your Own Teacher, arXiv:1905.08094: the deepest classifier of a network teaches the shallower ones by
the Kullback-Leibler divergence, which makes the layers that it builds on say more. Nothing of it is left in the
finished model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foundation.jagged import segment_max, segment_sum
from foundation.objectives.contests import Bonus, Contest, Vectors, contest_logits, weighted_logits
from foundation.objectives.softmax import CHUNK, chunks, log_sum_exp, recomputed


def contest_divergence(
    teacher_RD: Tensor, student_RD: Tensor, among: Vectors, contest: Contest, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Σ over requests of KL(teacher ‖ student), each a softmax over all that compete; and the number of requests.

    The teacher's states get no gradient. A request that nobody competes for diverges by 0.
    """
    teacher_RD, number, pairs = teacher_RD.detach(), len(contest.negatives), contest.pairs
    if number <= chunk:
        (told_RM, told_A), (said_RM, said_A) = (
            contest_logits(state_RD, among, contest, Bonus(), chunk) for state_RD in (teacher_RD, student_RD)
        )
        parts = [_reduced(told_RM.detach(), said_RM)] if number else []
    else:

        def reduced(part: slice) -> Tensor:
            told_RC = weighted_logits(teacher_RD, among, contest, part).detach()
            return _reduced(told_RC, weighted_logits(student_RD, among, contest, part))

        parts = [recomputed(reduced, part) for part in chunks(number, chunk)]
        told_A, said_A = (
            among.pair_logits(state_RD, pairs.row_A, contest.column_A) + contest.log_weight_A
            for state_RD in (teacher_RD, student_RD)
        )
    parts.append(_reduced_pairs(told_A.detach(), said_A, pairs.row_A, len(teacher_RD)))
    told_RK, said_RK, difference_RK = torch.stack(parts, dim=1).unbind(2)
    told_R, said_R = log_sum_exp(told_RK), log_sum_exp(said_RK)
    some_R = told_R > -torch.inf
    share_RK = torch.exp(told_RK - torch.where(some_R, told_R, 0.0)[:, None])
    divergence_R = (share_RK * difference_RK).sum(1) + torch.where(some_R, said_R - told_R, 0.0)
    return divergence_R.sum(), divergence_R.new_tensor(float(len(divergence_R)))


def _reduced(told_RC: Tensor, said_RC: Tensor) -> Tensor:
    """float [R, 3]: log Σ exp of both, and the expected difference of their logits under the teacher's softmax."""
    told_R, said_R = log_sum_exp(told_RC), log_sum_exp(said_RC)
    there_RC = told_RC > -torch.inf
    share_RC = torch.exp(told_RC - torch.where(told_R > -torch.inf, told_R, 0.0)[:, None])
    difference_RC = torch.where(there_RC, told_RC, 0.0) - torch.where(there_RC, said_RC, 0.0)
    return torch.stack([told_R, said_R, (share_RC * difference_RC).sum(1)], dim=1)


def _reduced_pairs(told_A: Tensor, said_A: Tensor, row_A: Tensor, requests: int) -> Tensor:
    """The same of jagged pairs."""
    told_R, said_R = (_pairs_log_sum_exp(one_A, row_A, requests) for one_A in (told_A, said_A))
    share_A = torch.exp(told_A - told_R[row_A])
    return torch.stack([told_R, said_R, segment_sum(share_A * (told_A - said_A), row_A, requests)], dim=1)


def _pairs_log_sum_exp(logit_A: Tensor, row_A: Tensor, requests: int) -> Tensor:
    top_R = segment_max(logit_A.detach(), row_A, requests)
    none_R = top_R == -torch.inf
    top_R = torch.where(none_R, 0.0, top_R)
    total_R = segment_sum(torch.exp(logit_A - top_R[row_A]), row_A, requests)
    return torch.where(none_R, -torch.inf, torch.log(torch.where(none_R, 1.0, total_R)) + top_R)
