"""What an item's age decides: how much its own row counts beside its content, and what is popular while nobody met it.

A row of an item that was met a few times says little, and one of an item that nobody met says nothing. So a vector is
content + share(age) × row, and a popularity is share × its own + (1 − share) × what items of its categories had that
were new. A score is then q · content + share × (q · row): two products for all candidates that requests share, and no
vector a pair. Scaling a row by what is known of its item, until it is warm: Zhu et al., Learning to Warm Up Cold Item
Embeddings, arXiv:2105.04790; hiding rows in training: Volkovs et al., DropoutNet, NeurIPS 2017; hiding those of young
items more often, and giving candidates another's row: PinFM, arXiv:2507.12704.

Shapes beside those of jagged.py: A bins of age; I kinds of categories. Moments and ages are int64 microseconds: as
float32, which weights are saved as, seconds since 1970 would be told to two minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from foundation.config import ItemConfig

FLOOR = 0.1  # recent meetings that every item has, so that a popularity has a logarithm
_DOUBLINGS = range(-1, 10)  # edges between bins of age: so often twice the usual gap between two groups
_FAR = 1 << 60
UNKNOWN_AGE, NEVER = -2 * _FAR, 2 * _FAR
"""Since when an item is there whose age nobody knows, and one that nobody has met. Both leave room for a difference."""
START = 2.0  # the logit of a share that counts for 0.88, from which it still moves easily


@dataclass(frozen=True)
class ItemAges:
    """What a log tells of items' ages, up to the end of what may be learned of it.

    since_V: int64 microseconds since 1970 from which on an item is met; `UNKNOWN_AGE`, `NEVER`. as_of_1: int64 [1], the
    end. debut_V: float32 recent meetings (as `ItemContent.recent_V`) of items that were first met lately, 0 of others.
    unmet_V: bool, whether nobody had met the item before that.
    """

    since_V: Tensor
    as_of_1: Tensor
    debut_V: Tensor
    unmet_V: Tensor

    @classmethod
    def untold(cls, codes: int) -> ItemAges:
        """Of a log that tells no ages."""
        since_V = torch.full((codes,), UNKNOWN_AGE)
        return cls(since_V, torch.zeros(1, dtype=torch.int64), torch.zeros(codes), torch.zeros(codes).bool())


@dataclass(frozen=True)
class Hidden:
    """What a lesson hides of items' own rows, for all that read them alike: history, candidates and own items.

    draw_V: float32 in [0, 1): an item hides its row at an age whose share_A is above its draw; empty: none does.
    share_A: float32, one of each bin of age (`bin_ages`), or a single one for all ages. row_V: int64, the row that each
    item reads as a candidate; empty: its own.
    """

    draw_V: Tensor = field(default_factory=lambda: torch.zeros(0))
    share_A: Tensor = field(default_factory=lambda: torch.zeros(1))
    row_V: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    @property
    def some(self) -> bool:
        """Whether anything is hidden, or read elsewhere."""
        return len(self.draw_V) > 0 or len(self.row_V) > 0

    def kept(self, code_N: Tensor, bin_N: Tensor) -> Tensor:
        """float32 of the shape that both broadcast to: 1 where an item of that age shows its row."""
        if not len(self.draw_V):
            return torch.ones((), device=code_N.device)
        share_N = self.share_A[bin_N] if len(self.share_A) > 1 else self.share_A
        return (self.draw_V[code_N] >= share_N).float()

    def row_of(self, code_N: Tensor) -> Tensor:
        """int64 [N]: whose row each candidate reads."""
        return self.row_V[code_N] if len(self.row_V) else code_N


NOTHING_HIDDEN = Hidden()


@dataclass(frozen=True)
class Aged:
    """What of N candidates' vectors and popularities counts as their ages at R requests say.

    id_ND: rows. lead_N: what the item's own popularity is above that of a new one. shares: (codes, moments) → share.
    """

    code_N: Tensor
    id_ND: Tensor
    lead_N: Tensor
    moment_R: Tensor
    shares: Callable[[Tensor, Tensor], Tensor]

    @cached_property
    def share_RN(self) -> Tensor:
        """float [R, N]; made once for all that is asked of the same requests."""
        return self._share(slice(None))

    def logits(self, state_RD: Tensor) -> Tensor:
        """float [R, N]: what is added to the scores of all candidates."""
        return self.share_RN * (state_RD @ self.id_ND.T + self.lead_N)

    def some_logits(self, state_RD: Tensor, part: slice) -> Tensor:
        """float [R, C] of some of the candidates, of which nothing is kept."""
        return self._share(part) * (state_RD @ self.id_ND[part].T + self.lead_N[part])

    def pair_logits(self, dot_A: Tensor, row_A: Tensor, column_A: Tensor) -> Tensor:
        """float [A] of pairs of a request and a candidate. dot_A: of their states and `id_ND`."""
        return self.shares(self.code_N[column_A], self.moment_R[row_A]) * (dot_A + self.lead_N[column_A])

    def _share(self, part: slice) -> Tensor:
        return self.shares(self.code_N[part][None], self.moment_R[:, None])


class AgeGate(nn.Module):
    """How much an item's own row counts at a moment, by its age: one learned share a bin.

    Bins double from half the usual gap between two groups on; an age that nobody knows has a bin of its own. Before an
    item is met its row counts nothing. Nothing else would do: in a lesson the row knows what came later, at a request
    it has never moved, so a share that is learned there would be learned of something else.
    """

    def __init__(self, unit: float, codes: int, ages: ItemAges) -> None:
        """unit: seconds, the usual gap between two groups."""
        super().__init__()
        self.logit_A = nn.Parameter(torch.full((len(bin_ages(unit)) - 1,), START))
        self.register_buffer("edge_A", _edges(unit), persistent=False)
        self.register_buffer("since_V", ages.since_V[:codes].clone())
        self.register_buffer("as_of_1", ages.as_of_1.clone())

    edge_A: Tensor
    since_V: Tensor
    as_of_1: Tensor

    @property
    def constant(self) -> bool:
        """Whether no item has an age, so that one share stands for all that were met."""
        return bool(((self.since_V == UNKNOWN_AGE) | (self.since_V == NEVER)).all())

    def bins(self, code_N: Tensor, moment_N: Tensor) -> Tensor:
        """int64 of the shape that both broadcast to: 0 before an item is met. Codes that came after training were never
        met in it, and so have no row."""
        known_N = code_N < len(self.since_V)
        since_N = torch.where(known_N, self.since_V[torch.where(known_N, code_N, 0)], NEVER)
        return torch.bucketize(moment_N - since_N, self.edge_A, right=True)

    def forward(self, bin_N: Tensor) -> Tensor:
        """float of the same shape, from 0 to 1."""
        return torch.cat([self.logit_A.new_zeros(1), torch.sigmoid(self.logit_A)])[bin_N]


class NewPopularity(nn.Module):
    """How likely an item is that nobody met yet, as a logit: what new items of its categories had lately.

    A log-linear lift of each category's share with a prior towards all new items, as in `CategoryAffinity`, with a
    learned weight for each kind of category.
    """

    def __init__(self, config: ItemConfig, category_VC: Tensor, ages: ItemAges) -> None:
        super().__init__()
        kinds = len(config.categories)
        unmet_V, debut_V = ages.unmet_V.float(), ages.debut_V * ages.unmet_V
        rate = float(debut_V.sum() / torch.clamp(unmet_V.sum(), min=1.0))
        self.log_rate_1 = nn.Parameter(torch.tensor([math.log(rate + (rate == 0.0) * FLOOR)]))
        self.weight_I = nn.Parameter(torch.full((kinds,), 1.0 / max(kinds, 1)))
        self.sizes = [size for _, size in config.categories]
        for kind, size in enumerate(self.sizes):
            code_V = _known(category_VC[: len(unmet_V), kind], size)
            met_S = torch.zeros(size).index_add_(0, code_V, debut_V)
            expected_S = torch.zeros(size).index_add_(0, code_V, unmet_V * rate)
            self.register_buffer(f"lift_{kind}", torch.log((met_S + 1.0) / (expected_S + 1.0)))

    def forward(self, category_NC: Tensor) -> Tensor:
        """float [N] of items with these category codes."""
        found_N = self.log_rate_1.expand(category_NC.shape[0])
        for kind, size in enumerate(self.sizes):
            lift_S: Tensor = getattr(self, f"lift_{kind}")
            found_N = found_N + self.weight_I[kind] * lift_S[_known(category_NC[:, kind], size)]
        return found_N


def moments(seconds_N: Tensor) -> Tensor:
    """int64 microseconds of float64 seconds."""
    return torch.round(seconds_N * 1e6).to(torch.int64)


def bin_ages(unit: float) -> tuple[float, ...]:
    """Seconds at which each bin of age begins: nobody met yet, the bins of ages, and last an age nobody knows (inf)."""
    return (-math.inf, 0.0, *(unit * 2.0**doubling for doubling in _DOUBLINGS), math.inf)


def _edges(unit: float) -> Tensor:
    """int64: where the bins after the first begin. An item is met from the microsecond after it was first met on."""
    ages = [max(round(age * 1e6), 1) for age in bin_ages(unit)[1:-1]]
    return torch.tensor([*ages, _FAR])


def _known(code_N: Tensor, size: int) -> Tensor:
    """Categories that came after training read as unknown, 1."""
    return torch.where(code_N < size, code_N, 1)
