"""Sampled softmax over negatives whose rows lie on ranks.

The negatives of a step are the same for all ranks. Each rank scores those whose rows it has, for the requests of all,
and tells every rank the log Σ exp of them for its requests; the log Σ exp over what the ranks tell is that of all
negatives. So no row of a negative ever leaves its rank, as with the vocabulary-parallel loss of Shoeybi et al.,
Megatron-LM, arXiv:1909.08053; what goes over the wire is a state a request instead.

What competes beside the negatives (a user's own items, targets) is each request's own, and scored where the request is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foundation.lesson import Lesson
from foundation.objectives.blocks import contest_sums
from foundation.objectives.contests import Bonus, Contest, Vectors
from foundation.objectives.targets import Negatives, Shown
from training.parallel.exchange import Owned, gathered, request_counts, returned


@dataclass(frozen=True)
class Owners:
    """Contests of one lesson, beside the negatives of all ranks.

    code_M: int64, the negatives of all, ascending. own: places of this rank's among them.
    """

    owned: Owned
    code_M: Tensor
    own: range

    def __call__(self, state_RD: Tensor, among: Vectors, contest: Contest, bonus: Bonus) -> tuple[Tensor, Tensor]:
        """As `contest_sums`: float [R, ranks], the log Σ exp of each rank's negatives, and float [A]."""
        ranks, pairs = self.owned.ranks, contest.pairs
        counts = request_counts(state_RD, ranks)
        state_QD = gathered(state_RD, counts, ranks)
        lifts = tuple(gathered(lift_RS, counts, ranks) for lift_RS in bonus.lifts)
        sums_Q1, _ = contest_sums(state_QD, _first(among, len(self.own)), self._hits(contest, counts), Bonus(lifts))
        shown_A = among.pair_logits(state_RD, pairs.row_A, contest.column_A) + bonus.shown_A + contest.log_weight_A
        return returned(sums_Q1.squeeze(1), counts, ranks), shown_A

    def _hits(self, contest: Contest, counts: list[int]) -> Contest:
        """This rank's negatives, and whichever of them requests of any rank are shown anyway."""
        ranks, pairs, negatives = self.owned.ranks, contest.pairs, contest.negatives
        place_A = torch.searchsorted(self.code_M, pairs.code_A)
        padded = torch.cat([self.code_M, self.code_M.new_full((1,), -1)])
        hit_A = padded[place_A] == pairs.code_A
        told_H2 = torch.stack([pairs.row_A[hit_A] + sum(counts[: ranks.rank]), place_A[hit_A]], dim=1)
        told_H2 = gathered(told_H2, request_counts(told_H2, ranks), ranks)
        told_H2 = told_H2[(told_H2[:, 1] >= self.own.start) & (told_H2[:, 1] < self.own.stop)]
        row_H, column_H = told_H2[:, 0], told_H2[:, 1] - self.own.start
        shown = Shown(row_H, negatives.code_M[column_H], row_H[:0])
        return Contest(contest.target, shown, column_H, negatives)


def owners_part(lesson: Lesson, owned: Owned) -> tuple[Lesson, Owners]:
    """The lesson with those of its negatives alone whose rows are on this rank, and what sums contests with all."""
    negatives = lesson.negatives
    ends = torch.tensor([owned.own.start, owned.own.stop], device=negatives.code_M.device)
    first, end = torch.searchsorted(negatives.code_M, ends).tolist()
    own = Negatives(negatives.code_M[first:end], negatives.log_expected_M[first:end])
    return replace(lesson, negatives=own), Owners(owned, negatives.code_M, range(first, end))


def _first(among: Vectors, number: int) -> Vectors:
    return Vectors(among.item_ND[:number], among.popularity_N[:number], among.category_NC[:number])
