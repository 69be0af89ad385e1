from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foundation.attention import REFERENCE_TOKENS, Backend, attend, cut_groups, group_windows, rotate, rotations
from foundation.errors import UnsupportedAttention
from foundation.jagged import EventBatch, group_offsets

HEADS, WIDTH = 2, 4
USERS = st.lists(st.lists(st.integers(1, 9), max_size=8), min_size=1, max_size=5)  # sizes of the groups of each user
WINDOWS = st.integers(1, 12)  # so some groups are longer than the window


def batch_of(users: list[list[int]]) -> EventBatch:
    group = [number for sizes in users for number, size in enumerate(sizes) for _ in range(size)]
    offset = torch.tensor([0, *(sum(sizes) for sizes in users)]).cumsum(0)
    tokens = len(group)
    return EventBatch(
        torch.zeros(tokens, 0, dtype=torch.int64),
        torch.zeros(tokens, dtype=torch.float64),
        torch.zeros(tokens, dtype=torch.float64),
        torch.ones(tokens, dtype=torch.bool),
        torch.tensor(group, dtype=torch.int64),
        offset,
        torch.zeros(len(users), dtype=torch.float64),
    )


def drawn(batch: EventBatch, seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shape = (batch.tokens, HEADS, WIDTH)
    return [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(3)]


def seen_by(users: list[list[int]], window: int) -> list[set[int]]:
    """Tokens that each token may see, by the words of the docs: pieces of whole groups inside the window."""
    seen: list[set[int]] = []
    first = 0
    for sizes in users:
        pieces = [min(window, size - cut) for size in sizes for cut in range(0, size, window)]
        for place, piece in enumerate(pieces):
            begin = place
            while begin > 0 and sum(pieces[begin - 1 : place + 1]) <= window:
                begin -= 1
            start, end = sum(pieces[:begin]), sum(pieces[: place + 1])
            seen += [{first + token for token in range(start, end)}] * piece
        first += sum(sizes)
    return seen


@given(users=USERS, window=WINDOWS, seed=st.integers(0, 99))
@settings(max_examples=80)
def test_blocked_equals_the_reference_on_values_and_every_gradient(
    users: list[list[int]], window: int, seed: int
) -> None:
    batch = batch_of(users)
    found = []
    for backend in (Backend.REFERENCE, Backend.BLOCKED):
        qkv = drawn(batch, seed)
        out = attend(*qkv, group_windows(batch, window, backend), backend)
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
        found.append([out.detach(), *(x.grad for x in qkv)])
    for reference, blocked in zip(*found, strict=True):
        assert reference is not None
        assert torch.isfinite(reference).all()
        torch.testing.assert_close(blocked, reference)


@given(users=USERS, window=WINDOWS)
@settings(max_examples=80)
def test_a_token_sees_whole_groups_of_its_user_up_to_its_own_and_nothing_else(
    users: list[list[int]], window: int
) -> None:
    batch = batch_of(users)
    windows = group_windows(batch, window, Backend.BLOCKED)
    pairs = zip(windows.start_T.tolist(), windows.end_T.tolist(), strict=True)
    assert [set(range(start, end)) for start, end in pairs] == seen_by(users, window)


@pytest.mark.parametrize("backend", list(Backend))
@pytest.mark.parametrize("window", [2, 5, 64])
def test_what_a_token_does_not_see_does_not_change_it(backend: Backend, window: int) -> None:
    users = [[2, 3, 1, 7], [], [1, 4, 2]]
    batch = batch_of(users)
    q, k, v = (x.detach() for x in drawn(batch, 0))
    windows = group_windows(batch, window, backend)
    before = attend(q, k, v, windows, backend)
    for token, seen in enumerate(seen_by(users, window)):
        hidden = torch.tensor([other not in seen for other in range(batch.tokens)])
        noise = torch.full_like(k, 50.0) * hidden[:, None, None]
        after = attend(q, k + noise, v + noise, windows, backend)
        torch.testing.assert_close(after[token], before[token])


@given(users=USERS, window=WINDOWS)
@settings(max_examples=60)
def test_only_groups_longer_than_the_window_are_cut(users: list[list[int]], window: int) -> None:
    batch = batch_of(users)
    whole, cut = group_offsets(batch).tolist(), cut_groups(group_offsets(batch), window).tolist()
    assert set(whole) <= set(cut)
    assert all(end - start <= window for start, end in itertools.pairwise(cut))
    kept = [start for start, end in itertools.pairwise(whole) if end - start <= window]
    assert all(cut[cut.index(start) + 1] in whole for start in kept)


def test_windows_reach_further_the_wider_they_are() -> None:
    batch = batch_of([[2] * 20])
    spans = []
    for window in (2, 8, 40):
        windows = group_windows(batch, window, Backend.BLOCKED)
        spans.append(int((windows.end_T - windows.start_T).max()))
    assert spans == [2, 8, 40]


def test_equal_positions_turn_alike_and_only_distance_counts() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, HEADS, WIDTH, generator=draw, dtype=torch.float64) for _ in range(2))

    def product(at: int, other: int) -> Tensor:
        turned = [rotate(x, rotations(torch.tensor([place]), x.shape[-1])) for x, place in ((q, at), (k, other))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(product(7, 7), (q * k).sum())
    torch.testing.assert_close(product(1009, 1003), product(6, 0), rtol=1e-4, atol=1e-4)
    assert not torch.isclose(product(6, 0), product(0, 0))


def test_a_backend_refuses_what_it_can_not_do() -> None:
    batch = batch_of([[REFERENCE_TOKENS + 1]])
    x = torch.zeros(batch.tokens, 1, 2)
    windows = group_windows(batch, 4, Backend.REFERENCE)
    with pytest.raises(UnsupportedAttention, match="at most 16,384 tokens, got 16,385: use backend 'blocked'"):
        attend(x, x, x, windows, Backend.REFERENCE)
    with pytest.raises(UnsupportedAttention, match="laid out for another backend: build them with 'blocked'"):
        attend(x, x, x, windows, Backend.BLOCKED)
