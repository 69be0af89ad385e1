"""A trained model whose matrices change by little: what is learned is a product of two thin ones, added to each.

Hu et al., LoRA, arXiv:2106.09685: what a trained model learns of a new task is of low rank. The trained weights stay
where they are, a few hundredths of their number learn, and `merge` leaves an ordinary model behind.

Shapes: O outputs and I inputs of a matrix, K its rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from foundation.errors import ModelError


class LowRank(nn.Module):
    """What is added to a matrix; nothing at first."""

    def __init__(self, weight_OI: Tensor, rank: int) -> None:
        """Raises ModelError for a rank that the matrix has not."""
        super().__init__()
        outputs, inputs = weight_OI.shape
        check_rank(rank, outputs, inputs)
        self.down_KI = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.up_OK = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight_OI: Tensor) -> Tensor:
        """float [O, I]."""
        return weight_OI + self.up_OK @ self.down_KI


def check_rank(rank: int, outputs: int, inputs: int) -> None:
    """Raises ModelError for a rank that such a matrix has not."""
    if not 1 <= rank <= min(outputs, inputs):
        raise ModelError(
            f"a matrix of {outputs} × {inputs} has no rank {rank}: take one from 1 to {min(outputs, inputs)}"
        )


def loosen(module: nn.Module, rank: int) -> None:
    """Let every matrix of the module's linear layers learn by a product of this rank, and by nothing else.

    Raises ModelError for a rank that one of them has not.
    """
    for layer in _linear_layers(module):
        layer.weight.requires_grad_(False)
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))


def merge(module: nn.Module) -> None:
    """Put what the products have come to into the matrices, which are plain weights again."""
    for layer in _linear_layers(module):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _linear_layers(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
