"""The same blocks through xformers' memory-efficient attention, which never writes the weights down; CUDA only.

Rabe & Staats, Self-attention does not need O(n²) memory, arXiv:2112.05682; Lefaudeux et al., xFormers, 2022.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from foundation.attention.blocked import layout, over_blocks
from foundation.attention.sight import Sight
from foundation.errors import UnsupportedAttention


def lay_out(sight: Sight, tokens: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """See `backends.lay_out`. Raises UnsupportedAttention where xformers is not installed."""
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        raise UnsupportedAttention(
            "the xformers backend needs the package xformers: pip install 'userfm[cuda]', or use backend 'blocked'"
        ) from error

    def kernel(q_NQHK: Tensor, k_NJHK: Tensor, v_NJHK: Tensor, bias_NQJ: Tensor) -> Tensor:
        bias_NHQJ = bias_NQJ[:, None].expand(-1, q_NQHK.shape[2], -1, -1)
        out_NQHK: Tensor = memory_efficient_attention(q_NQHK, k_NJHK, v_NJHK, attn_bias=bias_NHQJ)
        return out_NQHK

    return over_blocks(layout(sight, tokens), kernel)
