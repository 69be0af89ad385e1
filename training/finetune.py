"""A run that goes on from a trained model to serve one surface, or one company of those that share a log, better.

What is read stays everything that users did; what is asked for is what they did there. How much of the model learns is
a choice between what is kept and what is gained:

- answers: only what answers a request. The vectors of users and items stay what they were, bit for bit, and the new
  space says so: it is aligned to the old one by a map that changes nothing.
- low-rank: besides, each matrix of the trunk by a product of two thin ones (foundation/low_rank.py).
- full: every weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import torch

from foundation import pretrained
from foundation.alignment import UNALIGNED, Alignment
from foundation.low_rank import check_rank, loosen
from foundation.model import FoundationModel
from training.errors import TrainingError
from training.optimisers import Method
from training.parallel import Weights
from training.recipes import Recipe
from training.surface import Surface

# What answers requests, and is read for no vector that is stored.
ANSWERS = (
    *("conditioning", "told_repeat", "affinity", "horizons", "target_attention"),
    *("facet_heads", "category_heads", "gap_head"),
)


class Learns(StrEnum):
    """What of a model learns."""

    ANSWERS = "answers"  # what answers a request: vectors stay as they are
    LOW_RANK = "low-rank"  # and little of each matrix of the trunk
    FULL = "full"  # everything


@dataclass(frozen=True)
class FineTuning:
    """What a run goes on from, and what of it learns what.

    base: model directory, fingerprint: of the model in it. surface: what is asked for; None: everything. rate: share of
    the recipe's rates. rank: of what is added to the trunk's matrices, where that is of low rank; else 0.
    """

    base: str
    fingerprint: str
    learns: Learns = Learns.FULL
    surface: Surface | None = None
    rate: float = 0.3
    rank: int = 0

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise TrainingError(f"fine-tuning: 'rate' must be above 0, got {self.rate}")

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Of plain numbers and words, as `asdict` and JSON leave it."""
        surface = None if told["surface"] is None else Surface.read(told["surface"])
        return cls(**{**told, "learns": Learns(told["learns"]), "surface": surface})


def tuning_of(
    base: Path, learns: Learns, surface: Surface | None = None, rate: float = 0.3, rank: int = 8
) -> FineTuning:
    """A fine-tuning of a model directory. Raises ModelError where it is none."""
    return FineTuning(
        base=str(base.resolve()),
        fingerprint=pretrained.load(base).space.fingerprint,
        learns=learns,
        surface=surface,
        rate=rate,
        rank=rank if learns is Learns.LOW_RANK else 0,
    )


def check_fine_tuning(tuning: FineTuning, recipe: Recipe) -> None:
    """Raises TrainingError or ModelError where the recipe can't be followed by what is to learn."""
    if tuning.surface is not None and recipe.sampling.shards > 1:
        raise TrainingError("a surface is looked for in the whole log: set `shards=1`")
    if tuning.learns is Learns.ANSWERS and not recipe.objectives.next:
        raise TrainingError("this model answers by its stored vectors alone, so no answer can be tuned: take full")
    if tuning.learns is Learns.LOW_RANK:
        check_rank(tuning.rank, recipe.model.width, recipe.model.width)
        if recipe.parallelism.weights is Weights.SHARDED:
            raise TrainingError("changes of low rank are too small to be cut: set `parallelism.weights=ddp`")
        if recipe.optimisation.method is Method.MUON:
            raise TrainingError("Muon moves whole matrices, not changes of low rank: set `optimisation.method=adamw`")


def let_learn(model: FoundationModel, tuning: FineTuning) -> None:
    """Leave gradients to those weights alone that are to learn."""
    if tuning.learns is Learns.FULL:
        return
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(ANSWERS))
    if tuning.learns is Learns.LOW_RANK:
        loosen(model.trunk, tuning.rank)


def directions_of(tuning: FineTuning) -> Alignment:
    """How the tuned vectors leave: where answers alone learned they are those of the base, and so aligned to it, by a
    map that changes nothing, or the one that the base had; else they are aligned to nothing yet."""
    if tuning.learns is not Learns.ANSWERS:
        return UNALIGNED
    base = pretrained.load(Path(tuning.base))
    known = base.alignment.space(base.space)
    blocks = base.alignment.blocks or (torch.eye(base.model.config.width),)
    return Alignment(blocks, known.origin, (*known.frames, known.fingerprint))


def name_of(tuning: FineTuning) -> str:
    """What was done, for the model card."""
    where = "everything" if tuning.surface is None else str(tuning.surface)
    rank = f" {tuning.rank}" if tuning.rank else ""
    return f"fine-tuned ({tuning.learns}{rank}) for {where}"
