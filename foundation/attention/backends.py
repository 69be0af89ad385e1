"""One signature, several ways to compute it, the plain one first; what each can do is declared, the rest refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from foundation.attention import blocked, flex, reference, xformers
from foundation.attention.sight import Sight
from foundation.config import Backend
from foundation.errors import UnsupportedAttention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Softmax attention over what a sight allows: queries [T, H, K], keys and values [S, H, K] of the S = T + M tokens and
slots of memory → float [T, H, K]."""

# A dense mask of a longer stream would not fit a small machine's memory.
REFERENCE_TOKENS = 16_384


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do. All of them know windows, sinks, memory and full layers.

    forward, backward: kinds of devices. tokens: the longest stream, 0 = any.
    """

    forward: tuple[str, ...]
    backward: tuple[str, ...]
    tokens: int = 0


CAPABILITIES: Mapping[Backend, Capabilities] = {
    Backend.REFERENCE: Capabilities(("cpu", "cuda"), ("cpu", "cuda"), REFERENCE_TOKENS),
    Backend.BLOCKED: Capabilities(("cpu", "cuda"), ("cpu", "cuda")),
    Backend.FLEX: Capabilities(("cpu", "cuda"), ("cuda",)),
    Backend.XFORMERS: Capabilities(("cuda",), ("cuda",)),
}


def lay_out(sight: Sight, tokens: int, backend: Backend) -> Attend:
    """Prepare attention over T tokens and the slots behind them, once for all layers that see alike.

    tokens: keys before the first slot of memory. Raises UnsupportedAttention where the backend can't do what is asked,
    here or when it is called with something to learn.
    """
    able, device = CAPABILITIES[backend], sight.window_T2.device.type
    if device not in able.forward:
        raise UnsupportedAttention(f"the {backend} backend needs {' or '.join(able.forward)}: use backend 'blocked'")
    if able.tokens and tokens > able.tokens:
        raise UnsupportedAttention(
            f"the {backend} backend builds a dense mask and takes at most {able.tokens:,} tokens, got {tokens:,}: "
            "use backend 'blocked'"
        )
    attend = _laid_out(sight, tokens, backend)
    return attend if device in able.backward else _without_gradients(attend, backend, able)


def _laid_out(sight: Sight, tokens: int, backend: Backend) -> Attend:
    if backend is Backend.REFERENCE:
        return reference.lay_out(sight, tokens)
    if backend is Backend.FLEX:
        return flex.lay_out(sight, tokens)
    if backend is Backend.XFORMERS:
        return xformers.lay_out(sight, tokens)
    return blocked.lay_out(sight, tokens)


def _without_gradients(attend: Attend, backend: Backend, able: Capabilities) -> Attend:
    def checked(q_THK: Tensor, k_SHK: Tensor, v_SHK: Tensor) -> Tensor:
        if torch.is_grad_enabled() and any(x.requires_grad for x in (q_THK, k_SHK, v_SHK)):
            raise UnsupportedAttention(
                f"the {backend} backend has no gradients on {q_THK.device.type}, only on {' or '.join(able.backward)}: "
                "train with backend 'blocked'"
            )
        return attend(q_THK, k_SHK, v_SHK)

    return checked
