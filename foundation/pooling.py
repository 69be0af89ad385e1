"""States of tokens → states of groups → the user embedding.

What a user is, is what the newest group's state says, beside means over the last states where `pools` names some:
short ones for what somebody is about now, long ones for what stays. Several interests (`interests`) are several vectors
of one user, of which an item's best counts: Li et al., MIND, arXiv:1904.08030; Cen et al., ComiRec, arXiv:2005.09347.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.jagged import (
    EventBatch,
    Requests,
    group_offsets,
    ranges_owner,
    recent_groups,
    segment_softmax,
    segment_sum,
)
from foundation.repeat import OwnItems

NEVER = -30.0  # a logit that weighs nothing beside any own item


def border_states(state_TD: Tensor, batch: EventBatch, requests: Requests, empty_D: Tensor) -> Tensor:
    """State of the last completed group at each request, float [R, D]; `empty_D` where there is none.

    A group's state is the mean over its tokens, which no order inside the group can change.
    """
    border_G1 = group_offsets(batch)
    size_G = border_G1[1:] - border_G1[:-1]
    group_T = ranges_owner(size_G, batch.tokens)
    state_GD = segment_sum(state_TD, group_T, size_G.shape[0]) / size_G[:, None]
    padded_GD = torch.cat([empty_D[None], state_GD])
    # Who has no history reads the padding in front of all groups.
    has_history_R = requests.end_R > batch.offset_B1[:-1][requests.user_R]
    return padded_GD[F.pad(group_T + 1, (1, 0))[requests.end_R * has_history_R]]


def sums_before(state_TD: Tensor) -> Tensor:
    """float64 [T + 1, D]: the sum of all states before each token; differences of float32 sums over a whole batch would
    tell one place in it from another."""
    return F.pad(state_TD.double().cumsum(0), (0, 0, 1, 0))


def recent_means(sum_T1D: Tensor, batch: EventBatch, requests: Requests, reach: int) -> Tensor:
    """float64 [R, D]: the mean state of the last `reach` tokens before each request, by whole groups, the newest
    always among them; zeros where there is no history. sum_T1D: `sums_before`."""
    begin_R, border_G1 = recent_groups(batch, requests, reach), group_offsets(batch)
    newest_R = border_G1[torch.clamp(torch.searchsorted(border_G1, requests.end_R) - 1, min=0)]
    has_history_R = requests.end_R > batch.offset_B1[:-1][requests.user_R]
    begin_R = torch.where(has_history_R, torch.minimum(begin_R, newest_R), requests.end_R)
    count_R = torch.clamp(requests.end_R - begin_R, min=1)
    return (sum_T1D[requests.end_R] - sum_T1D[begin_R]) / count_R[:, None]


class RecentPooling(nn.Module):
    """Means over a user's last states, added to the newest; nothing at first."""

    def __init__(self, width: int, pools: tuple[int, ...]) -> None:
        super().__init__()
        self.pools = pools
        self.projections = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in pools)
        for projection in self.projections:
            assert isinstance(projection, nn.Linear)
            nn.init.zeros_(projection.weight)

    def forward(self, border_RD: Tensor, state_TD: Tensor, batch: EventBatch, requests: Requests) -> Tensor:
        """float [R, D]; border_RD: `border_states`."""
        sum_T1D = sums_before(state_TD)
        for reach, projection in zip(self.pools, self.projections, strict=True):
            mean_RD = recent_means(sum_T1D, batch, requests, reach).to(state_TD.dtype)
            border_RD = border_RD + projection(mean_RD)
        return border_RD


class Interests(nn.Module):
    """Several vectors of a user: the stored one, and what each interest adds to it."""

    def __init__(self, width: int, interests: int) -> None:
        super().__init__()
        self.number = interests
        self.projection = nn.Linear(width, interests * width)

    def forward(self, bare_RD: Tensor, pooled_RD: Tensor) -> Tensor:
        """float [R, I, D]; pooled_RD: the stored vector."""
        added_RE: Tensor = self.projection(bare_RD)
        return pooled_RD[:, None] + added_RE.view(len(bare_RD), self.number, pooled_RD.shape[1])


def pooled_own(
    own: OwnItems, repeat_P: Tensor, requests: int, item_ND: Tensor, place_P: Tensor, rest: Tensor | float = -torch.inf
) -> Tensor:
    """The user's own items, weighted by how likely each is to return, float [R, D].

    item_ND: vectors of the distinct items in play; place_P: each pair's row among them. rest: logit of none of them
    (`UserPooling.rest`).
    """
    share_P = segment_softmax(repeat_P, own.request_P, requests, rest)
    # A dense [R, N] product is faster on every device than gathering a vector for each pair.
    share_RN = share_P.new_zeros(requests, item_ND.shape[0]).index_put((own.request_P, place_P), share_P)
    return share_RN @ item_ND


class UserPooling(nn.Module):
    """What is stored of a user: a projection of the bare state plus the user's own items, so that the dot product
    finds them again. Without `own`, as where no repeat path says which of them return, the state alone."""

    def __init__(self, width: int, own: bool = True) -> None:
        super().__init__()
        self.state = nn.Linear(width, width)
        # One element rather than none: FSDP shards no scalars.
        self.own_gain = nn.Parameter(torch.tensor([5.0])) if own else None
        # That none of the own items returns competes with them, or a user's only item would be all that the user is.
        self.own_rest = nn.Parameter(torch.tensor([4.0])) if own else None
        self.register_load_state_dict_pre_hook(_saved_before)  # type: ignore[no-untyped-call]

    @property
    def rest(self) -> Tensor | float:
        """Logit with which none of the own items returns, beside those of `RepeatPath`, which begin at 3."""
        return -torch.inf if self.own_rest is None else self.own_rest

    def forward(self, bare_RD: Tensor, own_RD: Tensor) -> Tensor:
        """float [R, D]; own_RD: `pooled_own`."""
        pooled_RD: Tensor = self.state(bare_RD)
        return pooled_RD if self.own_gain is None else pooled_RD + self.own_gain * own_RD


def _saved_before(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Models that were saved while the gain was a scalar, or while nothing stood beside the own items."""
    gain, rest = f"{prefix}own_gain", f"{prefix}own_rest"
    if gain in state:
        state[gain] = state[gain].reshape(1)
        state.setdefault(rest, torch.full_like(state[gain], NEVER))
