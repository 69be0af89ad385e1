"""The repeat path: a user's own earlier items return, by a score learned inside the model.

Groceries, music and reading repeat; a dot product of two short vectors can't keep hundreds of items apart, a copy
mechanism can (Gu et al., CopyNet, arXiv:1603.06393; Ren et al., RepeatNet, arXiv:1812.02646). What decides whether an
item returns is how often, how lately and how regularly it was met (Hu et al., TIFU-KNN, arXiv:2006.00556): those
counts, decayed at several half-lives, are features of each pair (request, own item), read together with the
item's vector and the user's state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.config import RepeatConfig
from foundation.jagged import (
    EventBatch,
    Requests,
    group_ids,
    group_starts,
    ranges_of,
    ranges_owner,
    segment_sum,
)

FIRST_ITEM = 2  # codes 0 and 1 are absent and unknown
CODES = 1 << 32  # more than any vocabulary has, so that a user and an item, or a group and a code, are one number
FLOOR = 1e-3  # of a decayed count, below one meeting ten half-lives ago


@dataclass(frozen=True)
class OwnItems:
    """P pairs of a request and a distinct item that its user met before it, ordered by request.

    request_P: int64 row of the request. code_P: int64 item code. feature_PX: float32 features of how the item was
    met. told_PX: the same and, for each context facet, how it was met in the request's own context.
    """

    request_P: Tensor
    code_P: Tensor
    feature_PX: Tensor
    told_PX: Tensor


@dataclass(frozen=True)
class Columns:
    """Columns of `facet_TF` that hold the items and the context facets."""

    item: int
    context: tuple[int, ...]


@dataclass(frozen=True)
class Meetings:
    """E pairs (request, earlier token) and the P pairs (request, item of its user) that they count for.

    request_E, token_E, pair_E: int64; pair_E is P where the token holds no item. age_E: float32 time units before
    the request. weight_EX: float32, one column a half-life. request_P, code_P: int64, ascending.
    """

    request_E: Tensor
    token_E: Tensor
    pair_E: Tensor
    age_E: Tensor
    weight_EX: Tensor
    request_P: Tensor
    code_P: Tensor


class RepeatPath(nn.Module):
    """Logit bonus of each own item, read from its features, its vector and the user's state.

    It starts as the strongest simple rule, log of the decayed count, and learns what to add.
    """

    def __init__(self, config: RepeatConfig, width: int, features: int) -> None:
        super().__init__()
        self.features = nn.Linear(features, config.width)
        self.item = nn.Linear(width, config.width, bias=False)
        self.state = nn.Linear(width, config.width, bias=False)
        self.hidden = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, 1)
        self.rule = nn.Linear(features, 1)
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.bias.zero_()
            self.rule.weight.zero_()
            self.rule.weight[0, slow_decay(config)] = 1.0
            self.rule.bias.fill_(3.0)

    def forward(
        self, feature_PX: Tensor, request_P: Tensor, state_RD: Tensor, item_ND: Tensor, place_P: Tensor
    ) -> Tensor:
        """float [P]. item_ND: vectors of the distinct items in play; place_P: each pair's row among them."""
        feature_PX = feature_PX.to(self.rule.weight.dtype)  # counts are float32, whatever the weights are
        x_PX = self.features(feature_PX) + self.item(item_ND).index_select(0, place_P)
        x_PX = x_PX + self.state(state_RD).index_select(0, request_P)
        x_PX = F.relu(x_PX)
        x_PX = x_PX + F.relu(self.hidden(x_PX))
        logit_P1: Tensor = self.out(x_PX) + self.rule(feature_PX)
        return logit_P1.squeeze(1)


class NoRepeat(nn.Module):
    """What stands where the repeat path is off: own items have no bonus, and no parameter."""

    def forward(
        self, feature_PX: Tensor, request_P: Tensor, state_RD: Tensor, item_ND: Tensor, place_P: Tensor
    ) -> Tensor:
        """float [P], zeros; takes what `RepeatPath` takes."""
        return feature_PX.new_zeros(request_P.shape[0])


def feature_count(config: RepeatConfig) -> int:
    """X of `OwnItems.feature_PX`."""
    return 3 * len(config.half_lives) + 6


def told_feature_count(config: RepeatConfig, context: int) -> int:
    """X of `OwnItems.told_PX` with so many context facets."""
    return feature_count(config) + 2 * context


