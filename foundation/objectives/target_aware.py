"""What target-aware scoring learns from: a slate of candidates for each request, and their softmax.

A request competes with thousands of items; looking closely at each of them would cost more than the rest of a step. So
some are drawn, those that the plain score likes most far more often, since the scorer will be asked about these:
without replacement by perturbed logits (Gumbel-top-k: Kool, van Hoof & Welling, arXiv:1903.06059), each standing for
as many as its chance of being drawn says (their section 4.2; Duffield, Lund & Thorup, Priority sampling, JACM 2007). So
the denominator is right in the mean, whatever the plain scores are, and no item gains by never being drawn.

The plain score is read, not trained, here: it has to be good by itself, since it chooses who is looked at.
Shapes: S competitors and W wanted items of a request, together its N candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.objectives.targets import Shown

WANTED = 32  # items of a target group that are learned from at once; of a larger group so many are drawn


@dataclass(frozen=True)
class Contenders:
    """All that compete in a step, by their plain scores, and who is wanted.

    negative_RM: float logits of the negatives with their log weights. shown_A: the same of the shown pairs. column_A:
    int64, where each pair's item stands among the step's candidates, the first M of which are the negatives. weight_A:
    float32 weight of each pair as a target; those without compete (own items, what was shown in vain). code_M, key_R:
    int64, what the chance of each item and request is drawn from.
    """

    negative_RM: Tensor
    shown_A: Tensor
    pairs: Shown
    column_A: Tensor
    weight_A: Tensor
    code_M: Tensor
    key_R: Tensor

    def some(self, share: float) -> tuple[Tensor, Contenders]:
        """About so many of the requests, drawn by chance: int64 rows, ascending, and what competes there."""
        chosen_R = _uniform(_mixed(self.key_R) - _salt(self.code_M)) < share
        new_R = torch.cumsum(chosen_R, 0) - 1
        kept_A = chosen_R[self.pairs.row_A]
        pairs = Shown(new_R[self.pairs.row_A[kept_A]], self.pairs.code_A[kept_A], self.pairs.place_E[:0])
        row_S = chosen_R.nonzero().squeeze(1)
        return row_S, Contenders(
            self.negative_RM[row_S],
            self.shown_A[kept_A],
            pairs,
            self.column_A[kept_A],
            self.weight_A[kept_A],
            self.code_M,
            self.key_R[row_S],
        )


@dataclass(frozen=True)
class Slate:
    """N = S + W candidates of each request, the wanted ones last.

    column_RN: int64 place among the step's candidates. plain_RN: float plain logit plus log of how many it stands for;
    −inf: nobody. weight_RW: float32 weight of each wanted item; 0 where there is none.
    """

    column_RN: Tensor
    plain_RN: Tensor
    weight_RW: Tensor


def target_weights(place_E: Tensor, weight_E: Tensor, pairs: int) -> Tensor:
    """float32 [A]: weight of each shown pair as a target; a pair that is bought twice weighs twice."""
    return weight_E.new_zeros(pairs).index_add(0, place_E, weight_E)


@torch.no_grad()
def slate(contenders: Contenders, competitors: int) -> Slate:
    """Draw at most `competitors` of what each request does not want, and put what it wants beside them."""
    rows, negatives = contenders.negative_RM.shape
    uniform_RM, uniform_A = _chances(contenders)
    wanted_A = contenders.weight_A > 0
    others = _Rows.of(~wanted_A, contenders.pairs.row_A, uniform_A, rows)
    wanted = _Rows.of(wanted_A, contenders.pairs.row_A, uniform_A, rows).first(WANTED)
    column_M = torch.arange(negatives, device=wanted_A.device)
    column_RC = torch.cat([column_M.expand(rows, -1), others.rectangle(contenders.column_A, 0)], dim=1)
    logit_RC = torch.cat([contenders.negative_RM, others.rectangle(contenders.shown_A, -torch.inf)], dim=1)
    uniform_RC = torch.cat([uniform_RM, others.rectangle(uniform_A, 0.5)], dim=1)
    drawn_RS, log_stands_RS = drawn(logit_RC, uniform_RC, competitors)
    return Slate(
        torch.cat([column_RC.gather(1, drawn_RS), wanted.rectangle(contenders.column_A, 0)], dim=1),
        torch.cat(
            [logit_RC.gather(1, drawn_RS) + log_stands_RS, wanted.rectangle(contenders.shown_A, -torch.inf)], dim=1
        ),
        wanted.rectangle(contenders.weight_A, 0.0),
    )


def slate_softmax(found: Slate, bonus_RN: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the wanted under plain score plus bonus; (sum, weight)."""
    logit_RN = found.plain_RN + bonus_RN
    wanted = found.weight_RW.shape[1]
    asked_R1 = found.weight_RW.sum(1, keepdim=True) > 0
    # A request without a candidate has no target either, and its logarithm no gradient.
    total_R1 = torch.logsumexp(torch.where(asked_R1, logit_RN, 0.0), dim=1, keepdim=True)
    loss_RW = torch.where(found.weight_RW > 0, total_R1 - logit_RN[:, logit_RN.shape[1] - wanted :], 0.0)
    return (loss_RW * found.weight_RW).sum(), found.weight_RW.sum()


