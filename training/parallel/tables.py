"""Item tables whose rows lie on ranks: each rank has, moves and saves its own, and asks others for those in use."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foundation.embedding import ItemTower
from training.parallel.exchange import Owned, exchanged, rows_of_owners
from training.parallel.ranks import Ranks

BLOCK = 1 << 16  # rows that are told at once when a table is cut


class RowShards(nn.Embedding):
    """A rank's rows of a table; looks like the whole table to whoever asks for rows.

    The weight is what a DTensor cut by rows would hold here, as a plain parameter because its gradient is row-sparse,
    which DTensors know nothing of. Its gradient is complete when the backward pass is over:
    it must not be added up over ranks.
    """

    def __init__(self, row_OD: Tensor, owned: Owned, learns: bool) -> None:
        super().__init__(len(owned.own), row_OD.shape[1], sparse=True, _weight=row_OD)
        self.weight.requires_grad_(learns)
        self.num_embeddings = owned.rows  # what codes are compared with
        self.owned = owned

    def forward(self, code: Tensor) -> Tensor:
        """float [..., D] of int64 codes."""
        return rows_of_owners(self.weight, code.flatten(), self.owned).view(*code.shape, self.embedding_dim)

    def gathered(self, value_OD: Tensor) -> Tensor:
        """The rows of all ranks on rank 0, on the CPU, and none elsewhere; all ranks take part.

        Block by block: all of them may be more than a GPU has room for.
        """
        ranks, each = self.owned.ranks, self.owned.each
        here = ranks.rank == 0
        row_VD = torch.empty(self.owned.rows if here else 0, *value_OD.shape[1:], dtype=value_OD.dtype)
        owners = [Owned(replace(ranks, rank=rank), self.owned.rows).own for rank in range(ranks.count)]
        for start in range(0, each, BLOCK):
            parts = [own[start : start + BLOCK] for own in owners]
            sent = [len(parts[ranks.rank]), *[0] * (ranks.count - 1)]
            received = [len(part) if here else 0 for part in parts]
            block_ND = exchanged(value_OD[start : start + BLOCK], sent, received).cpu()
            for part, some_ND in zip(parts, torch.split(block_ND, received), strict=True):
                if here:
                    row_VD[part.start : part.stop] = some_ND
        return row_VD


def cut_tables(tower: ItemTower, ranks: Ranks, device: torch.device) -> None:
    """Leave every rank its rows, on `device`, of the tables that rank 0 has; all of them never lie there at once."""
    for name in ("id", "bias"):
        table = getattr(tower, name)
        assert isinstance(table, nn.Embedding)
        owned = Owned(ranks, table.num_embeddings)
        own_OD = _own_rows(table.weight.detach(), owned, device)
        setattr(tower, name, RowShards(own_OD, owned, learns=table.weight.requires_grad))


def _own_rows(row_VD: Tensor, owned: Owned, device: torch.device) -> Tensor:
    own_OD = torch.empty(len(owned.own), row_VD.shape[1], dtype=row_VD.dtype, device=device)
    for start in range(0, len(row_VD), BLOCK):
        block_ND = row_VD[start : start + BLOCK].to(device, copy=True)
        dist.broadcast(block_ND, src=0)
        first, end = max(start, owned.own.start), min(start + len(block_ND), owned.own.stop)
        if first < end:
            own_OD[first - owned.own.start : end - owned.own.start] = block_ND[first - start : end - start]
    return own_OD
