"""Request context and attributes of users, after the trunk, so that the trunk's states can be cached.

What a request says of itself conditions what answers it; what is known of a user conditions the bare state too, and so
the vector that is stored and pushed. A user without an event has nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.embedding import known_rows, table_of


class Conditioning(nn.Module):
    """state + f(state, columns); a column with code 0 was not told. Starts as the identity.

    columns: (table, number of codes) of each; those of one name share their embeddings.
    """

    def __init__(self, width: int, columns: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        sizes = dict(columns)
        self.reads = tuple(list(sizes).index(name) for name, _ in columns)  # the table of each column
        self.tables = nn.ModuleList(table_of(size, width) for size in sizes.values())
        self.mix = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, state_RD: Tensor, code_RC: Tensor) -> Tensor:
        """float [R, D] states that know what was told; code_RC: int64 [R, C], a column each."""
        told_RD = torch.zeros_like(state_RD)
        for column, place in enumerate(self.reads):
            told_R1 = (code_RC[:, column] > 0)[:, None]
            told_RD = told_RD + told_R1 * known_rows(self.tables[place], code_RC[:, column])
        change_RD: Tensor = self.out(F.gelu(self.mix(torch.cat([state_RD, told_RD], dim=1))))
        return state_RD + change_RD
