"""Sparse attention beside dense, and a new event encoded onto a cache beside a whole life encoded again.

The floor is what everybody has: causal `scaled_dot_product_attention` over one stream of the same length
(FlashAttention on a GPU), forward and backward. The stream is one life in groups of 1 to 16 events; windows are of 256
tokens. `speedup_*` is
the sliding window alone, `speedup_*_with_memory` what a model with sinks and memory runs. On a GPU the same as
`cuda_*`, and memory beside length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Bar, Estimate, Measured, at_least, estimate, in_turns
from foundation.attention.backends import lay_out
from foundation.attention.sight import memory_blocks, no_blocks, see, sink_ends
from foundation.cache import empty_cache, encode_onto
from foundation.config import AttentionConfig, Backend, FacetConfig, ItemConfig, ModelConfig, RepeatConfig
from foundation.jagged import Stream, ranges_owner
from foundation.transformer import Trunk

Progress = Callable[[str, int, int], None]

HEADS, HEAD_WIDTH = 4, 64
WINDOW = AttentionConfig(windows=(256,))
WITH_MEMORY = replace(WINDOW, sinks=16, memory=1, memory_block=64, memory_reach=128)
BARS = {4_096: 3.0, 8_192: 6.0}
CUDA_BAR, CUDA_LENGTHS = 5.0, (8_192, 16_384, 32_768, 65_536)
CACHE_BAR, LIFE = 10.0, 2_048


def run(progress: Progress) -> Measured:
    """Figures: speedup_4096, speedup_8192, the same with memory, cache_speedup; with a CUDA device also
    cuda_speedup_8192 and cuda_bytes_a_token at several lengths; each with its interval."""
    found: dict[str, Estimate] = {}
    for tokens in BARS:
        for name, config in (("", WINDOW), ("_with_memory", WITH_MEMORY)):
            label = f"speedup_{tokens}{name}"
            found[label] = _speedup(tokens, config, Backend.BLOCKED, "cpu", partial(progress, label))
    bars = [at_least(f"speedup_{tokens}", found[f"speedup_{tokens}"], bar) for tokens, bar in BARS.items()]
    found["cache_speedup"] = _cache_speedup(WITH_MEMORY, partial(progress, "cache_speedup"))
    bars.append(at_least("cache_speedup", found["cache_speedup"], CACHE_BAR))
    figures = _figures(found)
    if torch.cuda.is_available():
        more, of_cuda = _on_cuda(progress)
        figures, bars = {**figures, **more}, [*bars, *of_cuda]
    return Measured({**figures, "threads": torch.get_num_threads()}, tuple(bars))


def _figures(found: dict[str, Estimate]) -> dict[str, float]:
    return {
        name: value
        for figure, of in found.items()
        for name, value in ((figure, of.median), (f"{figure}_low", of.low), (f"{figure}_high", of.high))
    }


def life(tokens: int, device: str = "cpu") -> Stream:
    """One user whose groups hold 1 to 16 events, an hour between two."""
    draw = torch.Generator().manual_seed(0)
    border = torch.randint(1, 17, (tokens,), generator=draw).cumsum(0)
    border_G1 = torch.cat([torch.tensor([0]), border[border < tokens], torch.tensor([tokens])])
    place_T = ranges_owner(border_G1.diff())
    stream = Stream(border_G1, torch.tensor([0, tokens]), place_T, place_T.double() * 3_600.0)
    return Stream(*(part.to(device) for part in (stream.border_G1, stream.offset_B1, stream.place_T, stream.time_T)))


def _speedup(
    tokens: int, config: AttentionConfig, backend: Backend, device: str, progress: Callable[[int, int], None]
) -> Estimate:
    dense, own = in_turns(_dense(tokens, device), sparse(tokens, config, backend, device), pairs=21, progress=progress)
    return estimate(dense / own)


def sparse(tokens: int, config: AttentionConfig, backend: Backend, device: str) -> Callable[[], None]:
    """Forward and backward over one life; the layout is made once, as for the layers of a trunk."""
    stream = life(tokens, device)
    border_G1, offset_B1 = stream.border_G1, stream.offset_B1
    blocks = memory_blocks(border_G1, offset_B1, config) if config.memory else no_blocks(offset_B1)
    sight = see(border_G1, offset_B1, sink_ends(border_G1, offset_B1, config), blocks, config.windows[0], config)
    attend = lay_out(sight, tokens, backend)
    keys = tokens + len(blocks.end_N) * blocks.rank
    q, k, v = (_drawn(count, device) for count in (tokens, keys, keys))
    gradient = torch.randn(tokens, HEADS, HEAD_WIDTH, device=device, dtype=q.dtype)
    return _synchronised(lambda: attend(q, k, v).backward(gradient), device)  # type: ignore[no-untyped-call]


def _dense(tokens: int, device: str) -> Callable[[], None]:
    q, k, v = (_drawn(tokens, device).detach().transpose(0, 1)[None].contiguous().requires_grad_() for _ in range(3))
    gradient = torch.randn_like(q)

    def step() -> None:
        F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(gradient)  # type: ignore[no-untyped-call]

    return _synchronised(step, device)


def _drawn(rows: int, device: str) -> Tensor:
    # In the type that models are trained in there: FlashAttention knows no float32.
    kind = torch.float32 if device == "cpu" else torch.bfloat16
    return torch.randn(rows, HEADS, HEAD_WIDTH, device=device, dtype=kind).requires_grad_()


def _synchronised(step: Callable[[], None], device: str) -> Callable[[], None]:
    def synchronised() -> None:
        step()
        if device != "cpu":
            torch.cuda.synchronize()

    return synchronised


def _cache_speedup(config: AttentionConfig, progress: Callable[[int, int], None]) -> Estimate:
    """A trunk of two layers of width 256: a life of 2,048 events encoded, beside one event more onto its cache.

    The event is of the dearest kind: with the group that it closes a block of memory is full, and compressed.
    """
    torch.manual_seed(0)
    trunk = Trunk(
        ModelConfig(
            facets=(FacetConfig("item", 3, "entity"),),
            item=ItemConfig("item", 3, (), 0),
            repeat=RepeatConfig((1.0,), 1.0),
            width=HEADS * HEAD_WIDTH,
            layers=2,
            heads=HEADS,
            attention=config,
        )
    ).eval()
    stream = life(LIFE)
    x_TD = torch.randn(LIFE, HEADS * HEAD_WIDTH)
    _, cache = encode_onto(trunk, empty_cache(trunk, 1), x_TD, stream)
    last = int(cache.closed_B)
    # The newest group is open: it comes again, with one event that follows it.
    sizes = torch.tensor([0, LIFE - last, LIFE - last + 1])
    place = torch.cat([stream.place_T[last:], stream.place_T[-1:] + 1])
    onto = Stream(sizes, torch.tensor([0, int(sizes[-1])]), place, place.double() * 3_600.0)
    x_new_TD = torch.cat([x_TD[last:], torch.randn(1, HEADS * HEAD_WIDTH)])

    def again() -> None:
        with torch.no_grad():
            trunk(x_TD, stream)

    whole, one = in_turns(again, lambda: encode_onto(trunk, cache, x_new_TD, onto), pairs=31, progress=progress)
    return estimate(whole / one)


def _on_cuda(progress: Progress) -> tuple[dict[str, float], list[Bar]]:
    found = {}
    for backend in (Backend.BLOCKED, Backend.FLEX):
        label = f"cuda_speedup_8192_{backend}"
        found[label] = _speedup(8_192, WINDOW, backend, "cuda", partial(progress, label))
    best = max(found.values(), key=lambda one: one.median)
    figures = _figures({**found, "cuda_speedup_8192": best})
    for place, tokens in enumerate(CUDA_LENGTHS):
        progress("cuda memory", place, len(CUDA_LENGTHS))
        torch.cuda.reset_peak_memory_stats()
        sparse(tokens, WITH_MEMORY, Backend.BLOCKED, "cuda")()
        figures[f"cuda_bytes_a_token_{tokens}"] = torch.cuda.max_memory_allocated() / tokens
    ends = np.array([figures[f"cuda_bytes_a_token_{tokens}"] for tokens in (CUDA_LENGTHS[0], CUDA_LENGTHS[-1])])
    figures["cuda_memory_growth"] = float(ends[1] / ends[0])
    return figures, [at_least("cuda_speedup_8192", best, CUDA_BAR)]
