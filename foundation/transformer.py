"""The trunk: token vectors in, states of completed events out. It never sees a request (see conditioning.py)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from foundation.attention import Backend, Windows, attend, rotate, rotations
from foundation.config import ModelConfig


class Block(nn.Module):
    """Pre-norm attention and feed-forward: Xiong et al., arXiv:2002.04745; squared ReLU: So et al., Primer,
    arXiv:2109.08668."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.feed_norm = nn.LayerNorm(width, bias=False)
        self.feed_in = nn.Linear(width, 4 * width, bias=False)
        self.feed_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, x_TD: Tensor, rotation_T1K: Tensor, windows: Windows, backend: Backend) -> Tensor:
        """float [T, D] → float [T, D]."""
        qkv_T3HK = self.query_key_value(self.attention_norm(x_TD)).unflatten(1, (3, self.heads, -1))
        # Queries and keys turn together, as twice as many heads.
        q_THK, k_THK = rotate(qkv_T3HK[:, :2].flatten(1, 2), rotation_T1K).chunk(2, dim=1)
        seen_THK = attend(q_THK, k_THK, qkv_T3HK[:, 2], windows, backend)
        x_TD = x_TD + self.attention_out(seen_THK.flatten(1))
        feed_TD: Tensor = self.feed_out(F.relu(self.feed_in(self.feed_norm(x_TD))).square())
        return x_TD + feed_TD


class Trunk(nn.Module):
    """A stack of blocks over a packed stream; positions are group ordinals, so a group is a set."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.backend = config.backend
        self.heads = config.heads
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)

    def forward(self, x_TD: Tensor, position_T: Tensor, windows: Windows) -> Tensor:
        """float [T, D] → float [T, D]; a token reads its window only."""
        rotation_T1K = rotations(position_T, x_TD.shape[1] // self.heads)
        for block in self.blocks:
            x_TD = block(x_TD, rotation_T1K, windows, self.backend)
        normed_TD: Tensor = self.norm(x_TD)
        return normed_TD
