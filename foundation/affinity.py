"""Category affinity: a user who often buys yoghurt may want a yoghurt that is new to them.

The share of each category in the user's history, beside its share in everybody's, lifts all items of the category:
what a new item has instead of a past. A log-linear lift with a prior towards everybody's share, as in smoothed
language models (Zhai & Lafferty, TOIS 2004), with a learned weight and prior for each kind of category. Everybody's
shares also count as some events of the user's own, a learned number (their Dirichlet prior): one event says little.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from foundation.config import ItemConfig
from foundation.embedding import ItemContent
from foundation.jagged import EventBatch
from foundation.repeat import FIRST_ITEM, Meetings

STRENGTH = 10.0  # events that everybody's shares are worth at first
NOTHING = -30.0  # log of a strength that weighs nothing beside any event


class CategoryAffinity(nn.Module):
    """How much more of each category a user takes than everybody does; an item gains what its categories do."""

    def __init__(self, config: ItemConfig, content: ItemContent) -> None:
        super().__init__()
        levels = len(config.categories)
        self.weight_C = nn.Parameter(torch.full((levels,), 1.0 / max(levels, 1)))
        self.log_prior_C = nn.Parameter(torch.zeros(levels))
        self.log_strength_C = nn.Parameter(torch.full((levels,), math.log(STRENGTH)))
        self.register_load_state_dict_pre_hook(_without_strength)  # type: ignore[no-untyped-call]
        self.sizes = [size for _, size in config.categories]
        for level, size in enumerate(self.sizes):
            code_V = known_category(content.category_VC[:, level], size)
            count_S = torch.zeros(size).index_add_(0, code_V, content.recent_V) + 1.0
            self.register_buffer(f"share_{level}", count_S / count_S.sum())

    def shares(
        self, batch: EventBatch, requests: int, meetings: Meetings, item_column: int, category_VC: Tensor, slow: int
    ) -> tuple[Tensor, ...]:
        """Share of each category in each request's history and everybody's events beside it, one float [R, S] for each
        kind of category; what a row lacks to 1 is everybody's."""
        item_E = batch.facet_TF[meetings.token_E, item_column]
        weight_E = meetings.weight_EX[:, slow] * (item_E >= FIRST_ITEM)
        found = []
        for level, size in enumerate(self.sizes):
            place_E = meetings.request_E * size + known_category(category_VC[item_E, level], size)
            count_RS = weight_E.new_zeros(requests * size).index_add_(0, place_E, weight_E).view(requests, size)
            found.append(count_RS / (count_RS.sum(1, keepdim=True) + self.log_strength_C[level].exp()))
        return tuple(found)

    def forward(self, share_RS: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Logit bonus of each category to each user, float [R, S] for each kind of category."""
        lifts = []
        for level, own_RS in enumerate(share_RS):
            everybody_S: Tensor = getattr(self, f"share_{level}")
            prior = self.log_prior_C[level].exp()
            rest_R1 = torch.clamp(1 - own_RS.sum(1, keepdim=True), min=0)  # sums of shares round
            lifts.append(self.weight_C[level] * torch.log((own_RS / everybody_S + rest_R1 + prior) / (1 + prior)))
        return tuple(lifts)


def candidate_lifts(lift_RS: tuple[Tensor, ...], category_NC: Tensor) -> Tensor | float:
    """float [R, N] for candidates with the given category codes; 0 where items have no categories."""
    return sum(
        (
            one_RS.index_select(1, known_category(category_NC[:, level], one_RS.shape[1]))
            for level, one_RS in enumerate(lift_RS)
        ),
        start=0.0,
    )


def pair_lifts(lift_RS: tuple[Tensor, ...], row_P: Tensor, category_PC: Tensor) -> Tensor | float:
    """float [P], or of any other shape that row_P has: pairs of a request and an item with these category codes."""
    return sum(
        (
            one_RS[row_P, known_category(category_PC[..., level], one_RS.shape[1])]
            for level, one_RS in enumerate(lift_RS)
        ),
        start=0.0,
    )


def known_category(code_N: Tensor, size: int) -> Tensor:
    """Categories that came after training read as unknown, 1."""
    return torch.where(code_N < size, code_N, 1)


def _without_strength(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Models that were saved while every history counted as if it were long."""
    if (name := f"{prefix}log_strength_C") not in state and (prior := f"{prefix}log_prior_C") in state:
        state[name] = torch.full_like(state[prior], NOTHING)
