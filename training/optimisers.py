"""How the weights move: one optimiser for dense weights, SparseAdam for the rows of the item tables, one schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from foundation.model import FoundationModel
from training.checkpoint import Kept, as_it_is
from training.errors import TrainingError
from training.sophia import Sophia, hessian_diagonal


class Method(StrEnum):
    """What moves the dense weights."""

    ADAMW = "adamw"  # all of them: Loshchilov & Hutter, arXiv:1711.05101
    MUON = "muon"  # the trunk's matrices by an orthogonalised momentum, the others by AdamW: arXiv:2502.16982
    SOPHIA = "sophia"  # all of them, by an estimate of the Hessian's diagonal: Liu et al., arXiv:2305.14342


@dataclass(frozen=True)
class Optimisation:
    """How the weights move.

    rate: of `method` on dense weights, table_rate: of SparseAdam on the rows of the item tables. Both rise over
    `warmup` steps and fall by a cosine to 2 %. clip: longest norm of the dense gradient. average: how much a step
    leaves of the moving average of the weights, with which the run ends (training/averaging.py); 0: the last weights.
    """

    rate: float = 6e-3
    table_rate: float = 2e-2
    weight_decay: float = 0.01
    warmup: int = 20
    clip: float = 1.0
    method: Method = Method.ADAMW
    average: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rate", "table_rate", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"optimisation: {name!r} must be at least 0, got {getattr(self, name)}")
        if self.warmup < 1:
            raise TrainingError(f"optimisation: 'warmup' must be at least 1 step, got {self.warmup}")
        if not 0 <= self.average < 1:
            raise TrainingError(f"optimisation: 'average' is a share, from 0 to below 1, got {self.average}")
        if not self.clip > 0:
            raise TrainingError(f"optimisation: 'clip' must be above 0, inf for no limit, got {self.clip}")


Slope = Callable[[], list[Tensor]]
"""The gradients of the step's loss by the dense weights, wherever these stand now, summed over the ranks."""


class Optimisers:
    """The optimisers of a model's weights, each weight that learns in exactly one; tables of items have row-sparse
    gradients."""

    def __init__(self, model: FoundationModel, config: Optimisation, seed: int = 0) -> None:
        """seed: of what the method draws (Sophia); equal on all ranks."""
        tables = [one.weight for one in model.modules() if isinstance(one, nn.Embedding) and one.sparse]
        ids = {id(weight) for weight in tables}
        self.config = config
        self.seed = seed
        self.tables = [weight for weight in tables if weight.requires_grad]
        self.dense = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in ids]
        self.parameters = [*self.dense, *self.tables]
        self._of_dense = _dense_optimisers(config, self.dense, hidden_matrices(model))
        self.sparse_adam = torch.optim.SparseAdam(self.tables, lr=config.table_rate) if self.tables else None

    def observe(self, slope: Slope) -> None:
        """Let a method that looks at the curvature do so before its next step, where it wants to.

        slope: must not touch the gradients that the weights hold.
        """
        sophia = self._of_dense.get(Method.SOPHIA)
        if isinstance(sophia, Sophia) and sophia.wants_curvature:
            draw = torch.Generator().manual_seed(self.seed + sophia.steps)
            sophia.observe(hessian_diagonal(slope, self.dense, draw))

    def finite_rows(self) -> bool:
        """Whether the gradients of the tables' rows, those that this rank has, are finite numbers."""
        for table in self.tables:
            if table.grad is not None:
                table.grad = table.grad.coalesce()
                if not bool(torch.isfinite(table.grad.values()).all()):
                    return False
        return True

    def drop(self) -> None:
        """Forget the gradients that the weights hold."""
        for weight in self.parameters:
            weight.grad = None

    def step(self, factor: float) -> float:
        """Apply the gradients that the weights hold at `factor` of the full rates, and drop them; where those of dense
        weights are no finite numbers, only drop them.

        Returns the norm of the dense gradient, not finite where nothing was applied.
        """
        length = nn.utils.clip_grad_norm_(self.dense, self.config.clip)
        norm = float(length.full_tensor() if isinstance(length, DTensor) else length)
        if not math.isfinite(norm):
            self.drop()
            return norm
        rates = dict.fromkeys(self._named, self.config.rate) | {"sparse_adam": self.config.table_rate}
        for name, optimiser in self._named.items():
            for group in optimiser.param_groups:
                group["lr"] = rates[name] * factor
            optimiser.step()
            optimiser.zero_grad()
        return norm

    def state(self, told: Kept = as_it_is) -> dict[str, Any]:
        """For a checkpoint. told: what to write of something that is kept of a weight."""
        return {name: _told(optimiser, told) for name, optimiser in self._named.items()}

    def load(self, state: dict[str, Any], told: Kept = as_it_is) -> None:
        """Continue from `state()`. told: what to keep of something that was written of a weight.

        Raises KeyError, ValueError or RuntimeError for the state of another method or model.
        """
        for name, optimiser in self._named.items():
            weights, written = _weights(optimiser), state[name]
            kept = {
                place: {key: _of(told, weights[place], value) for key, value in one.items()}
                for place, one in written["state"].items()
            }
            optimiser.load_state_dict({**written, "state": kept})

    @property
    def _named(self) -> dict[str, torch.optim.Optimizer]:
        found: dict[str, torch.optim.Optimizer] = {str(method): one for method, one in self._of_dense.items()}
        return found if self.sparse_adam is None else {**found, "sparse_adam": self.sparse_adam}


