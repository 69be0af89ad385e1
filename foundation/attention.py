"""Sparse attention over packed event streams: a sliding window of whole groups.

A token attends to its own group (a set: its members see one another) and to the groups before it, as far back as
`window` tokens reach. Seen from a token that is one contiguous range of the packed stream, so a mask is two
integers a token. Window borders move inward to group borders; only a group longer than the window is cut, in
its canonical order, and the pieces then follow one another.

Sliding windows: Beltagy et al., Longformer, arXiv:2004.05150; blocks of queries over their own and the block before:
Roy et al., arXiv:2003.05997, section 3. Rotary positions: Su et al., RoFormer, arXiv:2104.09864.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.errors import UnsupportedAttention
from foundation.jagged import EventBatch, group_offsets, ranges_owner


class Backend(StrEnum):
    """How attention is computed; all agree with REFERENCE on values and gradients."""

    REFERENCE = "reference"  # one dense [T, T] mask: plain, for tests and short streams
    BLOCKED = "blocked"  # blocks of ≤ W queries over 2 W keys through scaled_dot_product_attention, any device


# A dense mask of a longer stream would not fit a small machine's memory.
REFERENCE_TOKENS = 16_384


@dataclass(frozen=True)
class Blocks:
    """The packed stream cut into N blocks of whole groups, at most W tokens each.

    query_NW, key_NJ: int64 packed indices (J = 2 W); T points at a row of padding.
    bias_NWJ: float32, 0 where the query sees the key, else −inf. place_T: int64 position of each token in the flat
    [N * W] output.
    """

    query_NW: Tensor
    key_NJ: Tensor
    bias_NWJ: Tensor
    place_T: Tensor


@dataclass(frozen=True)
class Windows:
    """What each token sees: packed tokens start_T[i] to end_T[i], and how it is laid out in blocks."""

    start_T: Tensor
    end_T: Tensor
    window: int
    blocks: Blocks | None


def group_windows(batch: EventBatch, window: int, backend: Backend) -> Windows:
    """The windows of every token of a batch; `window` in tokens, ≥ 1."""
    border_G1 = cut_groups(group_offsets(batch), window)
    group_T = ranges_owner(border_G1[1:] - border_G1[:-1])
    end_T = border_G1[1:][group_T]
    # The first whole group that starts at or after end − window, and never another user's.
    first_G = torch.searchsorted(border_G1, border_G1[1:] - window)
    start_T = torch.maximum(border_G1[first_G[group_T]], batch.offset_B1[:-1][batch.user_T])
    blocks = _blocks(border_G1, start_T, end_T, window) if backend is Backend.BLOCKED else None
    return Windows(start_T, end_T, window, blocks)


def cut_groups(border_G1: Tensor, window: int) -> Tensor:
    """Group offsets with every group longer than `window` cut into pieces of `window` tokens."""
    length_G = border_G1[1:] - border_G1[:-1]
    pieces_G = torch.clamp((length_G + window - 1) // window, min=1)
    group_N = ranges_owner(pieces_G)
    piece_N = torch.arange(len(group_N), device=border_G1.device) - (pieces_G.cumsum(0) - pieces_G)[group_N]
    return torch.cat([border_G1[:-1][group_N] + piece_N * window, border_G1[-1:]])


def attend(q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, windows: Windows, backend: Backend) -> Tensor:
    """Softmax attention of every token over its window; float [T, H, K].

    Raises UnsupportedAttention where the backend can't do what is asked.
    """
    if backend is Backend.REFERENCE:
        return _attend_reference(q_THK, k_THK, v_THK, windows)
    return _attend_blocked(q_THK, k_THK, v_THK, windows)


def rotations(position_T: Tensor, head_width: int) -> Tensor:
    """The turn of each pair of dimensions at each position, complex64 [T, 1, K / 2]."""
    pair_K = torch.arange(head_width // 2, device=position_T.device)
    frequency_K = 10_000.0 ** (-2 * pair_K / head_width)
    angle_TK = position_T[:, None] * frequency_K
    return torch.polar(torch.ones_like(angle_TK), angle_TK)[:, None]


def rotate(x_THK: Tensor, rotation_T1K: Tensor) -> Tensor:
    """Rotary position embedding: equal positions (one group) rotate alike, so a set stays a set.

    Neighbouring dimensions are the parts of one complex number: one multiplication instead of six.
    """
    pairs_THK = torch.view_as_complex(x_THK.float().view(*x_THK.shape[:-1], x_THK.shape[-1] // 2, 2))
    return torch.view_as_real(pairs_THK * rotation_T1K).flatten(-2).to(x_THK.dtype)


def _attend_reference(q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, windows: Windows) -> Tensor:
    tokens = len(q_THK)
    if tokens > REFERENCE_TOKENS:
        raise UnsupportedAttention(
            f"the reference backend builds a dense mask and takes at most {REFERENCE_TOKENS:,} tokens, got {tokens:,}: "
            "use backend 'blocked'"
        )
    key_T = torch.arange(tokens, device=q_THK.device)
    mask_TT = (key_T >= windows.start_T[:, None]) & (key_T < windows.end_T[:, None])
    q, k, v = (x.transpose(0, 1) for x in (q_THK, k_THK, v_THK))
    logits_HTT = (q @ k.transpose(1, 2)) / q.shape[-1] ** 0.5
    weights_HTT = torch.softmax(logits_HTT.masked_fill(~mask_TT, -torch.inf), dim=-1)
    return (weights_HTT @ v).transpose(0, 1)


def _attend_blocked(q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, windows: Windows) -> Tensor:
    blocks = windows.blocks
    if blocks is None:
        raise UnsupportedAttention("these windows were laid out for another backend: build them with 'blocked'")
    # 4-D [N, H, W, K]: five dimensions would fall to a slow path of scaled_dot_product_attention.
    q = _blocked(q_THK, blocks.query_NW)
    k = _blocked(k_THK, blocks.key_NJ)
    v = _blocked(v_THK, blocks.key_NJ)
    out_NHWK = F.scaled_dot_product_attention(q, k, v, attn_mask=blocks.bias_NWJ[:, None].to(q.dtype))
    return out_NHWK.transpose(1, 2).flatten(0, 1).index_select(0, blocks.place_T)


def _blocked(x_THK: Tensor, place_NJ: Tensor) -> Tensor:
    """[N, H, J, K] rows of a block; place T is padding. The gradient of index_select is far cheaper than of [...]."""
    padded = torch.cat([x_THK, x_THK.new_zeros(1, *x_THK.shape[1:])])
    return padded.index_select(0, place_NJ.flatten()).view(*place_NJ.shape, *x_THK.shape[1:]).transpose(1, 2)


def _blocks(border_G1: Tensor, start_T: Tensor, end_T: Tensor, window: int) -> Blocks:
    device, tokens = border_G1.device, int(border_G1[-1])
    block_N1 = _block_borders(border_G1, window)
    begin_N, length_N = block_N1[:-1], block_N1[1:] - block_N1[:-1]
    step_W = torch.arange(window, device=device)
    step_J = torch.arange(-window, window, device=device)
    query_NW, real_NW = begin_N[:, None] + step_W, step_W < length_N[:, None]
    key_NJ = begin_N[:, None] + step_J
    real_NJ = (key_NJ >= 0) & (step_J < length_N[:, None])
    query_NW, key_NJ = torch.where(real_NW, query_NW, tokens), torch.where(real_NJ, key_NJ, tokens)
    # A padded query sees the block's first token: an empty row would be NaN.
    start_NW = torch.where(real_NW, _at(start_T, query_NW), begin_N[:, None])
    end_NW = torch.where(real_NW, _at(end_T, query_NW), begin_N[:, None] + 1)
    mask_NWJ = (key_NJ[:, None] >= start_NW[:, :, None]) & (key_NJ[:, None] < end_NW[:, :, None])
    # Additive: from a bool, scaled_dot_product_attention would make this again in every layer.
    bias_NWJ = torch.zeros(mask_NWJ.shape, device=device).masked_fill_(~mask_NWJ, -torch.inf)
    return Blocks(query_NW, key_NJ, bias_NWJ, real_NW.flatten().nonzero().squeeze(1))


def _at(value_T: Tensor, index: Tensor) -> Tensor:
    return torch.cat([value_T, value_T.new_zeros(1)])[index]


def _block_borders(border_G1: Tensor, window: int) -> Tensor:
    """Greedy cut into runs of whole groups of at most `window` tokens; a loop over blocks, not over tokens."""
    borders = border_G1.cpu()
    last = int(borders[-1])
    cuts = [0]
    while cuts[-1] < last:
        reach = torch.searchsorted(borders, cuts[-1] + window, right=True) - 1
        cuts.append(int(borders[reach]))
    return torch.tensor(cuts, device=border_G1.device)
