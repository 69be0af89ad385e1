"""Request context, after the trunk, so that the trunk's states can be cached, stored and pushed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.config import ModelConfig
from foundation.embedding import known_rows, table_of


class Conditioning(nn.Module):
    """state + f(state, context); a context facet with code 0 was not told. Starts as the identity."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        names = [facet.table or facet.name for facet in config.context]
        sizes = {name: facet.size for name, facet in zip(names, config.context, strict=True)}
        self.reads = tuple(list(sizes).index(name) for name in names)  # the table of each column
        self.tables = nn.ModuleList(table_of(size, width) for size in sizes.values())
        self.mix = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, state_RD: Tensor, context_RC: Tensor) -> Tensor:
        """float [R, D] states that know the request; context_RC: int64 [R, C]."""
        context_RD = torch.zeros_like(state_RD)
        for column, place in enumerate(self.reads):
            told_R1 = (context_RC[:, column] > 0)[:, None]
            context_RD = context_RD + told_R1 * known_rows(self.tables[place], context_RC[:, column])
        change_RD: Tensor = self.out(F.gelu(self.mix(torch.cat([state_RD, context_RD], dim=1))))
        return state_RD + change_RD
