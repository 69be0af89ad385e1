from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings

from foundation.attention.sight import cut_groups, memory_blocks, no_blocks, see, sink_ends
from foundation.config import AttentionConfig
from tests.foundation.attention.conftest import CONFIGS, USERS, Users, borders, offsets, seen_by


@given(users=USERS, config=CONFIGS)
@settings(max_examples=150)
def test_a_token_sees_whole_groups_of_its_user_its_sinks_and_memory_and_nothing_else(
    users: Users, config: AttentionConfig
) -> None:
    border_G1, offset_B1 = borders(users), offsets(users)
    blocks = memory_blocks(border_G1, offset_B1, config) if config.memory else no_blocks(offset_B1)
    sight = see(border_G1, offset_B1, sink_ends(border_G1, offset_B1, config), blocks, config.windows[0], config)
    tokens = int(border_G1[-1])
    held = [{token for token in row if token < tokens} for row in blocks.token_NL.tolist()]
    for token, expected in enumerate(seen_by(users, config)):
        window, sinks, slots = (
            range(*of_T2[token].tolist()) for of_T2 in (sight.window_T2, sight.sinks_T2, sight.slots_T2)
        )
        assert (set(window), set(sinks)) == (expected.window, expected.sinks)
        rank = max(blocks.rank, 1)
        assert [held[slot // rank] for slot in slots] == [block for block in expected.blocks for _ in range(rank)]


@given(users=USERS, config=CONFIGS)
@settings(max_examples=60)
def test_what_is_in_a_block_never_changes_once_the_next_one_begins(users: Users, config: AttentionConfig) -> None:
    for sizes in users:
        whole = memory_blocks(borders([sizes]), offsets([sizes]), config).token_NL
        tokens = sum(sizes)
        kept = [[token for token in row if token < tokens] for row in whole.tolist()]
        for groups in range(len(sizes)):
            part = memory_blocks(borders([sizes[:groups]]), offsets([sizes[:groups]]), config).token_NL
            tokens_then = sum(sizes[:groups])
            closed = [[token for token in row if token < tokens_then] for row in part.tolist()][:-1]
            assert closed == kept[: len(closed)]


@given(users=USERS, config=CONFIGS)
@settings(max_examples=60)
def test_only_groups_longer_than_the_window_are_cut(users: Users, config: AttentionConfig) -> None:
    window = max(config.windows[0], 1)
    whole, cut = borders(users).tolist(), cut_groups(borders(users), window).tolist()
    assert set(whole) <= set(cut)
    assert all(end - start <= window for start, end in itertools.pairwise(cut))
    kept = [start for start, end in itertools.pairwise(whole) if end - start <= window]
    assert all(cut[cut.index(start) + 1] in whole for start in kept)


def test_windows_reach_further_the_wider_they_are() -> None:
    users: Users = [[2] * 20]
    spans = []
    for window in (2, 8, 40, 0):
        border_G1, offset_B1 = borders(users), offsets(users)
        sight = see(border_G1, offset_B1, offset_B1[:-1], no_blocks(offset_B1), window, AttentionConfig((window,)))
        window_T2 = sight.window_T2
        spans.append(int((window_T2[:, 1] - window_T2[:, 0]).max()))
    assert spans == [2, 8, 40, 40]


def test_memory_is_of_the_newest_blocks_only() -> None:
    users: Users = [[1] * 100]
    config = AttentionConfig((10,), memory=2, memory_block=10, memory_reach=3)
    blocks = memory_blocks(borders(users), offsets(users), config)
    slots_T2 = see(borders(users), offsets(users), offsets(users)[:-1], blocks, 10, config).slots_T2
    assert slots_T2[99].tolist() == [12, 18]  # the window holds 90 to 99, the blocks before it end at 90, 80 and 70
    assert torch.equal((slots_T2[:, 1] - slots_T2[:, 0]).unique(), torch.tensor([0, 2, 4, 6]))
