"""Losses of an event's other facets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def facet_cross_entropy(logit_RC: Tensor, row_E: Tensor, code_E: Tensor, weight_E: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of one facet's codes over the target events; absent codes (0) count nothing; (sum, weight)."""
    weight_E = torch.where(code_E > 0, weight_E, 0.0)
    loss_E = -F.log_softmax(logit_RC, dim=1)[row_E, code_E]
    return (loss_E * weight_E).sum(), weight_E.sum()