def slow_decay(config: RepeatConfig) -> int:
    """Index of the half-life that the path starts from: a quarter of the longest finite one."""
    finite = [half_life for half_life in config.half_lives if math.isfinite(half_life)]
    wanted = max(finite) / 4 if finite else math.inf
    return min(range(len(config.half_lives)), key=lambda index: abs(config.half_lives[index] - wanted))


def meet(batch: EventBatch, requests: Requests, columns: Columns, config: RepeatConfig) -> Meetings:
    """Every pair of a request and an earlier token of its user; reads tokens before `end_R` only."""
    # Distinct (user, item) pairs, numbered inside each user, are the slots that tokens are counted into.
    slot_code, slot_T = torch.unique(_numbered(batch.user_T) + batch.facet_TF[:, columns.item], return_inverse=True)
    user_B1 = torch.arange(batch.offset_B1.shape[0], device=slot_code.device)
    slot_B1 = torch.searchsorted(slot_code, _numbered(user_B1))

    offset_R = batch.offset_B1[requests.user_R]
    history_R = requests.end_R - offset_R
    request_E = ranges_owner(history_R)
    token_E = ranges_of(offset_R, history_R, request_E)
    first_slot_R = slot_B1[requests.user_R]
    slots_R = slot_B1[requests.user_R + 1] - first_slot_R
    request_S = ranges_owner(slots_R)
    slot_E = (slots_R.cumsum(0) - slots_R - first_slot_R)[request_E] + slot_T[token_E]
    # Of all slots of its user a request keeps those that it has met and that hold an item.
    code_S = slot_code[ranges_of(first_slot_R, slots_R, request_S)] % CODES
    met_S = torch.zeros_like(code_S, dtype=torch.bool)
    met_S[slot_E] = True
    kept_S = (met_S & (code_S >= FIRST_ITEM)).nonzero().squeeze(1)
    pairs = kept_S.shape[0]
    pair_S = torch.full_like(code_S, pairs)
    pair_S[kept_S] = torch.arange(pairs, device=kept_S.device)
    age_E, weight_EX = _decay(batch, requests, request_E, token_E, config)
    return Meetings(request_E, token_E, pair_S[slot_E], age_E, weight_EX, request_S[kept_S], code_S[kept_S])


def own_items(
    batch: EventBatch, requests: Requests, meetings: Meetings, columns: Columns, config: RepeatConfig
) -> OwnItems:
    """Every distinct item that each request's user met in groups before it, with its features."""
    feature_PX = _features(batch, requests, meetings)
    context_PX = _context_features(batch, requests, meetings, columns.context, slow_decay(config))
    told_PX = torch.cat([feature_PX, context_PX], dim=1)
    return OwnItems(meetings.request_P, meetings.code_P, feature_PX, told_PX)


def own_pairs(meetings: Meetings) -> OwnItems:
    """The same items without any feature: of a model without the repeat path they only compete in its losses."""
    none_P0 = meetings.weight_EX.new_zeros(meetings.request_P.shape[0], 0)
    return OwnItems(meetings.request_P, meetings.code_P, none_P0, none_P0)


def no_items(request_R: Tensor) -> OwnItems:
    """Nobody's items, where no repeat path asks for them."""
    none_P = request_R[:0]
    none_P0 = torch.zeros(0, 0, device=request_R.device)
    return OwnItems(none_P, none_P, none_P0, none_P0)


def _decay(
    batch: EventBatch, requests: Requests, request_E: Tensor, token_E: Tensor, config: RepeatConfig
) -> tuple[Tensor, Tensor]:
    age_E = ((requests.time_R[request_E] - batch.time_T[token_E]) / config.time_unit).float()
    half_life_X = torch.tensor(config.half_lives, device=age_E.device) / config.time_unit
    return age_E, torch.exp2(-age_E[:, None] / half_life_X)


