from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.attention.memory import Memory
from foundation.attention.sight import memory_blocks
from foundation.config import AttentionConfig, FacetConfig, ItemConfig, ModelConfig, RepeatConfig
from foundation.jagged import Stream
from foundation.transformer import Trunk
from tests.foundation.attention.conftest import Users, borders, offsets

USERS: Users = [[3, 1, 4, 1, 5], [], [9, 2, 6]]
CONFIG = AttentionConfig((8,), memory=2, memory_block=4)


def test_a_slot_is_a_weighted_mean_of_its_own_block() -> None:
    blocks = memory_blocks(borders(USERS), offsets(USERS), CONFIG)
    tokens = int(blocks.end_N[-1])
    memory = Memory(2, heads=1, head_width=tokens)
    v_THK = torch.eye(tokens)[:, None]  # so that a slot says whom it has read
    k_THK = torch.randn(tokens, 1, tokens, generator=torch.Generator().manual_seed(0))
    _, share_MHT = memory(k_THK, v_THK, blocks)
    for slot, share_T in enumerate(share_MHT[:, 0]):
        held = [token for token in blocks.token_NL[slot // 2].tolist() if token < tokens]
        expected = torch.softmax(k_THK[held, 0] @ memory.query_RHK[slot % 2, 0], dim=0)
        torch.testing.assert_close(share_T[held], expected)
        torch.testing.assert_close(share_T.sum(), torch.tensor(1.0))


def test_the_order_inside_a_block_changes_no_slot() -> None:
    blocks = memory_blocks(borders(USERS), offsets(USERS), CONFIG)
    memory = Memory(2, heads=2, head_width=4)
    k, v = torch.randn(2, int(blocks.end_N[-1]), 2, 4, generator=torch.Generator().manual_seed(0))
    order = torch.arange(len(k))
    first, second = int(blocks.token_NL[0, 0]), int(blocks.token_NL[0, 1])
    order[[first, second]] = order[[second, first]]
    for before, after in zip(memory(k, v, blocks), memory(k[order], v[order], blocks), strict=True):
        torch.testing.assert_close(after, before)


DISTANCE = 4_000
LESSONS = ((150, 50, 16), (600, 10, 8), (1_500, 10, 4), (DISTANCE, 10, 2))  # distance, steps, streams a step


def planted(distance: int, streams: int, draw: torch.Generator) -> tuple[Tensor, Stream, Tensor]:
    """Streams of one code over and over, but for one of two signs so many tokens before the last one."""
    tokens = distance + 50
    sign_B = torch.randint(0, 2, (streams,), generator=draw)
    code_BT = torch.zeros(streams, tokens, dtype=torch.int64)
    code_BT[:, 49] = 1 + sign_B
    place_T = torch.arange(tokens).repeat(streams)
    offset_B1 = torch.arange(streams + 1) * tokens
    return code_BT.flatten(), Stream(torch.arange(streams * tokens + 1), offset_B1, place_T, place_T.double()), sign_B


def found_again(memory: int) -> float:
    """How often a model says which sign stood 4,000 tokens back, having learned it from nearer to farther."""
    torch.manual_seed(0)
    config = ModelConfig(
        facets=(FacetConfig("item", 3, "entity"),),
        item=ItemConfig("item", 3, (), 0),
        repeat=RepeatConfig((1.0,), 1.0),
        width=32,
        layers=1,
        heads=1,
        attention=AttentionConfig((64,), memory=memory, memory_block=256, memory_reach=128),
    )
    trunk, table, head = Trunk(config), nn.Embedding(3, 32), nn.Linear(32, 2)
    optimiser = torch.optim.Adam([*trunk.parameters(), *table.parameters(), *head.parameters()], lr=1e-2)
    draw = torch.Generator().manual_seed(1)
    for distance, steps, streams in LESSONS:
        for _ in range(steps):
            code_T, stream, sign_B = planted(distance, streams, draw)
            logit_B2 = head(trunk(table(code_T), stream)[stream.offset_B1[1:] - 1])
            F.cross_entropy(logit_B2, sign_B).backward()
            optimiser.step()
            optimiser.zero_grad()
    with torch.no_grad():
        code_T, stream, sign_B = planted(DISTANCE, 20, draw)
        said_B = head(trunk(table(code_T), stream)[stream.offset_B1[1:] - 1]).argmax(1)
    return float((said_B == sign_B).float().mean())


@pytest.mark.parametrize(("memory", "low", "high"), [(1, 0.95, 1.0), (0, 0.0, 0.8)])
def test_what_stood_four_thousand_tokens_back_is_found_with_memory_and_missed_without(
    memory: int, low: float, high: float
) -> None:
    assert low <= found_again(memory) <= high
