"""Rows that go from rank to rank, and their gradients that come back.

Everything is one collective, all-to-all, which gloo and nccl both have and which is its own backward. Ranks call these
functions in the same order; the backward pass then does so too, since autograd goes through a graph from the youngest
node to the oldest.

Shapes beside those of jagged.py: Q rows of all ranks, one rank after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.parallel.ranks import Ranks, counts_of_all


def exchanged(value_N: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
    """The next `sent[r]` rows go to rank r; what came of each rank, in turn. Any type and shape of a row."""
    out = value_N.new_empty(sum(received), *value_N.shape[1:])
    dist.all_to_all_single(out, value_N.contiguous(), list(received), list(sent))
    return out


@dataclass(frozen=True)
class Owned:
    """A table whose row v is with rank v // `each`, as DTensor's Shard(0) has it. rows: of all ranks."""

    ranks: Ranks
    rows: int

    @property
    def each(self) -> int:
        """Rows of a rank; the last ones may have fewer."""
        return -(-self.rows // self.ranks.count)

    @property
    def own(self) -> range:
        """The rows of this rank."""
        first = min(self.each * self.ranks.rank, self.rows)
        return range(first, min(first + self.each, self.rows))


def rows_of_owners(weight_OD: Tensor, code_N: Tensor, owned: Owned) -> Tensor:
    """float [N, D]: rows of a table by their codes, whoever has them; gradients go to the owner, row-sparse.

    weight_OD: this rank's rows. code_N: int64; each rank asks for its own.
    """
    found: Tensor = _Rows.apply(weight_OD, code_N, owned)  # type: ignore[no-untyped-call]
    return found


def gathered(value_RD: Tensor, counts: Sequence[int], ranks: Ranks) -> Tensor:
    """[Q, D]: the rows of all ranks on every rank; gradients of them add up where they come from. counts: R by rank."""
    found: Tensor = _Gathered.apply(value_RD, counts, ranks)  # type: ignore[no-untyped-call]
    return found


def returned(value_Q: Tensor, counts: Sequence[int], ranks: Ranks) -> Tensor:
    """[R, ranks]: what every rank says of this rank's rows. value_Q: what this one says of the rows of all."""
    found: Tensor = _Returned.apply(value_Q, counts, ranks)  # type: ignore[no-untyped-call]
    return found


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_OD: Tensor, code_N: Tensor, owned: Owned) -> Tensor:
        owner_N = code_N // owned.each
        order_N = torch.argsort(owner_N, stable=True)
        count_K = torch.bincount(owner_N, minlength=owned.ranks.count)
        sent, received = count_K.tolist(), exchanged(count_K, [1] * len(count_K), [1] * len(count_K)).tolist()
        asked_A = exchanged(code_N[order_N], sent, received) - owned.own.start
        row_ND = torch.empty(len(code_N), weight_OD.shape[1], dtype=weight_OD.dtype, device=weight_OD.device)
        row_ND[order_N] = exchanged(weight_OD[asked_A], received, sent)
        ctx.sent, ctx.received, ctx.shape = sent, received, weight_OD.shape
        ctx.save_for_backward(order_N, asked_A)
        return row_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_ND: Tensor) -> tuple[Tensor, None, None]:
        order_N, asked_A = ctx.saved_tensors
        slope_AD = exchanged(slope_ND[order_N], ctx.sent, ctx.received)
        return torch.sparse_coo_tensor(asked_A[None], slope_AD, ctx.shape), None, None


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value_RD: Tensor, counts: Sequence[int], ranks: Ranks) -> Tensor:
        ctx.counts, ctx.ranks = counts, ranks
        to_all = value_RD.expand(ranks.count, *value_RD.shape).flatten(0, 1)
        return exchanged(to_all, [len(value_RD)] * ranks.count, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_QD: Tensor) -> tuple[Tensor, None, None]:
        own, ranks = ctx.counts[ctx.ranks.rank], ctx.ranks.count
        slopes = exchanged(slope_QD, ctx.counts, [own] * ranks)
        return slopes.view(ranks, own, *slopes.shape[1:]).sum(0), None, None


class _Returned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value_Q: Tensor, counts: Sequence[int], ranks: Ranks) -> Tensor:
        own = counts[ranks.rank]
        ctx.counts, ctx.own, ctx.ranks = counts, own, ranks
        return exchanged(value_Q, counts, [own] * ranks.count).view(ranks.count, own).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_RK: Tensor) -> tuple[Tensor, None, None]:
        return exchanged(slope_RK.T.flatten(), [ctx.own] * ctx.ranks.count, ctx.counts), None, None


def request_counts(value_R: Tensor, ranks: Ranks) -> list[int]:
    """How many rows of such a tensor each rank has."""
    return counts_of_all(len(value_R), ranks, value_R.device)
