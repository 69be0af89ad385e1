"""The trunk, a few events at a time: what is closed of a life is kept as keys and values, and new events are encoded
onto it, equal to encoding the whole life again.

Of each user are kept the sinks, as many tokens as a window of the next event may reach, the block of memory that is not
full yet, and the slots of those that are: so the size of a cache is bounded however long a life is, unless a layer sees
everything. The newest group is open: more may join it, and its members see one another, so it is never kept but given
again with what came since. Pope et al., Efficiently Scaling Transformer Inference, arXiv:2211.05102.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foundation.attention.backends import Attend, lay_out
from foundation.attention.memory import Memory
from foundation.attention.reference import over_mask, visible
from foundation.attention.rotary import rotate, rotations
from foundation.attention.sight import Blocks, Sight, blocks_of, no_blocks, see, sink_ends
from foundation.config import ModelConfig
from foundation.errors import ModelError
from foundation.jagged import Stream, changes, offsets_of, ranges_owner
from foundation.transformer import Block, Trunk

DENSE = 1 << 16  # entries of a mask that is made whole


@dataclass(frozen=True)
class LayerCache:
    """What one layer keeps: keys, already turned, and values of S tokens and of M slots of memory."""

    token_S2HK: Tensor
    slot_M2HK: Tensor


@dataclass(frozen=True)
class TrunkCache:
    """What is kept of B users' closed groups: S tokens and N blocks of memory.

    offset_B1, block_offset_B1: int64, as in a batch. place_S, time_S: as in `Stream`. sunk_B: tokens of sinks that
    stand before those left out; 0 where none is left out. dropped_B: how many are. compressed_B: tokens of the life
    that are in blocks already. block_end_N: tokens of the life up to each block's end.
    """

    layers: tuple[LayerCache, ...]
    offset_B1: Tensor
    place_S: Tensor
    time_S: Tensor
    sunk_B: Tensor
    dropped_B: Tensor
    compressed_B: Tensor
    block_offset_B1: Tensor
    block_end_N: Tensor

    @property
    def closed_B(self) -> Tensor:
        """int64 [B]: tokens of each user's life that need not be given again."""
        return self.offset_B1.diff() + self.dropped_B


