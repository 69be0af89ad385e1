"""Hierarchical intent → item: what a user is after, guessed first, helps to tell which item it will be.

Intents are things that are known of the next group besides its items: declared facets (its actions, amounts, ...) and
categories of the items. Each is predicted from the bare state, and what is expected of it flows into the
state that items are predicted from. As in Oh et al., IntentRec, arXiv:2408.05353 (FM-Intent of the Netflix Technology
Blog, 2025), with a sum where they attend over intents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foundation.config import ModelConfig
from foundation.embedding import table_of


class Intents(nn.Module):
    """state + projection of Σ over intents of the expected embedding. Starts as the identity."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        sizes = [size for _, size in config.intent_sizes]
        self.heads = nn.ModuleList(nn.Linear(config.width, size) for size in sizes)
        self.tables = nn.ModuleList(table_of(size, config.width) for size in sizes)
        self.out = nn.Linear(config.width, config.width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, state_RD: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """float [R, D] states that know the intents expected of them, and their logits, float [R, C] of each intent."""
        logits = tuple(head(state_RD) for head in self.heads)
        expected_RD = torch.zeros_like(state_RD)
        for logit_RC, table in zip(logits, self.tables, strict=True):
            assert isinstance(table, nn.Embedding)
            expected_RD = expected_RD + torch.softmax(logit_RC, dim=1) @ table.weight
        return state_RD + self.out(expected_RD), logits