def _weights(optimiser: torch.optim.Optimizer) -> dict[int, Tensor]:
    """By the numbers that a state gives them."""
    return dict(enumerate(weight for group in optimiser.param_groups for weight in group["params"]))


def _told(optimiser: torch.optim.Optimizer, told: Kept) -> dict[str, Any]:
    state, weights = optimiser.state_dict(), _weights(optimiser)
    kept = {
        place: {key: _of(told, weights[place], value) for key, value in one.items()}
        for place, one in sorted(state["state"].items())
    }
    return {**state, "state": kept}


def _of(told: Kept, weight: Tensor, value: Any) -> Any:
    return told(weight, value) if isinstance(value, Tensor) else value


def hidden_matrices(model: FoundationModel) -> list[Tensor]:
    """The matrices inside the trunk, from hidden states to hidden states: what Muon is for.

    Embeddings, heads and whatever else reads or writes codes would take an orthogonalised step badly: their rows are
    met as often as the codes are, and a step must not be alike for all of them (Jordan et al., Muon, 2024,
    kellerjordan.github.io/posts/muon).
    """
    return [module.weight for module in model.trunk.modules() if isinstance(module, nn.Linear)]


def _dense_optimisers(
    config: Optimisation, dense: list[nn.Parameter], hidden: list[Tensor]
) -> dict[Method, torch.optim.Optimizer]:
    if config.method is Method.SOPHIA:
        return {Method.SOPHIA: Sophia(dense, rate=config.rate, weight_decay=config.weight_decay)}
    if config.method is Method.ADAMW:
        return {Method.ADAMW: _adamw(dense, config)}
    hidden = [weight for weight in hidden if weight.requires_grad]
    ids = {id(weight) for weight in hidden}
    if not hidden:
        return {Method.ADAMW: _adamw(dense, config)}
    # Steps as long as AdamW's, so that one rate and one decay do for both.
    muon = torch.optim.Muon(hidden, lr=config.rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
    return {
        Method.ADAMW: _adamw([weight for weight in dense if id(weight) not in ids], config),
        Method.MUON: muon,
    }


def _adamw(weights: list[nn.Parameter], config: Optimisation) -> torch.optim.AdamW:
    return torch.optim.AdamW(weights, lr=config.rate, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True)
