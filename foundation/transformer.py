"""The trunk: token vectors in, states of completed events out. It never sees a request (see conditioning.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.attention.backends import Attend, lay_out
from foundation.attention.memory import Memory
from foundation.attention.rotary import rotate, rotations
from foundation.attention.sight import Blocks, memory_blocks, no_blocks, see, sink_ends
from foundation.config import ModelConfig
from foundation.jagged import Stream


@dataclass(frozen=True)
class Turns:
    """How far queries and keys are turned: those of the tokens, complex64 [T, 1, K / 2], and of the slots of memory
    [M, 1, K / 2]."""

    token_T1K: Tensor
    slot_M1K: Tensor


class Block(nn.Module):
    """Pre-norm attention and feed-forward: Xiong et al., arXiv:2002.04745; squared ReLU: So et al., Primer,
    arXiv:2109.08668."""

    def __init__(self, width: int, heads: int, memory: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.memory = Memory(memory, heads, width // heads) if memory else None
        self.feed_norm = nn.LayerNorm(width, bias=False)
        self.feed_in = nn.Linear(width, 4 * width, bias=False)
        self.feed_out = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_TD: Tensor, turns: Turns, blocks: Blocks, attend: Attend) -> Tensor:
        """float [T, D] → float [T, D]."""
        qkv_T3HK = self.projected(x_TD)
        # Queries and keys turn together, as twice as many heads.
        q_THK, k_SHK = rotate(qkv_T3HK[:, :2].flatten(1, 2), turns.token_T1K).chunk(2, dim=1)
        v_SHK = qkv_T3HK[:, 2]
        if self.memory is not None:
            k_MHK, v_MHK = self.memory(qkv_T3HK[:, 1], v_SHK, blocks)
            k_SHK = torch.cat([k_SHK, rotate(k_MHK, turns.slot_M1K)])
            v_SHK = torch.cat([v_SHK, v_MHK])
        return self.finished(x_TD, attend(q_THK, k_SHK, v_SHK))

    def projected(self, x_TD: Tensor) -> Tensor:
        """Queries, keys and values, float [T, 3, H, K], not yet turned."""
        qkv_TQ: Tensor = self.query_key_value(self.attention_norm(x_TD))
        return qkv_TQ.view(x_TD.shape[0], 3, self.heads, x_TD.shape[1] // self.heads)

    def finished(self, x_TD: Tensor, seen_THK: Tensor) -> Tensor:
        """What attention has seen, added, and the feed-forward."""
        x_TD = x_TD + self.dropout(self.attention_out(seen_THK.flatten(1)))
        feed_TD: Tensor = self.feed_out(F.relu(self.feed_in(self.feed_norm(x_TD))).square())
        hidden_TD: Tensor = self.dropout(feed_TD)
        return x_TD + hidden_TD


class LayerMix(nn.Module):
    """A learned mixture of what several layers say: Peters et al., ELMo, arXiv:1802.05365. All count alike at first."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers
        self.share_L = nn.Parameter(torch.zeros(len(layers)))

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """float [T, D]; outputs: float [T, D] of each block of the trunk."""
        share_L = torch.softmax(self.share_L, 0)
        return torch.stack([outputs[layer] for layer in self.layers], dim=2) @ share_L


class Trunk(nn.Module):
    """A stack of blocks over a packed stream; places are group ordinals, so a group is a set."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # What sees everything needs no memory.
        memories = [config.attention.memory if window else 0 for window in config.windows]
        self.blocks = nn.ModuleList(Block(config.width, config.heads, memory, config.dropout) for memory in memories)
        self.mix = LayerMix(config.state_layers) if len(config.state_layers) > 1 else None
        self.norm = nn.LayerNorm(config.width, bias=False)

    def forward(self, x_TD: Tensor, stream: Stream) -> Tensor:
        """float [T, D] → float [T, D]; a token reads nothing but its user's groups up to its own."""
        return self.states(self.layers(x_TD, stream))

    def states(self, outputs: Sequence[Tensor]) -> Tensor:
        """float [T, D]: the tokens' states, of what each block put out."""
        normed_TD: Tensor = self.norm(outputs[-1] if self.mix is None else self.mix(outputs))
        return normed_TD

    def layers(self, x_TD: Tensor, stream: Stream) -> list[Tensor]:
        """float [T, D] after each block, not yet normed."""
        blocks, attends = self._lay_out(stream)
        turns = self.turns(stream, blocks)
        states = []
        for block, window in zip(self.blocks, self.config.windows, strict=True):
            x_TD = block(x_TD, turns, blocks, attends[window])
            states.append(x_TD)
        return states

    def turns(self, stream: Stream, blocks: Blocks) -> Turns:
        """A slot of memory stands where its block's last token stands."""
        head_width = self.config.width // self.config.heads
        token_T1K = rotations(stream.place_T, stream.time_T, self.config.attention, head_width)
        return Turns(token_T1K, token_T1K[blocks.end_N - 1].repeat_interleave(blocks.rank, 0))

    def _lay_out(self, stream: Stream) -> tuple[Blocks, dict[int, Attend]]:
        """Blocks of memory, and attention through each window that there is."""
        config = self.config.attention
        border_G1, offset_B1, tokens = stream.border_G1, stream.offset_B1, stream.place_T.shape[0]
        cut = memory_blocks(border_G1, offset_B1, config) if config.memory else no_blocks(offset_B1)
        sink_B, attends = sink_ends(border_G1, offset_B1, config), {}
        for window in set(self.config.windows):
            sight = see(border_G1, offset_B1, sink_B, cut, window, config, tokens)
            attends[window] = lay_out(sight, tokens, self.config.backend)
        return cut, attends
