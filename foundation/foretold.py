"""How much each loss of a lesson will weigh, told before any of it is computed.

Losses add up as sum ÷ weight over all that a step learns. Where a step is learned piece after piece, each piece's
gradient needs the weight of the whole before its own backward pass: what is divided by another number afterwards would
have to be kept apart for every loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foundation.errors import ModelError
from foundation.lesson import Lesson, Objectives
from foundation.model import FoundationModel
from foundation.objectives.contests import wanted
from foundation.objectives.distillation import compared
from foundation.objectives.gaps import gaps
from foundation.objectives.targets import Targets
from foundation.teaching import Teaching, teaches_layers


def loss_weights(
    model: FoundationModel, lesson: Lesson, objectives: Objectives, teaching: Teaching | None = None
) -> dict[str, Tensor]:
    """`Loss.weight` of everything that `losses` makes of the lesson, by name: float scalars.

    Raises ModelError for target-aware scores: which of their targets count is drawn while they are made.
    """
    if model.target_attention is not None:
        raise ModelError("the weight of target-aware scores can't be foretold: leave out `candidates.layers`")
    found = _of_items(model, lesson, objectives)
    for horizon, target in enumerate(lesson.targets):
        suffix = "" if horizon == 0 else f"_{horizon + 1}"
        for column, (name, _) in enumerate(model.config.targets):
            found[f"{name}{suffix}"] = _known(target, target.facet_EF[:, column])
        for name in model.config.category_targets:
            found[f"category.{name}{suffix}"] = _of_category(model, name, target)
    if model.gap_head is not None:
        found["gap"] = gaps(lesson.batch, lesson.requests)[1].float().sum()
    facets, first = [name for name, _ in model.config.targets], lesson.targets[0]
    for name in model.config.intents:
        if name in facets:
            found[f"intent.{name}"] = _known(first, first.facet_EF[:, facets.index(name)])
        else:
            found[f"intent.{name}"] = _of_category(model, name, first)
    return found if teaching is None else found | _of_teaching(model, lesson, objectives, teaching)


def _of_items(model: FoundationModel, lesson: Lesson, objectives: Objectives) -> dict[str, Tensor]:
    """Of all contests between items, and of what is compared with them."""
    first, *later = (wanted(target).weight_E.sum() for target in lesson.targets)
    found: dict[str, Tensor] = {"next": first} if objectives.next else {}
    if objectives.embedding:
        found |= dict.fromkeys(("embedding", *(f"embedding_{width}" for width in model.config.bands)), first)
    if objectives.future:
        window = wanted(lesson.future).weight_E.sum()
        found |= dict.fromkeys(("future", *(f"future_{width}" for width in model.config.bands)), window)
    if model.interests is not None:
        found["interests"] = first
    found |= {f"next_{ahead}": weight for ahead, weight in enumerate(later, start=2)}
    for depth in range(1, model.config.layers):
        if objectives.layerwise:
            found[f"layer_{depth}"] = first
        if objectives.distill:
            found[f"distill_{depth}"] = first.new_tensor(float(len(lesson.requests.user_R)))
    return found | ({"codes": first} if objectives.codes else {})


def _of_teaching(
    model: FoundationModel, lesson: Lesson, objectives: Objectives, teaching: Teaching
) -> dict[str, Tensor]:
    requests = len(lesson.requests)
    divergence, pairs = (model.empty_D.new_tensor(float(one)) for one in (requests, len(compared(requests)) ** 2))
    found = {"taught": divergence} if teaching.logits and objectives.next else {}
    found |= {"taught_embedding": divergence} if teaching.logits else {}
    found |= {"taught_states": pairs} if teaching.states else {}
    if teaches_layers(teaching, model.config):
        found |= {f"taught_layer_{depth}": pairs for depth in range(1, model.config.layers)}
    return found


def _of_category(model: FoundationModel, name: str, target: Targets) -> Tensor:
    level, liked = [category for category, _ in model.config.item.categories].index(name), wanted(target)
    return _known(liked, model.tower.category_VC[liked.item_E, level])


def _known(target: Targets, code_E: Tensor) -> Tensor:
    return torch.where(code_E > 0, target.weight_E, 0.0).sum()
