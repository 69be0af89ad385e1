"""Memory of what lies before the window: each block of the past as a few slots, read by attention like any token.

A low-rank stand-in for the keys and values of a block: learned queries, `rank` a head, read it once (Wang et al.,
Linformer, arXiv:2006.04768, project keys and values along the sequence; Lee et al., Set Transformer, arXiv:1810.00825,
pool a set by learned queries, so that the order inside a group can't count).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foundation.attention.sight import Blocks


class Memory(nn.Module):
    """Keys and values of a layer → keys and values of its slots of memory."""

    def __init__(self, rank: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.query_RHK = nn.Parameter(torch.randn(rank, heads, head_width) / head_width**0.5)

    def forward(self, k_THK: Tensor, v_THK: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """float [M, H, K] each, M = N blocks × rank, those of a block beside one another.

        k_THK: keys before they are turned, since a slot is turned as its block's last token is.
        """
        tokens, (blocks_N, length_L) = k_THK.shape[0], blocks.token_NL.shape
        token_N = blocks.token_NL.flatten()
        real_NL = blocks.token_NL < tokens
        place_N = torch.clamp(token_N, max=max(tokens - 1, 0))
        both_NLHJ = torch.cat([k_THK, v_THK], dim=2).index_select(0, place_N)
        return self.compressed(both_NLHJ.view(blocks_N, length_L, *both_NLHJ.shape[1:]), real_NL)

    def compressed(self, both_NLHJ: Tensor, real_NL: Tensor) -> tuple[Tensor, Tensor]:
        """The same of keys and values, side by side, of blocks; real_NL: bool, what is no padding."""
        k_NLHK, _ = both_NLHJ.chunk(2, dim=3)
        logit_NLHR = torch.einsum("nlhk,rhk->nlhr", k_NLHK, self.query_RHK)
        share_NLHR = torch.softmax(logit_NLHR.masked_fill(~real_NL[:, :, None, None], -torch.inf), dim=1)
        k_NRHK, v_NRHK = torch.einsum("nlhr,nlhj->nrhj", share_NLHR, both_NLHJ).chunk(2, dim=3)
        return k_NRHK.flatten(0, 1), v_NRHK.flatten(0, 1)
