"""States of tokens → states of groups → the user embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.jagged import EventBatch, Requests, group_offsets, ranges_owner, segment_softmax, segment_sum
from foundation.repeat import OwnItems


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


def pooled_own(own: OwnItems, repeat_P: Tensor, requests: int, item_ND: Tensor, place_P: Tensor) -> Tensor:
    """The user's own items, weighted by how likely each is to return, float [R, D].

    item_ND: vectors of the distinct items in play; place_P: each pair's row among them.
    """
    share_P = segment_softmax(repeat_P, own.request_P, requests)
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
        self.register_load_state_dict_pre_hook(_scalar_as_row)  # type: ignore[no-untyped-call]

    def forward(self, bare_RD: Tensor, own_RD: Tensor) -> Tensor:
        """float [R, D]; own_RD: `pooled_own`."""
        pooled_RD: Tensor = self.state(bare_RD)
        return pooled_RD if self.own_gain is None else pooled_RD + self.own_gain * own_RD


def _scalar_as_row(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Models that were saved while the gain was a scalar."""
    name = f"{prefix}own_gain"
    if name in state:
        state[name] = state[name].reshape(1)
