"""What a lesson hides, so that the model learns to do without it: context, attributes of users, whole histories.

As dropout of inputs does for whole modalities (Neverova et al., ModDrop, arXiv:1501.00102; Volkovs et al., DropoutNet,
NeurIPS 2017, for users and items that are new).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from foundation.config import ModelConfig
from foundation.jagged import EventBatch, Requests
from tokenization.schema.rules import ClockFacet

# What the clock says of a user's earlier events, which somebody new has not.
SINCE = (ClockFacet.GAP.value, ClockFacet.TENURE.value)


def some_told(code_NC: Tensor, share: float, draw: np.random.Generator) -> Tensor:
    """int64 [N, C] codes of which a share of the rows tells nothing; of the rest, each code is hidden with half that
    probability."""
    keep_N1 = draw.random((len(code_NC), 1)) >= share
    keep_NC = draw.random(tuple(code_NC.shape)) >= share / 2
    return torch.where(torch.from_numpy(keep_N1 & keep_NC), code_NC, 0)


def some_new(
    requests: Requests, batch: EventBatch, config: ModelConfig, share: float, draw: np.random.Generator
) -> Requests:
    """The same requests, a share of them as if their user were new: without any event before them, and without what
    the clock says of such. Context and attributes stay."""
    new_R = torch.from_numpy(draw.random(len(requests)) < share)
    since_C = torch.tensor([facet.name in SINCE for facet in config.context], dtype=torch.bool)
    return replace(
        requests,
        end_R=torch.where(new_R, batch.offset_B1[:-1][requests.user_R], requests.end_R),
        time_R=torch.where(new_R, 0.0, requests.time_R),
        context_RC=torch.where(new_R[:, None] & since_C, 0, requests.context_RC),
    )
