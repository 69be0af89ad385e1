"""A run whose model learns from the log and from a larger model, so that a small one serves nearly as well.

Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531; what is taught: foundation/teaching.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from foundation import pretrained
from foundation.model import FoundationModel
from foundation.space import Space
from foundation.teaching import Teaching, check_teaching
from training.errors import TrainingError
from training.parallel import Scoring
from training.recipes import Recipe


@dataclass(frozen=True)
class Distillation:
    """Whom a run learns from, beside the log.

    teacher: model directory, fingerprint: of the model in it. logits, states, layers: shares in the loss of what
    `Teaching` calls so.
    """

    teacher: str
    fingerprint: str
    logits: float = 1.0
    states: float = 1.0
    layers: float = 1.0

    def __post_init__(self) -> None:
        shares = (self.logits, self.states, self.layers)
        if not (min(shares) >= 0 and max(shares) > 0):
            raise TrainingError(f"distillation: shares must be at least 0 and one of them above, got {shares}")

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Of plain numbers and words, as `asdict` and JSON leave it."""
        return cls(**told)


def distillation_of(teacher: Path, logits: float = 1.0, states: float = 1.0, layers: float = 1.0) -> Distillation:
    """A distillation of a model directory. Raises ModelError where it is none."""
    fingerprint = pretrained.load(teacher).space.fingerprint
    return Distillation(str(teacher.resolve()), fingerprint, logits, states, layers)


def teacher_of(distillation: Distillation) -> Space:
    """The teacher's space."""
    return Space.from_json((Path(distillation.teacher) / "space.json").read_text(encoding="utf-8"))


def parameters(model: Path) -> int:
    """Numbers that the model of a model directory has learned."""
    return sum(weight.numel() for weight in pretrained.load(model).model.parameters())


def check_distillation(distillation: Distillation, recipe: Recipe) -> None:
    """Raises TrainingError or ModelError where the recipe has no place for the teacher."""
    if recipe.parallelism.scoring is Scoring.OWNERS:
        raise TrainingError("a teacher scores what each rank scores itself: set `parallelism.scoring=local`")
    check_teaching(teaching_of(distillation, pretrained.load(Path(distillation.teacher)).model), recipe.model)


def teaching_of(distillation: Distillation, teacher: FoundationModel) -> Teaching:
    """What the teacher, which learns no more itself, is to teach."""
    return Teaching(teacher, distillation.logits, distillation.states, distillation.layers)
