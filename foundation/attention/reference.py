"""The plain way: one dense mask of all tokens by all keys. Every other backend equals it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from foundation.attention.sight import Sight


def lay_out(sight: Sight, tokens: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """See `backends.lay_out`."""

    def attend(q_THK: Tensor, k_SHK: Tensor, v_SHK: Tensor) -> Tensor:
        return over_mask(visible(sight, tokens, k_SHK.shape[0]))(q_THK, k_SHK, v_SHK)

    return attend


def over_mask(mask_TS: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention of each token to the keys that a mask allows."""

    def attend(q_THK: Tensor, k_SHK: Tensor, v_SHK: Tensor) -> Tensor:
        q, k, v = (x.transpose(0, 1) for x in (q_THK, k_SHK, v_SHK))
        logit_HTS = (q @ k.transpose(1, 2)) / q.shape[-1] ** 0.5
        share_HTS = torch.softmax(logit_HTS.masked_fill(~mask_TS, -torch.inf), dim=-1)
        return (share_HTS @ v).transpose(0, 1)

    return attend


def visible(sight: Sight, tokens: int, keys: int) -> Tensor:
    """bool [T, S]: whether each token sees each key; slots of memory are the keys from `tokens` on."""
    key_S = torch.arange(keys, device=sight.window_T2.device)
    return _within(key_S, sight.window_T2) | _within(key_S, sight.sinks_T2) | _within(key_S - tokens, sight.slots_T2)


def _within(key_S: Tensor, range_T2: Tensor) -> Tensor:
    return (key_S >= range_T2[:, :1]) & (key_S < range_T2[:, 1:])
