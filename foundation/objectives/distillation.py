"""What somebody says of a contest is drawn towards what somebody else says who knows better: a larger model, or of the
same model the last layer, which teaches the earlier ones.

The one softmax is drawn to the other by the Kullback-Leibler divergence (Hinton et al., arXiv:1503.02531). Zhang et
al., Be Your Own Teacher, arXiv:1905.08094: the deepest classifier of a network teaches the shallower ones, which
makes the layers that it builds on say more. Nothing of it is left in the finished model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.jagged import segment_max, segment_sum
from foundation.objectives.contests import Bonus, Contest, Vectors, contest_logits, weighted_logits
from foundation.objectives.softmax import CHUNK, chunks, log_sum_exp, recomputed

LIKE = 512  # requests whose states are compared with one another


@dataclass(frozen=True)
class View:
    """How somebody sees a contest: states, candidates in the same space, and what scores add to the product."""

    state_RD: Tensor
    among: Vectors
    bonus: Bonus = field(default_factory=Bonus)

    def logits(self, contest: Contest, part: slice) -> Tensor:
        """float [R, C] of some of the negatives, with their log weights."""
        return weighted_logits(self.state_RD, self.among, contest, part, self.bonus.lifts)

    def pair_logits(self, contest: Contest) -> Tensor:
        """float [A] of the shown pairs, with their log weights."""
        logit_A = self.among.pair_logits(self.state_RD, contest.pairs.row_A, contest.column_A)
        return logit_A + self.bonus.shown_A + contest.log_weight_A


def contest_divergence(teacher: View, student: View, contest: Contest, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Σ over requests of KL(teacher ‖ student), each a softmax over all that compete; and the number of requests.

    What the teacher says gets no gradient. A request that nobody competes for diverges by 0.
    """
    number, pairs, requests = len(contest.negatives), contest.pairs, len(student.state_RD)
    if number <= chunk:
        (told_RM, told_A), (said_RM, said_A) = (
            contest_logits(one.state_RD, one.among, contest, one.bonus, chunk) for one in (teacher, student)
        )
        parts = [_reduced(told_RM.detach(), said_RM)] if number else []
    else:

        def reduced(part: slice) -> Tensor:
            return _reduced(teacher.logits(contest, part).detach(), student.logits(contest, part))

        parts = [recomputed(reduced, part) for part in chunks(number, chunk)]
        told_A, said_A = teacher.pair_logits(contest), student.pair_logits(contest)
    parts.append(_reduced_pairs(told_A.detach(), said_A, pairs.row_A, requests))
    told_RK, said_RK, difference_RK = torch.stack(parts, dim=1).unbind(2)
    told_R, said_R = log_sum_exp(told_RK), log_sum_exp(said_RK)
    some_R = told_R > -torch.inf
    share_RK = torch.exp(told_RK - torch.where(some_R, told_R, 0.0)[:, None])
    divergence_R = (share_RK * difference_RK).sum(1) + torch.where(some_R, said_R - told_R, 0.0)
    return divergence_R.sum(), divergence_R.new_tensor(float(len(divergence_R)))


def compared(requests: int) -> range:
    """Which of so many requests have their states compared: all, or of many some that stand evenly among them."""
    return range(0, requests, max(-(-requests // LIKE), 1))


def likeness(teacher_RD: Tensor, student_RD: Tensor) -> tuple[Tensor, Tensor]:
    """Σ over pairs of requests (`compared`) of how much two cosines differ, squared: that of the teacher's states,
    float [R, D], and that of the student's, which may be of another width; and the number of pairs.
    """
    step = compared(len(student_RD)).step
    told_ND, said_ND = (F.normalize(one_RD[::step], dim=1) for one_RD in (teacher_RD.detach(), student_RD))
    difference_NN = told_ND @ told_ND.T - said_ND @ said_ND.T
    return difference_NN.square().sum(), difference_NN.new_tensor(float(difference_NN.numel()))


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
