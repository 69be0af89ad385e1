"""Where a run stands, and what each of its steps tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from training.data import Position
from training.setbacks import Setbacks


@dataclass(frozen=True)
class StepRecord:
    """One step as it is logged.

    seconds: of training so far, resumed runs included. tokens: of all ranks so far. stage: from 0, history: most tokens
    of a row in it (0 in logs that are older than it). data_wait, memory_gib, mfu: of rank 0, as in `meter.Measured`;
    None in older logs, and where they can't be known.
    """

    step: int
    steps: int
    seconds: float
    loss: float
    losses: dict[str, float]
    tokens: int
    tokens_per_second: float
    rate: float
    gradient_norm: float
    stage: int = 0
    history: int = 0
    data_wait: float | None = None
    memory_gib: float | None = None
    mfu: float | None = None

    def to_line(self) -> str:
        """One line of training.jsonl."""
        return json.dumps(asdict(self))

    def scalars(self) -> dict[str, float]:
        """All that is known of the step, by the names that TensorBoard and MLflow show."""
        told = {f"loss/{name}": value for name, value in self.losses.items()} | {"loss/total": self.loss}
        told |= {"tokens_per_second": self.tokens_per_second, "rate": self.rate, "gradient_norm": self.gradient_norm}
        told |= {"tokens": self.tokens, "seconds": self.seconds, "stage": self.stage, "history": self.history}
        measured = {"data_wait": self.data_wait, "memory_gib": self.memory_gib, "mfu": self.mfu}
        return told | {name: value for name, value in measured.items() if value is not None}


@dataclass
class Progress:
    """Where a run stands; saved in its checkpoints.

    batches: that were learned, one a rank and step: what is done of a run, whatever number of ranks went on with it.
    stopped: it was asked to stop before its end.
    """

    step: int = 0
    batches: int = 0
    position: Position = field(default_factory=Position)
    seconds: float = 0.0
    tokens: int = 0
    setbacks: Setbacks = field(default_factory=Setbacks)
    stopped: bool = False

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {name: value for name, value in asdict(self).items() if name != "stopped"}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Continue from `state()`, of this version or of one before batches and setbacks were counted."""
        position, setbacks = Position(**state["position"]), Setbacks(**state.get("setbacks", {}))
        batches = state.get("batches", state["step"])
        return cls(state["step"], batches, position, state["seconds"], state["tokens"], setbacks)
