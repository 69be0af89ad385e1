"""What a training step is asked: the objectives of a run, a lesson, and the losses that come of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from torch import Tensor

from foundation.config import ModelConfig, Switch
from foundation.errors import ModelError
from foundation.item_age import NOTHING_HIDDEN, Hidden
from foundation.jagged import EventBatch, Requests
from foundation.objectives.targets import Negatives, Targets

DAY = 86_400.0


@dataclass(frozen=True)
class Objectives:
    """What is learned besides the next items: the share of each loss, and its settings. A share of 0 leaves it out.

    next: of the next items by the whole model, told the request's context. Where a log has no context, nothing repeats
    and no category counts, `embedding` alone learns the same. later: of each horizon ≥ 2. embedding: of the dot product
    of stored vectors, whose metric is that of the store.

    future: of everything that the user meets in a window after the request, by the stored vector: the dense all-action
    loss of Pancha et al., PinnerFormer, arXiv:2205.04507, from many requests of each user. Groups that begin within
    `future_seconds` of the request count, at most `future_groups` of them, each by its reward × exp(−β Δt), Δt the
    seconds until it begins. β = ln 2 / `stale_seconds`, where `stale_seconds` is how old a vector may be when it is
    served: what a vector that old would be asked for counts half of what a fresh one is. (Where a log has positions
    instead of times, seconds are positions.)

    feedback: off lets every event count alike in the losses, whatever its action says of interest, to compare with.
    own: off lets a user's earlier items compete like all others, by being drawn, and not as pairs that are always
    shown: where nothing returns, and lists leave out what was met. Needs a model without the repeat path.
    impressions: the weight with which items of the asked group that met no interest (an action of `feedback` 0) compete
    with what did, in the losses of the next items and of the embedding; 1 as much as anything else that is shown.

    in_batch: on lets the targets of a batch be negatives of its other requests, beside those that are drawn.
    full_below: where the log has no more items than this, all of them are negatives, and nothing is sampled. logq: off
    leaves out the correction of negatives by how likely they were, to compare with. Proposals and papers:
    training/negatives.py.

    facets: factor of the weights of target facets; 0 leaves them out. category, gap, intent: of each of the categories,
    of the time until the next group and of each intent, where the model has such heads (`category_targets`, `gap_bins`
    and `intents` of ModelConfig).

    layerwise: of the next items from the bare states after the trunk's earlier layers, divided among them: deep
    supervision, Lee et al., Deeply-Supervised Nets, arXiv:1409.5185. distill: of these states' scores drawn towards
    those of the last layer (`objectives.distillation`), divided likewise. Both pass through the last layer's own norm
    and projection, so they have no weights.

    target_aware: of the target-aware scores, where the model has them (`candidates.layers`), learned from the share
    `slates` of a step's requests, each beside `competitors` items that it draws.

    interest: of the next items by whichever interest says them, where the model has several vectors a user.

    codes: of the semantic IDs of the next items, decoded from the bare state, where the model has a decoder
    (`decoder.layers`). What is copied of the user's own items is not learned by it, only how often.
    """

    next: float = 1.0
    later: float = 0.3
    embedding: float = 0.3
    future: float = 0.0
    future_seconds: float = 28 * DAY
    future_groups: int = 16
    stale_seconds: float = 7 * DAY
    feedback: Switch = Switch.ON
    own: Switch = Switch.ON
    impressions: float = 0.0
    in_batch: Switch = Switch.OFF
    full_below: int = 0
    logq: Switch = Switch.ON
    facets: float = 1.0
    category: float = 0.1
    gap: float = 0.1
    intent: float = 0.1
    layerwise: float = 0.0
    distill: float = 0.0
    target_aware: float = 1.0
    slates: float = 0.25
    competitors: int = 64
    interest: float = 0.3
    codes: float = 0.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, Switch) and not value >= 0:
                raise ModelError(f"objective {one.name!r} must be at least 0, got {value}")
        for name in ("future_seconds", "future_groups", "stale_seconds"):
            if not getattr(self, name) > 0:
                raise ModelError(f"objective {name!r} must be above 0, got {getattr(self, name)}")
        if not self.slates <= 1 or self.competitors < 1:
            raise ModelError(
                f"objective 'slates' must be at most 1 and 'competitors' at least 1, got {self.slates} and "
                f"{self.competitors}"
            )


@dataclass(frozen=True)
class Lesson:
    """A batch with its requests, the targets of each horizon and the negatives that all requests share.

    future: the events in a window after each request, without their facets; none where that is not learned. hidden:
    items whose own rows are not shown.
    """

    batch: EventBatch
    requests: Requests
    targets: tuple[Targets, ...]
    negatives: Negatives
    future: Targets = field(default_factory=Targets.none)
    hidden: Hidden = NOTHING_HIDDEN


@dataclass(frozen=True)
class Loss:
    """A named part of the loss: `total` summed over `weight` targets, entering with factor `share`."""

    name: str
    total: Tensor
    weight: Tensor
    share: float


def check_objectives(config: ModelConfig, objectives: Objectives) -> None:
    """Raises ModelError where something is to be learned that the model has not, or the other way round."""
    if config.repeat_path is Switch.ON and objectives.own is Switch.OFF:
        raise ModelError(
            "the repeat path learns of own items that compete: give `repeat_path=off` too, or leave out `own=off`"
        )
    check_decoder(config, objectives)
    check_layers(config, objectives)


def check_decoder(config: ModelConfig, objectives: Objectives) -> None:
    """Raises ModelError where codes are to be learned and there is nothing to decode them, or the other way round."""
    if bool(config.decoder.layers) != bool(objectives.codes):
        raise ModelError(
            f"a decoder of {config.decoder.layers} layers learns from `codes` {objectives.codes:g}: give both "
            "`decoder.layers` and `codes`, or neither"
        )


def check_layers(config: ModelConfig, objectives: Objectives) -> None:
    """Raises ModelError where something is to be learned of earlier layers, and there is none."""
    if config.layers == 1 and (objectives.layerwise or objectives.distill):
        raise ModelError(
            "a trunk of one layer has no earlier one to learn: give `layers` 2, or leave out `layerwise` and `distill`"
        )
