"""This process among its peers, and the few numbers that all must agree on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


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
        """The process group that somebody (Ray Train, `open_group`) has opened; alone where there is none."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls.alone()

    def mesh(self, device: torch.device) -> DeviceMesh:
        """All ranks in one row, for DTensors on such devices."""
        return init_device_mesh(device.type, (self.count,))


def own_device() -> torch.device:
    """Where a process trains that nobody has told: on its GPU where there is one (torchrun says which), else on the
    CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def backend_of(device: torch.device) -> str:
    """What carries tensors between such devices."""
    return "nccl" if device.type == "cuda" else "gloo"


def open_group(device: torch.device) -> Ranks:
    """Open the process group that torchrun's environment describes, if nobody has; alone where there is no such
    environment."""
    if not dist.is_initialized() and {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(backend_of(device))
    return Ranks.joined()


def agree(own: Sequence[float], added: Sequence[float], ranks: Ranks, device: torch.device) -> list[float]:
    """Rank 0's numbers, and after them those that are added up over the ranks, in one message.

    For what all must decide alike: ranks that stop at different steps would wait forever.
    """
    if ranks.count == 1:
        return [*own, *added]
    told = torch.tensor([*(own if ranks.rank == 0 else [0.0] * len(own)), *added], dtype=torch.float64, device=device)
    dist.all_reduce(told)
    return [float(one) for one in told.tolist()]


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


def counts_of_all(count: int, ranks: Ranks, device: torch.device) -> list[int]:
    """Every rank's number, by rank."""
    if ranks.count == 1:
        return [count]
    found = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(ranks.count)]
    dist.all_gather(found, torch.tensor([count], device=device))
    return [int(one) for one in found]
