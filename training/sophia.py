"""Sophia: momentum over an estimate of the Hessian's diagonal, clipped (Liu et al., arXiv:2305.14342).

A flat direction gets a longer step than a steep one, as by Newton, and no step is longer than the rate. This is
Sophia-H, algorithm 3 with Hutchinson's estimator (section 2.3): E[u ⊙ H u] is the diagonal of H for signs u. The other
estimator of the paper, Gauss-Newton-Bartlett, draws labels anew from the one softmax that is a language model's loss;
here the loss is a sum of many, each of which would have to be drawn from in its own way, and Hutchinson's asks for
gradients alone. H u is taken as the difference of the gradients a little ahead and a little behind along u: its
derivative would need attention to be differentiated twice, which the fast kernels of
`scaled_dot_product_attention` refuse.

Unlike the paper's code, the moving average of the diagonal is corrected for its start from zero as Adam's is: a
run of a few hundred steps looks at the curvature a few dozen times, and an average over a hundred looks would not get
off the ground.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

INTERVAL = 10  # steps from one look at the curvature to the next
AHEAD = 1e-3  # how far along u; float32 gradients differ enough there, and weights of .1 hardly bend
_EPSILON = 1e-12


class Sophia(torch.optim.Optimizer):
    """θ ← θ − rate × clip(m / max(γ h, ε), 1), after a decoupled weight decay.

    m: moving average of the gradients, h: of what `observe` is given. Call `observe` before `step` whenever
    `wants_curvature`. The defaults are the paper's.
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        rate: float,
        betas: tuple[float, float] = (0.96, 0.99),
        gamma: float = 0.01,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": rate, "betas": betas, "gamma": gamma, "weight_decay": weight_decay, "steps": 0, "looks": 0}
        super().__init__(weights, defaults)

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        taken: int = self.param_groups[0]["steps"]
        return taken

    @property
    def wants_curvature(self) -> bool:
        """Whether the next step should look at the curvature: the first one, and each `INTERVAL`-th after it."""
        return self.steps % INTERVAL == 0

    @torch.no_grad()
    def observe(self, diagonal: Sequence[Tensor]) -> None:
        """Take an estimate of the Hessian's diagonal into the average, a tensor for each weight, in their order."""
        found = iter(diagonal)
        for group in self.param_groups:
            group["looks"] += 1
            for weight in group["params"]:
                self._averages(weight)["curvature"].lerp_(next(found), 1 - group["betas"][1])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Apply the gradients. A weight without one stays, as with every optimiser of torch."""
        if closure is not None:
            raise ValueError("Sophia takes the gradients that the weights hold: call it without a closure")
        for group in self.param_groups:
            group["steps"] += 1
            beta, beta_curvature = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self._averages(weight)
                state["momentum"].lerp_(weight.grad, 1 - beta)
                momentum = state["momentum"] / (1 - beta ** group["steps"])
                curvature = state["curvature"] / max(1 - beta_curvature ** group["looks"], _EPSILON)
                newton = momentum / torch.clamp(group["gamma"] * curvature, min=_EPSILON)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(newton.clamp_(-1.0, 1.0), alpha=-group["lr"])

    def _averages(self, weight: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[weight]
        if not state:
            state["momentum"], state["curvature"] = torch.zeros_like(weight), torch.zeros_like(weight)
        return state


@torch.no_grad()
def hessian_diagonal(
    slope: Callable[[], Sequence[Tensor]], weights: Sequence[Tensor], draw: torch.Generator, ahead: float = AHEAD
) -> list[Tensor]:
    """One draw of Hutchinson's estimate of the Hessian's diagonal, a tensor a weight; unbiased up to `ahead`².

    slope: gradients by the weights where these stand, the same function at each call (no dropout). The weights are
    moved, and put back to the last bit. draw: a generator on the CPU: all devices and ranks draw the same signs.
    """
    before = [weight.detach().clone() for weight in weights]
    sign = [_signs(weight, draw) for weight in weights]
    try:
        there = _slope_at(slope, weights, before, sign, ahead)
        back = _slope_at(slope, weights, before, sign, -ahead)
    finally:
        for weight, at in zip(weights, before, strict=True):
            weight.copy_(at)
    return [u * (a - b) / (2 * ahead) for u, a, b in zip(sign, there, back, strict=True)]


def _slope_at(
    slope: Callable[[], Sequence[Tensor]],
    weights: Sequence[Tensor],
    before: Sequence[Tensor],
    sign: Sequence[Tensor],
    ahead: float,
) -> Sequence[Tensor]:
    for weight, at, u in zip(weights, before, sign, strict=True):
        weight.copy_(at + ahead * u)
    with torch.enable_grad():
        return slope()


def _signs(weight: Tensor, draw: torch.Generator) -> Tensor:
    """−1 or 1 each (Rademacher), which has the least variance of all (Hutchinson, 1990)."""
    bits = torch.randint(0, 2, weight.shape, generator=draw)
    return (2 * bits - 1).to(weight)
