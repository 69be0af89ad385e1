"""The time until the next group as something to predict.

A bin is a power of two of the usual gap, as in the spans that a tokenizer tells (`distance_codes`), so that hours and
months are told apart alike: what is regressed on a log scale in temporal point processes (Du et al., RMTPP, KDD 2016)
is classified here, since gaps have several peaks (tomorrow, in a week).
"""

from __future__ import annotations

import torch
from torch import Tensor

from foundation.jagged import EventBatch, Requests


def gaps(batch: EventBatch, requests: Requests) -> tuple[Tensor, Tensor]:
    """float64 [R] seconds from the end of the user's last complete group to the request; bool [R], whether there is
    such a group. It is what the request's moment tells and no bare state knows."""
    there_R = requests.end_R > batch.offset_B1[:-1][requests.user_R]
    last_R = torch.clamp(requests.end_R - 1, min=0)
    time_R = batch.time_T[last_R] if batch.tokens else torch.zeros_like(requests.time_R)
    return requests.time_R - time_R, there_R


def gap_bins(gap_R: Tensor, unit: float, bins: int) -> Tensor:
    """int64 [R] in 0..bins − 1: bin b holds gaps from 2 ** (b − bins // 2) units on, up to twice that; the first and
    the last hold all that is shorter or longer."""
    power_R = torch.floor(torch.log2(torch.clamp(gap_R / unit, min=1e-300)))
    return torch.clamp(power_R + bins // 2, 0, bins - 1).long()
