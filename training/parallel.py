"""Many ranks, applied from outside: the model knows nothing of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foundation.lesson import Loss


@dataclass(frozen=True)
class Ranks:
    """This process among its peers. `alone()` needs no process group."""

    rank: int
    count: int

    @classmethod
    def alone(cls) -> Ranks:
        """One process."""
        return cls(0, 1)

    @classmethod
    def joined(cls) -> Ranks:
        """The process group that somebody (Ray Train, torchrun) has opened; alone where there is none."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls.alone()


def own_device() -> torch.device:
    """Where a process trains that nobody has told: on its GPU where there is one (torchrun says which), else on the
    CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def global_loss(losses: list[Loss], ranks: Ranks) -> tuple[Tensor, dict[str, float]]:
    """This rank's addend of the loss, and the mean of every part over all ranks.

    Loss = Σ shares × (sum over the targets of all ranks ÷ their weight): token-balanced ranks hold unequal
    numbers of targets, so a mean of means would weigh them wrongly. Gradients of the addends are to be summed.
    """
    totals = torch.stack([loss.total for loss in losses])
    sums = torch.stack([totals.detach(), torch.stack([loss.weight for loss in losses])])
    if ranks.count > 1:
        dist.all_reduce(sums)
    weights = torch.clamp(sums[1], min=1e-9)
    shares = torch.tensor([loss.share for loss in losses], device=totals.device)
    means = (sums[0] / weights).tolist()
    return (shares * totals / weights).sum(), {loss.name: mean for loss, mean in zip(losses, means, strict=True)}


def of_first(value: float, ranks: Ranks, device: torch.device) -> float:
    """Rank 0's value, for what all must decide alike: ranks that stop at different steps would wait forever."""
    if ranks.count == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(told, src=0)
    return float(told)


def largest(value: float, ranks: Ranks) -> float:
    """The largest of all ranks."""
    if ranks.count == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64, device=_where_ranks_meet())
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return float(told)


def total(count_V: Tensor, ranks: Ranks) -> Tensor:
    """Counts of all ranks, added up, where they were."""
    if ranks.count == 1:
        return count_V
    told_V = count_V.to(_where_ranks_meet(), copy=True)
    dist.all_reduce(told_V)
    return told_V.to(count_V.device)


def _where_ranks_meet() -> torch.device:
    """NCCL knows no CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def anybody(wish: bool, ranks: Ranks) -> bool:
    """Whether any rank wishes it, so that all do alike."""
    return largest(float(wish), ranks) > 0


def global_count(count: int, ranks: Ranks, device: torch.device) -> int:
    """Σ over the ranks."""
    if ranks.count == 1:
        return count
    total = torch.tensor([count], device=device)
    dist.all_reduce(total)
    return int(total)


def sum_gradients(parameters: Iterable[Tensor], ranks: Ranks) -> None:
    """Add up gradients over the ranks, row-sparse ones by their rows."""
    if ranks.count == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad.is_sparse:
            parameter.grad = _sum_rows(parameter.grad.coalesce(), ranks)
        else:
            dist.all_reduce(parameter.grad)


def summed(tensors: Iterable[Tensor], ranks: Ranks) -> list[Tensor]:
    """Dense tensors added up over the ranks, each in its place."""
    found = list(tensors)
    if ranks.count > 1:
        for tensor in found:
            dist.all_reduce(tensor)
    return found


def broadcast(model: nn.Module, ranks: Ranks) -> None:
    """Start every rank from the weights of the first."""
    if ranks.count > 1:
        for tensor in model.parameters():
            dist.broadcast(tensor.data, src=0)


def _sum_rows(gradient: Tensor, ranks: Ranks) -> Tensor:
    """Gather the rows of all ranks, padded to the longest; adding happens in `coalesce`."""
    rows, values = gradient.indices()[0], gradient.values()
    lengths = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(ranks.count)]
    dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
    longest = int(torch.stack(lengths).max())
    all_rows = [rows.new_zeros(longest) for _ in lengths]
    all_values = [values.new_zeros(longest, values.shape[1]) for _ in lengths]
    dist.all_gather(all_rows, torch.cat([rows, rows.new_zeros(longest - len(rows))]))
    dist.all_gather(all_values, torch.cat([values, values.new_zeros(longest - len(values), values.shape[1])]))
    kept_rows = torch.cat([one[: int(n)] for one, n in zip(all_rows, lengths, strict=True)])
    kept_values = torch.cat([one[: int(n)] for one, n in zip(all_values, lengths, strict=True)])
    return torch.sparse_coo_tensor(kept_rows[None], kept_values, gradient.shape).coalesce()
