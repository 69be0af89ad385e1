"""How a run is spread over ranks and memory: settings, and which of them go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from foundation.config import ItemGate, ModelConfig, Switch
from foundation.lesson import Objectives
from training.dropout import IdDropout
from training.errors import TrainingError
from training.optimisers import Method


class Weights(StrEnum):
    """Where dense weights are."""

    REPLICATED = "replicated"  # all on every rank; gradients are added up after the backward pass: plain
    DDP = "ddp"  # the same, added up while the backward pass goes on: Li et al., arXiv:2006.15704
    SHARDED = "sharded"  # a part of each on every rank (FSDP2): Zhao et al., arXiv:2304.11277


class Tables(StrEnum):
    """Where the rows of the item tables are."""

    REPLICATED = "replicated"  # all on every rank; gradients of the rows in use are gathered by all
    ROWS = "rows"  # a part of the rows on every rank; ranks exchange those in use


class Scoring(StrEnum):
    """Who scores the negatives that all ranks share."""

    LOCAL = "local"  # every rank, for its own requests
    OWNERS = "owners"  # the rank that has their rows, for the requests of all (training/parallel/softmax.py)


class Precision(StrEnum):
    """In what the trunk's layers compute; weights, states between layers and losses are float32 anyway."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Compiler(StrEnum):
    """What compiles the dense parts of the trunk's layers."""

    OFF = "off"
    INDUCTOR = "inductor"  # into kernels; needs a C++ compiler (CPU) or Triton (GPU)
    AOT_EAGER = "aot_eager"  # traced, and run as it was: to find out what can't be compiled


@dataclass(frozen=True)
class Parallelism:
    """How a run is spread over ranks and memory. It decides how a step is computed, and not what it learns; only
    `accumulate` does, as more ranks do.

    accumulate: lessons of each rank that are learned one after another before the weights move: n of them are what
    n times as many ranks learn in a step. recompute: what a layer computed is made again in the backward pass instead
    of being held (Chen et al., arXiv:1604.06174).
    """

    weights: Weights = Weights.REPLICATED
    tables: Tables = Tables.REPLICATED
    scoring: Scoring = Scoring.LOCAL
    accumulate: int = 1
    recompute: Switch = Switch.OFF
    compile: Compiler = Compiler.OFF
    precision: Precision = Precision.FLOAT32

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise TrainingError(f"parallelism: 'accumulate' must be at least 1 lesson, got {self.accumulate}")

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Of a recipe's JSON; what is not told is plain."""
        kinds: dict[str, Callable[[Any], Any]] = {
            "weights": Weights,
            "tables": Tables,
            "scoring": Scoring,
            "recompute": Switch,
            "compile": Compiler,
            "precision": Precision,
        }
        values: dict[str, Any] = {name: kinds.get(name, int)(value) for name, value in told.items()}
        return cls(**values)

    @property
    def whole(self) -> bool:
        """Whether every rank holds everything."""
        return self.weights is not Weights.SHARDED and self.tables is Tables.REPLICATED

    def alone(self) -> Self:
        """The same for one process, which has nobody to share with."""
        return replace(self, weights=Weights.REPLICATED, tables=Tables.REPLICATED, scoring=Scoring.LOCAL)


def check_parallelism(
    plan: Parallelism, model: ModelConfig, objectives: Objectives, method: Method, id_dropout: IdDropout
) -> None:
    """Raises TrainingError where something else of a recipe can't be spread as the plan says."""
    if method is Method.MUON and plan.weights is Weights.SHARDED:
        raise TrainingError(
            "Muon turns whole matrices, and `weights=sharded` leaves none whole: give `method=adamw`, or another "
            "`weights`"
        )
    if method is Method.SOPHIA and not (plan.whole and plan.accumulate == 1):
        raise TrainingError(
            "Sophia looks at the curvature of a whole step by whole weights: give `method=adamw`, or leave out "
            "`weights=sharded`, `tables=rows` and `accumulate`"
        )
    if plan.accumulate > 1 and model.candidates.layers:
        raise TrainingError(
            "how many targets target-aware scores have is not known before they are made: leave out `accumulate` or "
            "`candidates.layers`"
        )
    if plan.tables is Tables.ROWS and model.item_gate is ItemGate.AGE:
        raise TrainingError("rows that count by age stay whole: leave out `tables=rows` or `item_gate=age`")
    if plan.scoring is Scoring.OWNERS:
        if plan.tables is not Tables.ROWS:
            raise TrainingError("`scoring=owners` is for tables whose rows have owners: give `tables=rows` too")
        _check_owners(model, objectives, id_dropout)


def _check_owners(model: ModelConfig, objectives: Objectives, id_dropout: IdDropout) -> None:
    """Owners score negatives that all ranks share, as everybody sees them, and tell nothing but sums."""
    unfit = {
        "in_batch=on": objectives.in_batch is Switch.ON,
        "distill": objectives.distill > 0,
        "candidates.layers": model.candidates.layers > 0,
        "id_dropout": id_dropout != IdDropout(),
    }
    for setting, there in unfit.items():
        if there:
            raise TrainingError(
                f"`{setting}` asks for more of the negatives than the sums that their owners tell: leave it out, or "
                "give `scoring=local`"
            )
