"""Rotary embeddings by place and by time: what counts in a product of query and key is the distance between the two.

By place: Su et al., RoFormer, arXiv:2104.09864; places are ordinals of groups, so a set stays a set. By time, or one
half of each head by place and the other by time: Wei et al., Rotate Both Ways, arXiv:2510.20455 (split by dimension).
"""

from __future__ import annotations

import torch
from torch import Tensor

from foundation.config import AttentionConfig, Rotary


def rotations(place_T: Tensor, time_T: Tensor, config: AttentionConfig, head_width: int) -> Tensor:
    """The turn of each pair of dimensions of each token, complex64 [T, 1, K / 2].

    place_T: int64 ordinals of groups. time_T: float64 seconds since the user's first event.
    """
    pairs = head_width // 2
    if config.rotary is Rotary.PLACE:
        return _by_place(place_T, pairs)
    if config.rotary is Rotary.TIME:
        return _by_time(time_T / config.time_unit, pairs)
    return torch.cat([_by_place(place_T, pairs - pairs // 2), _by_time(time_T / config.time_unit, pairs // 2)], dim=2)


def rotate(x_THK: Tensor, rotation_T1K: Tensor) -> Tensor:
    """Turn queries or keys.

    Neighbouring dimensions are the parts of one complex number: one multiplication instead of six.
    """
    pairs_THK = torch.view_as_complex(x_THK.float().view(*x_THK.shape[:-1], x_THK.shape[-1] // 2, 2))
    return torch.view_as_real(pairs_THK * rotation_T1K).flatten(-2).to(x_THK.dtype)


def _by_place(place_T: Tensor, pairs: int) -> Tensor:
    angle_TK = place_T[:, None] * _frequencies(place_T, pairs)
    return torch.polar(torch.ones_like(angle_TK), angle_TK)[:, None]


def _by_time(step_T: Tensor, pairs: int) -> Tensor:
    # Float64 until the angle is within one turn: seconds over years have more digits than float32 keeps.
    angle_TK = torch.remainder(step_T[:, None] * _frequencies(step_T, pairs).double(), 2 * torch.pi).float()
    return torch.polar(torch.ones_like(angle_TK), angle_TK)[:, None]


def _frequencies(like: Tensor, pairs: int) -> Tensor:
    return torch.as_tensor(10_000.0 ** (-torch.arange(pairs, device=like.device) / pairs))
