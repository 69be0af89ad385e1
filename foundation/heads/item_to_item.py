"""Item to item: what goes with this product."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ItemToItemHead(nn.Module):
    """A bilinear form between pretrained item vectors: bought together is not symmetric (milk goes with cereal
    more than cereal with milk), so source and target have maps of their own (Wang et al., arXiv:1803.02349)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.source = nn.Linear(width, width)
        self.target = nn.Linear(width, width, bias=False)
        self.popularity = nn.Parameter(torch.tensor(1.0))
        with torch.no_grad():
            self.source.weight.copy_(torch.eye(width))
            self.target.weight.copy_(torch.eye(width))

    def forget_source(self) -> None:
        """Score by popularity alone: where fitting starts, so that it can only add to it."""
        with torch.no_grad():
            self.source.weight.zero_()
            self.source.bias.zero_()

    def forward(self, source_ID: Tensor, target_ND: Tensor, popularity_N: Tensor) -> Tensor:
        """float [I, N] scores of targets for each source item."""
        pair_IN: Tensor = self.source(source_ID) @ self.target(target_ND).T
        return pair_IN + self.popularity * popularity_N
