"""Attention in blocks, on any device: some queries over the few keys that any of them sees.

The T queries are cut into N blocks of Q. Each reads the J keys of its windows, its sinks before these, and its slots of
memory, side by side in one `scaled_dot_product_attention` over all blocks: work and memory grow with the window, not
with the stream. Blocks of queries over neighbouring keys: Roy et al., arXiv:2003.05997, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.attention.sight import Sight
from foundation.jagged import largest

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Queries [N, Q, H, K], keys and values [N, J, H, K], bias [N, Q, J] → [N, Q, H, K]."""

# Queries of a block, as many as a window has tokens between these: fewer keys are read in vain by small blocks, but
# small products are slow ones, and each key is copied into as many blocks as see it.
FEWEST_QUERIES = 64
QUERIES = 192
ALIGNED = 8  # keys a block come in multiples of: what fast kernels ask of a bias


@dataclass(frozen=True)
class Layout:
    """Which keys each block of queries reads, and which of them each query sees.

    key_NJ: int64 place of each key in the stream. bias_NQJ: float32, 0 where the query sees the key, else −inf.
    """

    key_NJ: Tensor
    bias_NQJ: Tensor


def lay_out(sight: Sight, tokens: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """See `backends.lay_out`."""
    return over_blocks(layout(sight, tokens), _scaled_dot_product)


def over_blocks(laid_out: Layout, kernel: Kernel) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention by a kernel over all blocks at once."""
    blocks, queries, keys = laid_out.bias_NQJ.shape
    key_N = laid_out.key_NJ.flatten()

    def gathered(x_SHK: Tensor) -> Tensor:
        # The gradient of index_select is far cheaper than that of [...].
        return x_SHK.index_select(0, key_N).view(blocks, keys, *x_SHK.shape[1:])

    def attend(q_THK: Tensor, k_SHK: Tensor, v_SHK: Tensor) -> Tensor:
        padded = F.pad(q_THK, (0, 0, 0, 0, 0, blocks * queries - q_THK.shape[0]))
        bias_NQJ = laid_out.bias_NQJ.to(q_THK.dtype)
        out_NQHK = kernel(padded.view(blocks, queries, *q_THK.shape[1:]), gathered(k_SHK), gathered(v_SHK), bias_NQJ)
        return out_NQHK.flatten(0, 1)[: q_THK.shape[0]]

    return attend


def layout(sight: Sight, tokens: int) -> Layout:
    """The layout of a sight whose ranges ascend, as those of packed tokens do."""
    queries = sight.window_T2.shape[0]
    most = min(max(sight.reach, FEWEST_QUERIES), QUERIES) if sight.reach else QUERIES
    size = most if queries > most else max(queries, 1)
    blocks = -(-queries // size)
    # What stands behind the last query sees what that one sees: an empty row would be NaN.
    row_N = torch.clamp(torch.arange(blocks * size, device=sight.window_T2.device), max=max(queries - 1, 0))
    window_NQ2, sinks_NQ2, slots_NQ2 = (
        of_T2.index_select(0, row_N).view(blocks, size, 2)
        for of_T2 in (sight.window_T2, sight.sinks_T2, sight.slots_T2)
    )
    first_N1 = window_NQ2[:, :1, 0]
    key_NJ, real_NJ = _span(first_N1, window_NQ2[:, -1:, 1], least=1)
    # Whoever's life begins behind the block's first key has the sinks among these keys: one user is left.
    sink_NJ, before_NJ = _span(sinks_NQ2[:, :1, 0], torch.minimum(_ends_of_first(sinks_NQ2), first_N1))
    slot_NJ, slotted_NJ = _span(slots_NQ2[:, :1, 0], slots_NQ2[:, -1:, 1])
    seen_NQJ = torch.cat(
        [
            (_within(key_NJ, window_NQ2) | _within(key_NJ, sinks_NQ2)) & real_NJ[:, None],
            _within(sink_NJ, sinks_NQ2) & before_NJ[:, None],
            _within(slot_NJ, slots_NQ2) & slotted_NJ[:, None],
        ],
        dim=2,
    )
    # Additive: from a bool, scaled_dot_product_attention would make this again in every layer.
    bias_NQJ = torch.zeros(seen_NQJ.shape, device=row_N.device).masked_fill_(~seen_NQJ, -torch.inf)
    return Layout(torch.cat([key_NJ, sink_NJ, slot_NJ + tokens], dim=1), bias_NQJ)


def _span(first_N1: Tensor, last_N1: Tensor, least: int = 0) -> tuple[Tensor, Tensor]:
    """Places `first` to `last` of each block side by side, int64 [N, J], and which of them are real; what stands behind
    the last is a place that is there."""
    longest = -(-largest(last_N1 - first_N1, least) // ALIGNED) * ALIGNED
    place_NJ = first_N1 + torch.arange(longest, device=first_N1.device)
    real_NJ = place_NJ < last_N1
    return torch.where(real_NJ, place_NJ, torch.minimum(first_N1, torch.clamp(last_N1 - 1, min=0))), real_NJ


def _ends_of_first(sinks_NQ2: Tensor) -> Tensor:
    """Where the sinks end of the user of each block's first query."""
    own_NQ = sinks_NQ2[:, :, 0] == sinks_NQ2[:, :1, 0]
    return torch.where(own_NQ, sinks_NQ2[:, :, 1], 0).amax(1, keepdim=True)


def _within(key_NJ: Tensor, range_NQ2: Tensor) -> Tensor:
    return (key_NJ[:, None] >= range_NQ2[:, :, :1]) & (key_NJ[:, None] < range_NQ2[:, :, 1:])


def _scaled_dot_product(q_NQHK: Tensor, k_NJHK: Tensor, v_NJHK: Tensor, bias_NQJ: Tensor) -> Tensor:
    # 4-D [N, H, Q, K]: five dimensions would fall to a slow path.
    q, k, v = (x.transpose(1, 2) for x in (q_NQHK, k_NJHK, v_NJHK))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias_NQJ[:, None]).transpose(1, 2)