def _features(batch: EventBatch, requests: Requests, meetings: Meetings) -> Tensor:
    """float32 features [P, X]."""
    token_E, pair_E, request_P = meetings.token_E, meetings.pair_E, meetings.request_P
    age_E, weight_EX = meetings.age_E, meetings.weight_EX
    pairs, group_T = request_P.shape[0], group_ids(batch)

    count_PX = segment_sum(weight_EX, pair_E, pairs + 1)[:-1]
    groups_PX = _groups_met(weight_EX, group_starts(batch), meetings, requests)[request_P]
    met_P = segment_sum(torch.ones_like(age_E), pair_E, pairs + 1)[:-1]
    last_P = _extreme(age_E, pair_E, pairs, "amin")
    first_P = _extreme(age_E, pair_E, pairs, "amax")
    newest_P = _extreme(group_T[token_E], pair_E, pairs, "amax")
    # Groups since the item was met: the group at the request's border is the newest the user has completed.
    border_R = F.pad(group_T, (0, 1))[requests.end_R - 1]
    since_P = (border_R[request_P] - newest_P + 1).float()
    interval_P = (first_P - last_P) / torch.clamp(met_P - 1, min=1)
    again_P = met_P > 1
    columns = [
        torch.log(count_PX + FLOOR),
        torch.log((count_PX + FLOOR) / (groups_PX + 0.1)),
        0.3 * torch.log(groups_PX + 0.1),
        torch.log1p(last_P)[:, None],
        torch.log1p(first_P)[:, None],
        torch.log1p(torch.clamp(since_P, min=0))[:, None],
        torch.log1p(interval_P)[:, None],
        torch.where(again_P, torch.log1p(last_P / (interval_P + 1)), 0.0)[:, None],
        again_P.float()[:, None],
    ]
    return torch.cat(columns, dim=1)


def _context_features(
    batch: EventBatch, requests: Requests, meetings: Meetings, context: tuple[int, ...], slow: int
) -> Tensor:
    """float32 [P, 2 C]: log decayed count and rate of the item in the request's own store, hour, ...; of all
    contexts where none was told."""
    code_TC = batch.facet_TF[:, list(context)]
    asked_EC = requests.context_RC[meetings.request_E]
    same_EC = (code_TC[meetings.token_E] == asked_EC) | (asked_EC == 0)
    weight_EC = same_EC * meetings.weight_EX[:, slow, None]
    pairs = meetings.request_P.shape[0]
    count_PC = segment_sum(weight_EC, meetings.pair_E, pairs + 1)[:-1]
    first_T, first_TC = _first_of_group(batch, code_TC)
    counts_EC = torch.where(asked_EC == 0, first_T[meetings.token_E, None], first_TC[meetings.token_E])
    some_N = first_TC.any(1)[meetings.token_E].nonzero().squeeze(1)
    groups_RC = segment_sum((counts_EC * weight_EC)[some_N], meetings.request_E[some_N], requests.user_R.shape[0])
    rate_PC = (count_PC + FLOOR) / (groups_RC + 0.1)[meetings.request_P]
    return torch.cat([torch.log(count_PC + FLOOR), torch.log(rate_PC)], dim=1)


def _first_of_group(batch: EventBatch, code_TC: Tensor) -> tuple[Tensor, Tensor]:
    """bool [T]: the group's first token; bool [T, C]: the group's first token with its code. A group whose tokens
    disagree (a coupon without a store beside products with one) counts once for each of its codes, in any order."""
    group_T = group_ids(batch)
    token_T = torch.arange(batch.tokens, device=group_T.device)
    columns = [torch.zeros_like(code_TC[:, :0], dtype=torch.bool)]
    for code_T in code_TC.unbind(1):
        pair, pair_T = torch.unique(_numbered(group_T) + code_T, return_inverse=True)
        columns.append((_extreme(token_T, pair_T, pair.shape[0], "amin")[pair_T] == token_T)[:, None])
    return group_starts(batch), torch.cat(columns, dim=1)


def _groups_met(weight_EX: Tensor, first_T: Tensor, meetings: Meetings, requests: Requests) -> Tensor:
    """Weight of the groups before each request, [R, X]: a group counts once, by its first token."""
    first_N = first_T[meetings.token_E].nonzero().squeeze(1)
    return segment_sum(weight_EX[first_N], meetings.request_E[first_N], requests.user_R.shape[0])


def _numbered(owner_N: Tensor) -> Tensor:
    """int64 [N]: the numbers of each owner's codes begin here; those of the next one are larger than all of them."""
    return owner_N * CODES


def _extreme(value_E: Tensor, pair_E: Tensor, pairs: int, reduce: str) -> Tensor:
    """Smallest or largest value of each pair; the row of what belongs to none is cut off."""
    found_P = torch.zeros(pairs + 1, dtype=value_E.dtype, device=value_E.device)
    return found_P.scatter_reduce_(0, pair_E, value_E, reduce, include_self=False)[:-1]
