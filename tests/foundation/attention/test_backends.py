from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foundation.attention import blocked
from foundation.attention.backends import CAPABILITIES, REFERENCE_TOKENS, lay_out
from foundation.attention.reference import visible
from foundation.attention.sight import Sight, memory_blocks, no_blocks, see, sink_ends
from foundation.config import AttentionConfig, Backend
from foundation.errors import UnsupportedAttention
from tests.foundation.attention.conftest import CONFIGS, USERS, Users, borders, offsets

HEADS, WIDTH = 2, 4
LONG: Users = [[3] * 300, [1, 2], [], [5] * 90]


def sight_of(users: Users, config: AttentionConfig) -> tuple[Sight, int, int]:
    """The sight of all tokens, how many they are, and the slots of memory behind them."""
    border_G1, offset_B1 = borders(users), offsets(users)
    blocks = memory_blocks(border_G1, offset_B1, config) if config.memory else no_blocks(offset_B1)
    sight = see(border_G1, offset_B1, sink_ends(border_G1, offset_B1, config), blocks, config.windows[0], config)
    return sight, int(border_G1[-1]), len(blocks.end_N) * blocks.rank


def drawn(tokens: int, slots: int, seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    rows = (tokens, tokens + slots, tokens + slots)
    return [torch.randn(count, HEADS, WIDTH, generator=draw, dtype=torch.float64).requires_grad_() for count in rows]


def run(backend: Backend, sight: Sight, tokens: int, qkv: list[Tensor]) -> list[Tensor | None]:
    """What comes out, and the gradients of queries, keys and values."""
    out = lay_out(sight, tokens, backend)(*qkv)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
    return [out.detach(), *(x.grad for x in qkv)]


@given(users=USERS, config=CONFIGS, queries=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=150)
def test_blocked_equals_the_reference_on_values_and_every_gradient(
    users: Users, config: AttentionConfig, queries: int, seed: int
) -> None:
    sight, tokens, slots = sight_of(users, config)
    reference = run(Backend.REFERENCE, sight, tokens, drawn(tokens, slots, seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocked, "QUERIES", queries)  # so that blocks are many, and cut groups
        other = run(Backend.BLOCKED, sight, tokens, drawn(tokens, slots, seed))
    for expected, found in zip(reference, other, strict=True):
        assert expected is not None
        assert torch.isfinite(expected).all()
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("window", [0, 1, 64, 256, 5000])
def test_blocked_equals_the_reference_in_blocks_of_its_own_size(window: int) -> None:
    config = AttentionConfig((window,), sinks=7, memory=2, memory_block=32, memory_reach=5)
    sight, tokens, slots = sight_of(LONG, config)
    found = [run(backend, sight, tokens, drawn(tokens, slots, 0)) for backend in (Backend.REFERENCE, Backend.BLOCKED)]
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected)


@pytest.mark.parametrize("backend", [Backend.REFERENCE, Backend.BLOCKED])
@pytest.mark.parametrize("window", [0, 2, 5, 64])
def test_what_a_token_does_not_see_does_not_change_it(backend: Backend, window: int) -> None:
    config = AttentionConfig((window,), sinks=3, memory=2, memory_block=2)
    sight, tokens, slots = sight_of([[2, 3, 1, 7], [], [1, 4, 2]], config)
    q, k, v = (x.detach() for x in drawn(tokens, slots, 0))
    attend = lay_out(sight, tokens, backend)
    before = attend(q, k, v)
    for token, seen in enumerate(visible(sight, tokens, tokens + slots)):
        noise = torch.full_like(k, 50.0) * ~seen[:, None, None]
        torch.testing.assert_close(attend(q, k + noise, v + noise)[token], before[token])


def test_blocks_grow_with_the_window_and_not_with_the_stream() -> None:
    config = AttentionConfig((64,), sinks=8, memory=1, memory_block=32, memory_reach=16)
    sizes = []
    for groups in (1_000, 4_000):
        sight, tokens, _ = sight_of([[2] * groups], config)
        sizes.append(blocked.layout(sight, tokens).bias_NQJ.numel() / tokens)
    assert sizes[1] < sizes[0] * 1.1


def test_a_backend_refuses_what_it_can_not_do() -> None:
    config = AttentionConfig((4,))
    sight, tokens, slots = sight_of([[REFERENCE_TOKENS + 1]], config)
    with pytest.raises(UnsupportedAttention, match="at most 16,384 tokens, got 16,385: use backend 'blocked'"):
        lay_out(sight, tokens, Backend.REFERENCE)
    with pytest.raises(UnsupportedAttention, match="the xformers backend needs cuda: use backend 'blocked'"):
        lay_out(sight, tokens, Backend.XFORMERS)
    flex = lay_out(sight, tokens, Backend.FLEX)
    with pytest.raises(UnsupportedAttention, match="flex backend has no gradients on cpu, only on cuda"):
        flex(*drawn(tokens, slots, 0))


def test_every_backend_says_what_it_can_do() -> None:
    assert set(CAPABILITIES) == set(Backend)
    assert all("cuda" in able.forward and set(able.backward) <= set(able.forward) for able in CAPABILITIES.values())


@pytest.mark.slow  # compiles for most of a minute
@pytest.mark.skipif(sys.platform != "linux", reason="needs a C++ compiler that torch.compile finds")
@pytest.mark.parametrize("window", [0, 100])
def test_flex_equals_the_reference_forward(window: int) -> None:
    config = AttentionConfig((window,), sinks=7, memory=2, memory_block=32, memory_reach=5)
    sight, tokens, slots = sight_of(LONG, config)
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(count, 2, 16, generator=draw) for count in (tokens, tokens + slots, tokens + slots))
    with torch.no_grad():
        expected, found = (lay_out(sight, tokens, one)(q, k, v) for one in (Backend.REFERENCE, Backend.FLEX))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run this test on a machine that has one")
@pytest.mark.parametrize("backend", [Backend.BLOCKED, Backend.FLEX, Backend.XFORMERS])
@pytest.mark.parametrize("window", [0, 100])
def test_on_cuda_every_backend_equals_the_reference(backend: Backend, window: int) -> None:
    if backend is Backend.XFORMERS:
        pytest.importorskip("xformers.ops", reason="pip install 'userfm[cuda]' first")
    config = AttentionConfig((window,), sinks=7, memory=2, memory_block=32, memory_reach=5)
    sight, tokens, slots = sight_of(LONG, config)
    sight = Sight(sight.window_T2.cuda(), sight.sinks_T2.cuda(), sight.slots_T2.cuda())
    found = []
    for one in (Backend.REFERENCE, backend):
        draw = torch.Generator().manual_seed(0)
        rows = (tokens, tokens + slots, tokens + slots)
        qkv = [torch.randn(count, 2, 32, generator=draw).cuda().requires_grad_() for count in rows]
        found.append(run(one, sight, tokens, qkv))
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected, rtol=1e-3, atol=1e-3)
