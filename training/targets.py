"""What a lesson asks for: the groups that began after each request, one horizon after another or all in a window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foundation.config import ModelConfig
from foundation.jagged import EventBatch, ranges, ranges_owner
from foundation.lesson import Objectives
from foundation.objectives.targets import Targets
from training.feedback import Feedback


@dataclass(frozen=True)
class Begun:
    """The groups of a batch in the order in which they begin, as requests for them are made.

    border_G1: as of `group_offsets`. owner_G: int64 row of the group's user. order_G: int64 groups by user, then in the
    order in which they begin; of those that begin together the first to be complete comes first. place_G: where each
    group stands in it. begin_G: float64 seconds, on the clock of `EventBatch.begin_T`.
    """

    border_G1: Tensor
    owner_G: Tensor
    order_G: Tensor
    place_G: Tensor
    begin_G: Tensor


def begun(batch: EventBatch, border_G1: Tensor) -> Begun:
    """Put the groups of a batch into the order in which they begin."""
    first_G = border_G1[:-1]
    owner_G, begin_G = batch.user_T[first_G], batch.begin_T[first_G]
    order_G = torch.from_numpy(np.lexsort((begin_G.numpy(), owner_G.numpy())))
    place_G = torch.empty_like(order_G)
    place_G[order_G] = torch.arange(len(order_G))
    return Begun(border_G1, owner_G, order_G, place_G, begin_G)


def targets_ahead(
    batch: EventBatch, groups: Begun, asked_R: Tensor, ahead: int, config: ModelConfig, feedback: Feedback
) -> Targets:
    """Events of the group that begins `ahead` groups after the asked one, where the user has it.

    A group that is open when the request is made is not ahead of it.
    """
    group_R, there_R = _group_ahead(groups, asked_R, ahead)
    request_E, token_E, weight_E = _events_of(groups, group_R[there_R], there_R.nonzero().squeeze(1))
    names = [facet.name for facet in config.facets]
    facets = [names.index(name) for name, _ in config.targets]
    facet_EF = batch.facet_TF[token_E]
    item_E, reward_E = facet_EF[:, config.item_column], feedback.rewards(facet_EF)
    return Targets(request_E, item_E, facet_EF[:, facets], weight_E, reward_E)


def targets_in_window(
    batch: EventBatch,
    groups: Begun,
    asked_R: Tensor,
    config: ModelConfig,
    objectives: Objectives,
    feedback: Feedback,
) -> Targets:
    """Events of all groups that begin within `future_seconds` of each request, at most `future_groups` of them.

    The asked group is the first of them; groups that are open when the request is made are not ahead of it. Nothing
    lies beyond what the run may learn from, nor, of a long history, beyond the row that the request stands in. Each
    counts exp(−β Δt), Δt the float64 seconds from the request to its beginning and β = ln 2 / `stale_seconds`, as in
    `Objectives`. Nothing is asked here of other facets: `facet_EF` has no column.
    """
    group_RK, there_RK = _group_ahead(groups, asked_R[:, None], torch.arange(objectives.future_groups))
    wait_RK = groups.begin_G[group_RK] - groups.begin_G[asked_R][:, None]
    within_RK = there_RK & (wait_RK <= objectives.future_seconds)
    row_K, wait_K = within_RK.nonzero()[:, 0], wait_RK[within_RK]
    request_E, token_E, weight_E = _events_of(groups, group_RK[within_RK], row_K)
    fresh_K = torch.exp(-math.log(2) / objectives.stale_seconds * wait_K).float()
    length_K = groups.border_G1[1:] - groups.border_G1[:-1]
    weight_E = weight_E * torch.repeat_interleave(fresh_K, length_K[group_RK[within_RK]])
    facet_EF = batch.facet_TF[token_E]
    item_E, reward_E = facet_EF[:, config.item_column], feedback.rewards(facet_EF)
    return Targets(request_E, item_E, facet_EF[:, :0], weight_E, reward_E)


def _group_ahead(groups: Begun, asked_R: Tensor, ahead: int | Tensor) -> tuple[Tensor, Tensor]:
    """int64, bool of the shape that both broadcast to: the group that begins so many after, and if there is one."""
    place_R = groups.place_G[asked_R] + ahead
    group_R = groups.order_G[torch.clamp(place_R, max=len(groups.order_G) - 1)]
    there_R = (place_R < len(groups.order_G)) & (groups.owner_G[group_R] == groups.owner_G[asked_R])
    return group_R, there_R


def _events_of(groups: Begun, group_K: Tensor, request_K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Requests, tokens and weights of all events of K groups.

    A basket counts as the square root of its size: neither lines nor baskets rule alone.
    """
    first_K = groups.border_G1[group_K]
    length_K = groups.border_G1[group_K + 1] - first_K
    owner_E = ranges_owner(length_K)
    return request_K[owner_E], ranges(first_K, length_K), length_K[owner_E].float().rsqrt()
