"""A run that goes on from a trained model to serve one surface, or one company of those that share a log, better.

What is read stays everything that users did; what is asked for is what they did there. How much of the model learns is
a choice between what is kept and what is gained:

- head: only what answers a request. The vectors of users and items stay, so those in a store stay valid.
- low-rank: besides, each matrix of the trunk by a product of two thin ones (foundation/low_rank.py).
- full: every weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from foundation.low_rank import loosened
from foundation.model import FoundationModel
from training.errors import TrainingError
from training.optimisers import Method
from training.parallel import Weights
from training.recipes import Recipe
from training.surface import Surface

# What answers requests, and is read for no vector that is stored.
ANSWERS = ("conditioning", "told_repeat", "affinity", "horizons", "facet_heads", "category_heads", "gap_head")


class Parts(StrEnum):
    """What of a model learns."""

    HEAD = "head"  # what answers a request: vectors stay as they are
    LOW_RANK = "low-rank"  # and little of each matrix of the trunk
    FULL = "full"  # everything


@dataclass(frozen=True)
class FineTuning:
    """What a run goes on from, and what of it learns what.

    base: model directory. surface: what is asked for; None: everything. rate: share of the recipe's rates. rank: of
    what is added to the trunk's matrices, where parts are of low rank.
    """

    base: str
    parts: Parts = Parts.FULL
    surface: Surface | None = None
    rate: float = 0.3
    rank: int = 8

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise TrainingError(f"fine-tuning: 'rate' must be above 0, got {self.rate}")

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Of plain numbers and words, as `asdict` and JSON leave it."""
        surface = None if told["surface"] is None else Surface.read(told["surface"])
        return cls(**{**told, "parts": Parts(told["parts"]), "surface": surface})


def check_fine_tuning(tuning: FineTuning, recipe: Recipe) -> None:
    """Raises TrainingError where the recipe can't be followed by what is to learn."""
    if tuning.parts is Parts.HEAD and not recipe.objectives.next:
        raise TrainingError("this model answers by its stored vectors alone, so there is no head to tune: take full")
    if tuning.parts is Parts.LOW_RANK:
        if recipe.parallelism.weights is Weights.SHARDED:
            raise TrainingError("changes of low rank are too small to be cut: set `parallelism.weights=ddp`")
        if recipe.optimisation.method is Method.MUON:
            raise TrainingError("Muon moves whole matrices, not changes of low rank: set `optimisation.method=adamw`")


def let_learn(model: FoundationModel, tuning: FineTuning) -> None:
    """Leave gradients to those weights alone that are to learn."""
    if tuning.parts is Parts.FULL:
        return
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(ANSWERS))
    if tuning.parts is Parts.LOW_RANK:
        loosened(model.trunk, tuning.rank)


def name_of(tuning: FineTuning) -> str:
    """What was done, for the model card."""
    where = "everything" if tuning.surface is None else str(tuning.surface)
    rank = f" {tuning.rank}" if tuning.parts is Parts.LOW_RANK else ""
    return f"fine-tuned ({tuning.parts}{rank}) for {where}"
