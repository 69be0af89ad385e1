"""Item tables whose rows lie on ranks: each rank has, moves and saves its own, and asks others for those in use."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from foundation.embedding import ItemTower
from training.parallel.exchange import Owned, rows_of_owners
from training.parallel.ranks import Ranks

BLOCK = 1 << 16  # rows that are told at once when a table is cut


class RowShards(nn.Embedding):
    """A rank's rows of a table; looks like the whole table to whoever asks for rows.

    The weight is the local part of a DTensor that is cut by rows (`whole`), kept as a plain parameter because its
    gradient is row-sparse, which DTensors know nothing of. Its gradient is complete when the backward pass is over:
    it must not be added up over ranks.
    """

    def __init__(self, row_OD: Tensor, owned: Owned) -> None:
        super().__init__(len(owned.own), row_OD.shape[1], sparse=True, _weight=row_OD)
        self.num_embeddings = owned.rows  # what codes are compared with
        self.owned = owned

    def forward(self, code: Tensor) -> Tensor:
        """float [..., D] of int64 codes."""
        return rows_of_owners(self.weight, code.flatten(), self.owned).view(*code.shape, self.embedding_dim)

    def whole(self, value_OD: Tensor, mesh: DeviceMesh) -> DTensor:
        """The rows of all ranks, of the weight or of something that an optimiser keeps of it."""
        shape = torch.Size([self.owned.rows, *value_OD.shape[1:]])
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(value_OD, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)


def cut_tables(tower: ItemTower, ranks: Ranks, device: torch.device) -> None:
    """Leave every rank its rows, on `device`, of the tables that rank 0 has; all of them never lie there at once."""
    for name in ("id", "bias"):
        table = getattr(tower, name)
        assert isinstance(table, nn.Embedding)
        owned = Owned(ranks, table.num_embeddings)
        setattr(tower, name, RowShards(_own_rows(table.weight.detach(), owned, device), owned))


def _own_rows(row_VD: Tensor, owned: Owned, device: torch.device) -> Tensor:
    own_OD = torch.empty(len(owned.own), row_VD.shape[1], dtype=row_VD.dtype, device=device)
    for start in range(0, len(row_VD), BLOCK):
        block_ND = row_VD[start : start + BLOCK].to(device, copy=True)
        dist.broadcast(block_ND, src=0)
        first, end = max(start, owned.own.start), min(start + len(block_ND), owned.own.stop)
        if first < end:
            own_OD[first - owned.own.start : end - owned.own.start] = block_ND[first - start : end - start]
    return own_OD
