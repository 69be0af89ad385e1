"""Home: products for a user now."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HomeHead(nn.Module):
    """Weighs what the pretrained model already says of a candidate: its logit for the next group (context and
    repeat path included), the dot product of the stored embeddings, and popularity. Three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))

    def forward(self, logit_BV: Tensor, dot_BV: Tensor, popularity_V: Tensor) -> Tensor:
        """float [B, V] scores; −inf stays −inf."""
        score_BV = self.weight[0] * logit_BV + self.weight[1] * dot_BV + self.weight[2] * popularity_V
        # A weight of 0 or below would turn −inf into NaN or +inf.
        return score_BV.masked_fill(logit_BV == -torch.inf, -torch.inf)
