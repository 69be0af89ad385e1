"""The moving average of a run's weights, with which it ends where `average` says so.

Steps jump about what they come nearer to; their mean is nearer (Polyak & Juditsky, SIAM J. Control Optim. 30(4), 1992;
of deep networks: Morales-Brotons et al., arXiv:2411.18704). The weights that learn are not touched before the end.
torch's AveragedModel would copy the contents of all items at each step, as buffers of the model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.checkpoint import Kept, as_it_is


class Average:
    """Weights that follow those of a model."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """decay: how much of the average a step leaves, 0 to below 1. Early steps leave less, and the first nothing, so
        that where the weights began is soon forgotten."""
        self._model, self._decay, self._steps = model, decay, 0
        self._weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    @torch.no_grad()
    def follow(self) -> None:
        """Take in the weights as they are after a step."""
        kept = min(self._decay, self._steps / (10 + self._steps))
        for name, weight in self._model.named_parameters():
            self._weights[name].lerp_(weight, 1 - kept)
        self._steps += 1

    @torch.no_grad()
    def settle(self) -> None:
        """Give the model the averaged weights."""
        for name, weight in self._model.named_parameters():
            weight.copy_(self._weights[name])

    def state(self, told: Kept = as_it_is) -> dict[str, Any]:
        """For a checkpoint. told: what to write of the average of a weight."""
        weights = {name: told(weight, self._weights[name]) for name, weight in self._model.named_parameters()}
        return {"steps": self._steps, "weights": weights}

    def load(self, state: dict[str, Any], told: Kept = as_it_is) -> None:
        """Continue from `state()`. told: what to keep of an average that was written.

        Raises KeyError for the state of a run without an average, or of another model.
        """
        self._steps = state["steps"]
        for name, weight in self._model.named_parameters():
            self._weights[name].copy_(told(weight, state["weights"][name]))
