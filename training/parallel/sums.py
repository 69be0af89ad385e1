"""Losses and gradients of many ranks, added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foundation.lesson import Loss
from training.parallel.ranks import Ranks
from training.parallel.tables import RowShards


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


def global_weights(found: Sequence[Mapping[str, Tensor]], ranks: Ranks) -> dict[str, Tensor]:
    """Σ over lessons and ranks of what each loss weighs, by name."""
    names = list(found[0])
    weight_L = torch.stack([torch.stack([weights[name] for name in names]) for weights in found]).sum(0)
    if ranks.count > 1:
        dist.all_reduce(weight_L)
    return dict(zip(names, torch.clamp(weight_L, min=1e-9), strict=True))


def addend_of(losses: Sequence[Loss], weights: Mapping[str, Tensor]) -> Tensor:
    """One lesson's addend of a loss whose weights are known: Σ share × total ÷ weight."""
    return torch.stack([loss.share * loss.total / weights[loss.name] for loss in losses]).sum()


def global_means(found: Sequence[Sequence[Loss]], weights: Mapping[str, Tensor], ranks: Ranks) -> dict[str, float]:
    """The mean of every part over all lessons and ranks.

    Raises AssertionError where a loss does not weigh what was foretold: its gradient was another one's.
    """
    sums = torch.stack(
        [torch.stack([torch.stack([loss.total.detach(), loss.weight]) for loss in one]) for one in found]
    ).sum(0)
    if ranks.count > 1:
        dist.all_reduce(sums)
    means = {}
    for loss, (total, weight) in zip(found[0], sums.tolist(), strict=True):
        foretold = float(weights[loss.name])
        assert math.isclose(max(weight, 1e-9), foretold, rel_tol=1e-4), f"{loss.name} weighs {weight}, not {foretold}"
        means[loss.name] = total / foretold
    return means


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
    """Start every rank from the weights of the first, but for tables that are cut: there each rank has its own."""
    if ranks.count == 1:
        return
    for module in model.modules():
        if not isinstance(module, RowShards):
            for weight in module.parameters(recurse=False):
                dist.broadcast(weight.data, src=0)


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
