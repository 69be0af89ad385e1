"""Whole tensors of what lies in parts on ranks, and parts of whole ones: how a sharded run is saved and read.

Everything on disk is whole, so a run continues on another number of ranks, or cut in another way, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor

from training.parallel.tables import RowShards


@dataclass(frozen=True)
class Shards:
    """How each weight of a model is cut. tables: of ids of the weights that are a rank's rows. mesh: None where nothing
    is cut."""

    mesh: DeviceMesh | None
    tables: Mapping[int, RowShards]

    @classmethod
    def of(cls, model: nn.Module, mesh: DeviceMesh | None) -> Shards:
        """Of a model whose weights are cut already, or not at all."""
        tables = {id(module.weight): module for module in model.modules() if isinstance(module, RowShards)}
        return cls(mesh, tables)

    def whole(self, weight: Tensor, value: Tensor) -> Tensor:
        """All of the weight, or of something of its shape that is kept of it; of a table on rank 0 alone.

        All ranks take part.
        """
        table = self.tables.get(id(weight))
        if table is not None and value.shape == weight.shape:
            return table.gathered(value.detach())
        return value.full_tensor() if isinstance(value, DTensor) else value

    def part(self, weight: Tensor, value: Tensor) -> Tensor:
        """This rank's part of what `whole` has told. Raises ValueError where it is of another shape."""
        table = self.tables.get(id(weight))
        if table is not None:
            return _rows_of(table, value)
        if isinstance(weight, DTensor) and value.dim():
            if value.shape != weight.shape:
                raise ValueError(f"a weight of shape {tuple(weight.shape)} can't be cut of {tuple(value.shape)}")
            there = value.to(weight.device_mesh.device_type)
            # Every rank has read the whole: nothing to send.
            return distribute_tensor(there, weight.device_mesh, weight.placements, src_data_rank=None)
        return value

    def whole_state(self, model: nn.Module, keep: bool) -> dict[str, Tensor]:
        """`state_dict` of the whole model on the CPU; nothing in it where this rank keeps none."""
        weights, found = dict(model.named_parameters()), {}
        for name, value in model.state_dict().items():
            whole = self.whole(weights[name], value) if name in weights else value
            if keep:
                found[name] = whole.detach().cpu()
        return found

    def part_state(self, model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `model.load_state_dict` takes of a whole state. Raises KeyError or ValueError for another model's."""
        weights = dict(model.named_parameters())
        return {name: self.part(weights[name], value) if name in weights else value for name, value in state.items()}


def _rows_of(table: RowShards, value: Tensor) -> Tensor:
    """Numbers that are kept beside rows, such as steps, are every rank's."""
    if not value.dim():
        return value
    if value.shape != (table.owned.rows, *table.weight.shape[1:]):
        raise ValueError(f"a table of {table.owned.rows} rows can't be cut of {tuple(value.shape)}")
    own = table.owned.own
    return value[own.start : own.stop].to(table.weight.device).clone()