def empty_cache(trunk: Trunk, users: int) -> TrunkCache:
    """Of users of whom nothing is known yet."""
    weight, config = trunk.norm.weight, trunk.config
    nothing_02HK = weight.new_zeros(0, 2, config.heads, config.width // config.heads)
    zero_B1 = torch.zeros(users + 1, dtype=torch.int64, device=weight.device)
    layer = LayerCache(nothing_02HK, nothing_02HK)
    zero_B, nothing = zero_B1[1:], zero_B1[:0]
    return TrunkCache(
        layers=(layer,) * config.layers,
        offset_B1=zero_B1,
        place_S=nothing,
        time_S=nothing.double(),
        sunk_B=zero_B,
        dropped_B=zero_B,
        compressed_B=zero_B,
        block_offset_B1=zero_B1,
        block_end_N=nothing,
    )


@torch.no_grad()
def encode_onto(trunk: Trunk, cache: TrunkCache, x_TD: Tensor, stream: Stream) -> tuple[Tensor, TrunkCache]:
    """States of the tokens that are not in the cache, float [T, D]; and the cache with all but each user's newest
    group.

    x_TD, stream: all tokens of the cached users, in the same order, from `cache.closed_B` on; a user may have none.
    Equals `Trunk.forward` over the whole lives, up to the order in which floats are added (1e-5 of a state's size).
    Raises ModelError where a token belongs to a group that is closed.
    """
    life = _joined(cache, stream)
    cut = _cut(cache, life, trunk.config)
    attends = _lay_out(trunk.config, life, cut)
    turns = _turns(trunk.config, life, cut)
    kept = _kept(cache, life, cut, trunk.config)
    token_S, block_N = kept.token_C.nonzero().squeeze(1), kept.block_N.nonzero().squeeze(1)
    layers, outputs = [], []
    for block, before, window in zip(trunk.blocks, cache.layers, trunk.config.windows, strict=True):
        assert isinstance(block, Block)
        x_TD, after = _layer(block, before, x_TD, turns, attends[window], life, cut)
        layers.append(_pick(after, token_S, block_N, cut.every.rank))
        outputs.append(x_TD)
    return trunk.states(outputs), _renewed(tuple(layers), life, cut, kept)


@dataclass(frozen=True)
class _Life:
    """Kept and new tokens, C in all, each user's side by side.

    order_C: where each is among the kept and then the new. fresh_T: where the new ones are. border_G1, offset_B1: of
    groups and users. age_C: tokens of the life before each. fresh_B: whether a user has new tokens. closed_B: where
    what is closed now ends among the C tokens, age_closed_B: in the life.
    """

    order_C: Tensor
    fresh_T: Tensor
    place_C: Tensor
    time_C: Tensor
    border_G1: Tensor
    offset_B1: Tensor
    user_C: Tensor
    age_C: Tensor
    fresh_B: Tensor
    closed_B: Tensor
    age_closed_B: Tensor

    def gathered(self, kept_S2HK: Tensor, new_T2HK: Tensor) -> Tensor:
        """What is kept of tokens and what is new, each user's side by side; of one user they are so already."""
        both_C2HK = torch.cat([kept_S2HK, new_T2HK])
        return both_C2HK if len(self.fresh_B) == 1 else both_C2HK.index_select(0, self.order_C)


@dataclass(frozen=True)
class _Cut:
    """Blocks of memory: those among the C tokens that are full now, and N in all with those that are cached.

    user_N: whose each of all is. order_N: where it is among the cached and then the former. age_end_N: tokens of the
    life up to its end. compressed_B: tokens of each life in blocks. sink_B: where each user's sinks end.
    """

    fresh: Blocks
    every: Blocks
    user_N: Tensor
    order_N: Tensor
    age_end_N: Tensor
    compressed_B: Tensor
    sink_B: Tensor

    def gathered(self, kept_M2HK: Tensor, new_M2HK: Tensor) -> Tensor:
        """Slots that are kept and new ones, each user's side by side; of one user they are so already."""
        both_M2HK = torch.cat([kept_M2HK, new_M2HK])
        return both_M2HK if len(self.sink_B) == 1 else _of_blocks(both_M2HK, self.order_N, self.every.rank)


@dataclass(frozen=True)
class _Turns:
    """How far keys and queries are turned: those of the T new tokens, of the tokens in new blocks, and of the slots of
    these, complex64 [..., 1, K / 2]."""

    token_T1K: Tensor
    block_N1K: Tensor
    slot_M1K: Tensor


@dataclass(frozen=True)
class _Kept:
    """What the next cache keeps: of tokens (bool [C]), of all blocks (bool [N]), and its counts by user."""

    token_C: Tensor
    block_N: Tensor
    sunk_B: Tensor
    dropped_B: Tensor


def _joined(cache: TrunkCache, stream: Stream) -> _Life:
    user_C = torch.cat([ranges_owner(cache.offset_B1.diff()), ranges_owner(stream.offset_B1.diff())])
    order_C = torch.argsort(user_C, stable=True)
    user_C, place_C = user_C[order_C], torch.cat([cache.place_S, stream.place_T])[order_C]
    offset_B1 = cache.offset_B1 + stream.offset_B1
    fresh_C = order_C >= len(cache.place_S)
    first_C = changes(user_C, place_C)
    joins_C = fresh_C[1:] & ~fresh_C[:-1] & ~first_C[1:]
    returns_C = (place_C.diff() < 0) & (user_C.diff() == 0)
    if bool((joins_C | returns_C).any()):
        raise ModelError("some of these events belong to a group that is closed: give only what came after it")
    local_C = torch.arange(len(user_C), device=user_C.device) - offset_B1[:-1][user_C]
    border_G1 = torch.cat([first_C.nonzero().squeeze(1), offset_B1[-1:]])
    fresh_B = stream.offset_B1.diff() > 0
    last_B = border_G1[torch.searchsorted(border_G1, offset_B1[1:]) - 1]
    closed_B = torch.where(fresh_B, last_B, offset_B1[1:])
    return _Life(
        order_C=order_C,
        fresh_T=fresh_C.nonzero().squeeze(1),
        place_C=place_C,
        time_C=torch.cat([cache.time_S, stream.time_T])[order_C],
        border_G1=border_G1,
        offset_B1=offset_B1,
        user_C=user_C,
        age_C=local_C + torch.where(local_C >= cache.sunk_B[user_C], cache.dropped_B[user_C], 0),
        fresh_B=fresh_B,
        closed_B=closed_B,
        age_closed_B=closed_B - offset_B1[:-1] + cache.dropped_B,
    )


def _cut(cache: TrunkCache, life: _Life, config: ModelConfig) -> _Cut:
    """Blocks of what is not compressed yet, by the same rule as `memory_blocks`. One that is not full yet is of no use:
    whoever could see it is in a later block, which does not begin before it is full."""
    attention, begin_B = config.attention, life.offset_B1[:-1]
    sinks_B = sink_ends(life.border_G1, life.offset_B1, attention)
    sink_B = torch.where(cache.dropped_B > 0, begin_B + cache.sunk_B, sinks_B)
    if not attention.memory:
        none, nothing = no_blocks(life.offset_B1), life.offset_B1[:0]
        return _Cut(none, none, nothing, nothing, nothing, life.age_closed_B, sink_B)
    first_G = life.border_G1[:-1]
    user_G, age_G = life.user_C[first_G], life.age_C[first_G]
    left_G = age_G >= cache.compressed_B[user_G]
    first_G, user_G, age_G = first_G[left_G], user_G[left_G], age_G[left_G]
    new_G = changes(user_G, age_G // attention.memory_block)
    start_K, user_K, age_K = first_G[new_G], user_G[new_G], age_G[new_G]
    end_K = torch.minimum(torch.cat([start_K[1:], life.offset_B1[-1:]])[: len(start_K)], life.offset_B1[1:][user_K])
    full_K = (age_K // attention.memory_block + 1) * attention.memory_block <= life.age_closed_B[user_K]
    compressed_B = torch.where(life.fresh_B, life.age_closed_B, cache.compressed_B)
    compressed_B = compressed_B.scatter_reduce(0, user_K[~full_K], age_K[~full_K], "amin")
    start_K, user_K, age_K, end_K = start_K[full_K], user_K[full_K], age_K[full_K], end_K[full_K]
    fresh = blocks_of(start_K, end_K, life.offset_B1, attention.memory)
    user_N = torch.cat([ranges_owner(cache.block_offset_B1.diff()), user_K])
    order_N = torch.argsort(user_N, stable=True)
    user_N = user_N[order_N]
    age_end_N = torch.cat([cache.block_end_N, age_K + end_K - start_K])[order_N]
    # A block that ends among what is left out lies before all that a window can reach.
    local_N = torch.maximum(age_end_N - cache.dropped_B[user_N], cache.sunk_B[user_N])
    end_N = begin_B[user_N] + local_N
    every = Blocks(end_N[:0, None], end_N, cache.block_offset_B1 + fresh.offset_B1, attention.memory)
    return _Cut(fresh, every, user_N, order_N, age_end_N, compressed_B, sink_B)


def _lay_out(config: ModelConfig, life: _Life, cut: _Cut) -> dict[int, Attend]:
    """Attention of the new tokens through each window that there is."""
    tokens, slots, fresh_T = len(life.order_C), len(cut.order_N) * cut.every.rank, life.fresh_T
    attends: dict[int, Attend] = {}
    for window in set(config.windows):
        whole = see(life.border_G1, life.offset_B1, cut.sink_B, cut.every, window, config.attention, tokens)
        fresh = Sight(whole.window_T2[fresh_T], whole.sinks_T2[fresh_T], whole.slots_T2[fresh_T], whole.reach)
        # For a handful of events on a short cache, cutting blocks costs more than what they save. What sees everything
        # has no slots.
        if len(fresh_T) * tokens <= DENSE:
            attends[window] = over_mask(visible(fresh, tokens, tokens + (slots if window else 0)))
        else:
            attends[window] = lay_out(fresh, tokens, config.backend)
    return attends


def _turns(config: ModelConfig, life: _Life, cut: _Cut) -> _Turns:
    """A slot of memory stands where its block's last token stands."""
    turned = (life.fresh_T, _places(cut.fresh, life), (cut.fresh.end_N - 1).repeat_interleave(cut.fresh.rank))
    place_N = torch.cat(turned)
    turn_N1K = rotations(life.place_C[place_N], life.time_C[place_N], config.attention, config.width // config.heads)
    return _Turns(*torch.split(turn_N1K, [len(places) for places in turned]))


def _places(blocks: Blocks, life: _Life) -> Tensor:
    """int64 [N L]: tokens of the blocks; of padding, whichever is last."""
    return torch.clamp(blocks.token_NL.flatten(), max=len(life.place_C) - 1)


def _layer(
    block: Block, before: LayerCache, x_TD: Tensor, turns: _Turns, attend: Attend, life: _Life, cut: _Cut
) -> tuple[Tensor, LayerCache]:
    """As `Block.forward`, the keys and values of what is cached beside the new ones; and both together."""
    qkv_T3HK = block.projected(x_TD)
    q_THK, k_THK = rotate(qkv_T3HK[:, :2].flatten(1, 2), turns.token_T1K).chunk(2, dim=1)
    new_T2HK = torch.stack([k_THK, qkv_T3HK[:, 2]], dim=1)
    token_C2HK, slot_M2HK = life.gathered(before.token_S2HK, new_T2HK), before.slot_M2HK
    if block.memory is not None and len(cut.fresh.end_N):
        slot_M2HK = cut.gathered(slot_M2HK, _compressed(block.memory, token_C2HK, turns, life, cut.fresh))
    seen_k_SHK, seen_v_SHK = torch.cat([token_C2HK, slot_M2HK]).unbind(1)
    seen_THK = attend(q_THK, seen_k_SHK, seen_v_SHK)
    return block.finished(x_TD, seen_THK), LayerCache(token_C2HK, slot_M2HK)


def _compressed(memory: Memory, token_C2HK: Tensor, turns: _Turns, life: _Life, blocks: Blocks) -> Tensor:
    """Keys, turned, and values of the slots of these blocks, float [M, 2, H, K]."""
    k_NHK, v_NHK = token_C2HK.index_select(0, _places(blocks, life)).unbind(1)
    both_NHJ = torch.cat([rotate(k_NHK, turns.block_N1K.conj()), v_NHK], dim=2)  # memory reads keys as they were
    real_NL = blocks.token_NL < len(life.place_C)
    k_MHK, v_MHK = memory.compressed(both_NHJ.view(*real_NL.shape, *both_NHJ.shape[1:]), real_NL)
    return torch.stack([rotate(k_MHK, turns.slot_M1K), v_MHK], dim=1)


def _kept(cache: TrunkCache, life: _Life, cut: _Cut, config: ModelConfig) -> _Kept:
    begin_B, closed_B, reach = life.offset_B1[:-1], life.closed_B, max(config.windows)
    place_C = torch.arange(len(life.user_C), device=begin_B.device)
    wanted_B = torch.minimum(closed_B - reach, begin_B + cut.compressed_B - cache.dropped_B)
    tail_B = life.border_G1[torch.searchsorted(life.border_G1, wanted_B, right=True).clamp(min=1) - 1]
    tail_B = begin_B if 0 in config.windows else torch.maximum(tail_B, begin_B)
    kept_C = (place_C < cut.sink_B[life.user_C]) | (place_C >= tail_B[life.user_C])
    closed_C = place_C < closed_B[life.user_C]
    dropped_B = cache.dropped_B + torch.bincount(life.user_C[closed_C & ~kept_C], minlength=len(begin_B))
    # Blocks that no window to come can look past its newest ones to.
    behind_B = torch.searchsorted(cut.every.end_N, torch.maximum(closed_B - reach, begin_B), right=True)
    place_N = torch.arange(len(cut.order_N), device=begin_B.device)
    block_N = place_N >= (behind_B - config.attention.memory_reach)[cut.user_N]
    sunk_B = torch.where(dropped_B > 0, cut.sink_B - begin_B, 0)
    return _Kept(kept_C & closed_C, block_N, sunk_B, dropped_B)


def _pick(layer: LayerCache, token_S: Tensor, block_N: Tensor, rank: int) -> LayerCache:
    slot_M2HK = _of_blocks(layer.slot_M2HK, block_N, rank) if len(layer.slot_M2HK) else layer.slot_M2HK
    return LayerCache(layer.token_S2HK.index_select(0, token_S), slot_M2HK)


def _of_blocks(slot_M2HK: Tensor, block_N: Tensor, rank: int) -> Tensor:
    """The slots of these blocks."""
    return slot_M2HK.view(-1, rank, *slot_M2HK.shape[1:]).index_select(0, block_N).flatten(0, 1)


def _renewed(layers: tuple[LayerCache, ...], life: _Life, cut: _Cut, kept: _Kept) -> TrunkCache:
    users = len(life.fresh_B)
    return TrunkCache(
        layers=layers,
        offset_B1=offsets_of(torch.bincount(life.user_C[kept.token_C], minlength=users)),
        place_S=life.place_C[kept.token_C],
        time_S=life.time_C[kept.token_C],
        sunk_B=kept.sunk_B,
        dropped_B=kept.dropped_B,
        compressed_B=cut.compressed_B,
        block_offset_B1=offsets_of(torch.bincount(cut.user_N[kept.block_N], minlength=users)),
        block_end_N=cut.age_end_N[kept.block_N],
    )
