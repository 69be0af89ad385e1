"""Users with groups of all sizes, and what a token may see of them: a loop in the words of the docs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from foundation.config import AttentionConfig

Users = list[list[int]]
"""The sizes of the groups of each user."""

USERS = st.lists(st.lists(st.integers(1, 9), max_size=9), min_size=1, max_size=5)
CONFIGS = st.builds(
    AttentionConfig,
    windows=st.tuples(st.integers(0, 12)),  # so some groups are longer than the window
    sinks=st.integers(0, 10),
    memory=st.integers(0, 3),
    memory_block=st.integers(1, 9),
    memory_reach=st.integers(1, 4),
)


def borders(users: Users) -> torch.Tensor:
    sizes = [size for groups in users for size in groups]
    return torch.tensor([0, *itertools.accumulate(sizes)])


def offsets(users: Users) -> torch.Tensor:
    return torch.tensor([0, *itertools.accumulate(sum(groups) for groups in users)])


@dataclass(frozen=True)
class Seen:
    """What one token sees: packed tokens through the window and as sinks, and tokens behind each slot of memory."""

    window: set[int]
    sinks: set[int]
    blocks: list[set[int]]


def seen_by(users: Users, config: AttentionConfig) -> list[Seen]:
    """By token. A window of 0 shows everything, so that nothing is left for sinks and memory."""
    found, first, window = [], 0, config.windows[0]
    for sizes in users:
        pieces = [min(window or size, size - cut) for size in sizes for cut in range(0, size, window or size)]
        sinks = first + max((end for end in itertools.accumulate(sizes) if end <= config.sinks), default=0)
        blocks: dict[int, set[int]] = {}
        start = 0
        for size in sizes:
            blocks.setdefault(start // config.memory_block, set()).update(range(first + start, first + start + size))
            start += size
        for place, piece in enumerate(pieces):
            begin = place
            while begin > 0 and (not window or sum(pieces[begin - 1 : place + 1]) <= window):
                begin -= 1
            left, right = first + sum(pieces[:begin]), first + sum(pieces[: place + 1])
            behind = [block for block in blocks.values() if max(block) < left] if config.memory and window else []
            seen = Seen(set(range(left, right)), set(range(first, min(sinks, left))), behind[-config.memory_reach :])
            found += [seen] * piece
        first += sum(sizes)
    return found
