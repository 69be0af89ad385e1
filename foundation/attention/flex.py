"""FlexAttention: a kernel is compiled for the mask, and skips the tiles in which nobody sees anything.

Dong et al., FlexAttention, arXiv:2412.05496. On a CPU it compiles for most of a minute and has no backward.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from foundation.attention.sight import Sight

TILE = 128


def lay_out(sight: Sight, tokens: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """See `backends.lay_out`."""
    from torch.nn.attention.flex_attention import BlockMask

    window_T2, sinks_T2, slots_T2 = sight.window_T2, sight.sinks_T2, sight.slots_T2 + tokens

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        window = (key >= window_T2[query, 0]) & (key < window_T2[query, 1])
        sinks = (key >= sinks_T2[query, 0]) & (key < sinks_T2[query, 1])
        return window | sinks | ((key >= slots_T2[query, 0]) & (key < slots_T2[query, 1]))

    @cache  # all layers that see alike have as many keys
    def mask(keys: int) -> BlockMask:
        tile_NM = _tiles(sight, tokens, keys)
        count_N = tile_NM.sum(1, dtype=torch.int32)
        order_NM = torch.argsort(tile_NM, dim=1, descending=True, stable=True).to(torch.int32)
        lengths = (len(window_T2), keys)
        return BlockMask.from_kv_blocks(
            count_N[None, None], order_NM[None, None], BLOCK_SIZE=TILE, mask_mod=visible, seq_lengths=lengths
        )

    def attend(q_THK: Tensor, k_SHK: Tensor, v_SHK: Tensor) -> Tensor:
        q, k, v = (x.transpose(0, 1)[None] for x in (q_THK, k_SHK, v_SHK))
        out: Tensor = _compiled()(q, k, v, block_mask=mask(len(k_SHK)))
        return out[0].transpose(0, 1)

    return attend


def _tiles(sight: Sight, tokens: int, keys: int) -> Tensor:
    """bool [tiles of queries, tiles of keys]: whether any query of the tile may see a key of it."""
    queries = len(sight.window_T2)
    rows = -(-queries // TILE)
    row_N = torch.clamp(torch.arange(rows * TILE, device=sight.window_T2.device), max=queries - 1)
    column_M = torch.arange(-(-keys // TILE), device=row_N.device)
    found = torch.zeros(rows, len(column_M), dtype=torch.bool, device=row_N.device)
    for of_T2 in (sight.window_T2, sight.sinks_T2, sight.slots_T2 + tokens):
        first_NQ, last_NQ = of_T2[row_N].view(rows, TILE, 2).unbind(2)
        empty_NQ = first_NQ >= last_NQ
        first_N = torch.where(empty_NQ, keys, first_NQ).amin(1)
        last_N = torch.where(empty_NQ, 0, last_NQ).amax(1)
        found |= (column_M * TILE < last_N[:, None]) & ((column_M + 1) * TILE > first_N[:, None])
    return found


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)