def drawn(logit_RC: Tensor, uniform_RC: Tensor, competitors: int) -> tuple[Tensor, Tensor]:
    """int64 [R, S] those drawn without replacement in proportion to exp(logit), and the log of 1 ÷ their chance."""
    perturbed_RC = logit_RC - torch.log(-torch.log(uniform_RC))
    size = min(competitors, logit_RC.shape[1])
    # The first that is not drawn is the bar that all others have passed; where there is none, all were certain.
    bar_R1 = F.pad(perturbed_RC, (0, 1), value=-torch.inf).topk(size + 1, dim=1).values[:, -1:]
    drawn_RS = perturbed_RC.topk(size, dim=1).indices
    over_RS = torch.where(bar_R1 > -torch.inf, logit_RC.gather(1, drawn_RS) - bar_R1, torch.inf)
    return drawn_RS, -torch.log(-torch.expm1(-torch.exp(over_RS)))


@dataclass(frozen=True)
class _Rows:
    """Some of the pairs, each request's as the beginning of a row. pair_N: which; row_N, place_N: where they go."""

    pair_N: Tensor
    row_N: Tensor
    place_N: Tensor
    rows: int

    @classmethod
    def of(cls, among_A: Tensor, row_A: Tensor, uniform_A: Tensor, rows: int) -> _Rows:
        """Those of the A pairs that are among them, in an order by chance."""
        pair_N = among_A.nonzero().squeeze(1)
        pair_N = pair_N[torch.argsort(row_A[pair_N] + uniform_A[pair_N].double())]
        row_N = row_A[pair_N]
        count_R = torch.bincount(row_N, minlength=rows)
        place_N = torch.arange(len(row_N), device=row_N.device) - (count_R.cumsum(0) - count_R)[row_N]
        return cls(pair_N, row_N, place_N, rows)

    def first(self, places: int) -> _Rows:
        """At most so many of each request."""
        kept_N = self.place_N < places
        return _Rows(self.pair_N[kept_N], self.row_N[kept_N], self.place_N[kept_N], self.rows)

    def rectangle(self, value_A: Tensor, fill: float) -> Tensor:
        """[R, places] values of the pairs, as wide as the longest row."""
        width = int(self.place_N.max()) + 1 if len(self.place_N) else 0
        out = value_A.new_full((self.rows, width), fill)
        return out.index_put((self.row_N, self.place_N), value_A[self.pair_N])


def _chances(contenders: Contenders) -> tuple[Tensor, Tensor]:
    """float32 in (0, 1) for each negative of each request, and for each pair.

    Made from the item, the request and the step's negatives alone: whoever holds the request, on however many ranks,
    draws the same slate, and a run that resumes draws what it would have drawn.
    """
    code_M = _mixed(contenders.code_M)
    key_R = _mixed(contenders.key_R + code_M.sum())
    code_A = contenders.pairs.code_A
    return _uniform(key_R[:, None] + code_M), _uniform(key_R[contenders.pairs.row_A] + _mixed(code_A))


def _salt(code_M: Tensor) -> Tensor:
    """int64 of the step: of which items were drawn as negatives."""
    return _mixed(code_M).sum()


def _uniform(bits: Tensor) -> Tensor:
    """The middle of one of 2^23 cells of (0, 1), which float32 holds exactly: never 0 or 1."""
    return ((_mixed(bits) & (2**23 - 1)).float() + 0.5) * 2.0**-23


def _mixed(bits: Tensor) -> Tensor:
    """int64 whose every bit depends on every bit given: a step of SplitMix64 (Steele et al., OOPSLA 2014)."""
    bits = bits - 0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        bits = (bits ^ _shifted(bits, shift)) * factor
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """To the right, zeros coming in."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
