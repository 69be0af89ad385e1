"""What each token sees of its user: a sliding window of whole groups, the first groups, and memory of the rest.

A token attends to its own group (a set: its members see one another) and to the groups before it, as far back as
`window` tokens reach; to the sinks, the user's first groups of at most `sinks` tokens together; and to the slots of
memory into which blocks are compressed that lie completely before its window. Each is one contiguous range of a stream
of keys, first the T packed tokens, then the M slots: so a mask is six integers a token, whatever computes it. Borders
move inward to group borders; only a group longer than the window is cut, in its canonical order, and the pieces then
follow one another.

Sliding windows: Beltagy et al., Longformer, arXiv:2004.05150. Sinks: Xiao et al., StreamingLLM, arXiv:2309.17453.
Blocks behind the window: Rae et al., Compressive Transformers, arXiv:1911.05507.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foundation.config import AttentionConfig
from foundation.jagged import changes, largest, ranges_owner


@dataclass(frozen=True)
class Blocks:
    """The stream cut into N blocks of whole groups, each compressed into `rank` slots of memory.

    token_NL: int64 packed index of each block's tokens; T, a row of padding, behind its end. end_N: int64 first packed
    index behind each; the token before has the place and the time of the block's slots. offset_B1: int64 first block of
    each user, and N.
    """

    token_NL: Tensor
    end_N: Tensor
    offset_B1: Tensor
    rank: int


@dataclass(frozen=True)
class Sight:
    """What each of T tokens sees: keys `first` to `last` (exclusive) of three ranges that never overlap.

    window, sinks, slots: int64 [T, 2]; those of `slots` count from 0 at the first slot of memory. reach: most tokens of
    a window, 0 = any number.
    """

    window_T2: Tensor
    sinks_T2: Tensor
    slots_T2: Tensor
    reach: int = 0


def see(
    border_G1: Tensor,
    offset_B1: Tensor,
    sink_B: Tensor,
    blocks: Blocks,
    window: int,
    config: AttentionConfig,
    tokens: int | None = None,
) -> Sight:
    """What the tokens of a batch see through a window of so many tokens; 0 = everything up to their group.

    border_G1: int64 packed index at which each group starts, and T. offset_B1: the same for users. sink_B: `sink_ends`.
    blocks: `memory_blocks`, or `no_blocks` of a model without memory. tokens: T, where it is known without asking the
    device.
    """
    if not window:
        return _see_everything(border_G1, offset_B1, tokens)
    cut_G1 = cut_groups(border_G1, window)
    group_T = ranges_owner(cut_G1[1:] - cut_G1[:-1], tokens)
    user_T = ranges_owner(offset_B1[1:] - offset_B1[:-1], tokens)
    begin_T, end_T = offset_B1[:-1][user_T], cut_G1[1:][group_T]
    # The first whole group that starts at or after end − window, and never another user's.
    first_G = torch.searchsorted(cut_G1, cut_G1[1:] - window)
    start_T = torch.maximum(cut_G1[first_G[group_T]], begin_T)
    behind_T = torch.searchsorted(blocks.end_N, start_T, right=True)
    oldest_T = torch.maximum(blocks.offset_B1[:-1][user_T], behind_T - config.memory_reach)
    return Sight(
        window_T2=_pairs(start_T, end_T),
        sinks_T2=_pairs(begin_T, torch.minimum(sink_B[user_T], start_T)),
        slots_T2=_pairs(oldest_T, behind_T) * blocks.rank,
        reach=window,
    )


def sink_ends(border_G1: Tensor, offset_B1: Tensor, config: AttentionConfig) -> Tensor:
    """int64 [B]: packed index behind each user's sinks, as many of the first groups as are whole within so many
    tokens."""
    sink_B = border_G1[torch.searchsorted(border_G1, offset_B1[:-1] + config.sinks, right=True) - 1]
    return torch.minimum(sink_B, offset_B1[1:])


def _see_everything(border_G1: Tensor, offset_B1: Tensor, tokens: int | None) -> Sight:
    user_T = ranges_owner(offset_B1[1:] - offset_B1[:-1], tokens)
    end_T = border_G1[1:][ranges_owner(border_G1[1:] - border_G1[:-1], tokens)]
    begin_T = offset_B1[:-1][user_T]
    return Sight(_pairs(begin_T, end_T), _pairs(begin_T, begin_T), torch.zeros_like(_pairs(begin_T, begin_T)))


def memory_blocks(border_G1: Tensor, offset_B1: Tensor, config: AttentionConfig) -> Blocks:
    """Blocks of whole groups. A group is in the block in which it starts, counting `memory_block` tokens a block from
    the user's first: so what is in a block is known as soon as the next one begins, and never changes."""
    first_G = border_G1[:-1]
    user_G = torch.searchsorted(offset_B1, first_G, right=True) - 1
    place_G = (first_G - offset_B1[:-1][user_G]) // config.memory_block
    start_N = first_G[changes(user_G, place_G)]
    end_N = torch.cat([start_N[1:], border_G1[-1:]])[: start_N.shape[0]]
    return blocks_of(start_N, end_N, offset_B1, config.memory)


def no_blocks(offset_B1: Tensor) -> Blocks:
    """Of a model without memory."""
    return Blocks(offset_B1[:0, None], offset_B1[:0], torch.zeros_like(offset_B1), 0)


def blocks_of(start_N: Tensor, end_N: Tensor, offset_B1: Tensor, rank: int) -> Blocks:
    """Blocks from `start` to `end`, packed indices in the order of users; offset_B1: packed index of each user."""
    token_NL = start_N[:, None] + torch.arange(largest(end_N - start_N), device=start_N.device)
    token_NL = torch.where(token_NL < end_N[:, None], token_NL, offset_B1[-1])
    return Blocks(token_NL, end_N, torch.searchsorted(start_N, offset_B1), rank)


def cut_groups(border_G1: Tensor, window: int) -> Tensor:
    """Group offsets with every group longer than `window` cut into pieces of `window` tokens."""
    length_G = border_G1[1:] - border_G1[:-1]
    pieces_G = torch.clamp((length_G + window - 1) // window, min=1)
    group_N = ranges_owner(pieces_G)
    piece_N = torch.arange(group_N.shape[0], device=border_G1.device) - (pieces_G.cumsum(0) - pieces_G)[group_N]
    return torch.cat([border_G1[:-1][group_N] + piece_N * window, border_G1[-1:]])


def _pairs(first_T: Tensor, last_T: Tensor) -> Tensor:
    return torch.stack([first_T, last_T], dim=1)
