"""A trained model that teaches another one, lesson by lesson: nothing of it is left in the finished student.

Three things are taught, none of which asks that teacher and student are equally wide:

- logits: who wins a contest, and who comes how near. The divergence of the student's softmax over the lesson's
  candidates from the teacher's, of whole scores and of stored vectors alike (Hinton et al., arXiv:1503.02531; of what
  ranks, Tang & Wang, arXiv:1809.07428). Candidates are sampled as those of the log's own loss.
- states: who is like whom. The cosines between the users' states, request by request (Park et al., arXiv:1904.05068).
- layers: the same of an earlier layer and the teacher's that stands as deep (hints: Romero et al., FitNets,
  arXiv:1412.6550; by likeness: Tung & Mori, arXiv:1907.09682).
"""

from __future__ import annotations

from dataclasses import dataclass

from foundation.config import ModelConfig
from foundation.errors import ModelError
from foundation.model import FoundationModel


@dataclass(frozen=True)
class Teaching:
    """teacher: frozen, and in eval mode. logits, states, layers: share of each in the student's loss; 0: not taught."""

    teacher: FoundationModel
    logits: float = 1.0
    states: float = 1.0
    layers: float = 1.0

    def __post_init__(self) -> None:
        self.teacher.requires_grad_(False).eval()

    def depth(self, depth: int, layers: int) -> int:
        """The teacher's layer that stands as deep as one of so many of the student; both counted from 1."""
        return max(round(depth * self.teacher.config.layers / layers), 1)


def check_teaching(teaching: Teaching, student: ModelConfig) -> None:
    """Raises ModelError where the two do not see the same candidates in the same events."""
    teacher = teaching.teacher.config
    for name, theirs, ours in (
        ("facets", teacher.facets, student.facets),
        ("items", teacher.item.codes, student.item.codes),
        ("repeat_path", teacher.repeat_path, student.repeat_path),
        ("groups", teacher.groups, student.groups),
        ("attributes", teacher.attributes, student.attributes),
    ):
        if theirs != ours:
            raise ModelError(f"teacher and student differ in `{name}`: they must read the same events and candidates")
    if teaching.layers and student.layers > 1 and teacher.layers == 1:
        raise ModelError("a teacher of one layer has no earlier one to teach: leave out layers, or take a deeper one")


def teaches_layers(teaching: Teaching | None, student: ModelConfig) -> bool:
    """Whether the student's earlier layers are taught."""
    return teaching is not None and bool(teaching.layers) and student.layers > 1
