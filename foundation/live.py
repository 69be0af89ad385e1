"""A user's states a few events at a time: the trunk reads what is new, and everything behind it is as for a whole life.

What the trunk costs is bounded by what came since (foundation/cache.py). What else a model reads of a life is counts of
its codes, which need no cache but the life's tokens: a few integers an event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foundation.cache import TrunkCache, empty_cache, encode_onto
from foundation.errors import ModelError
from foundation.jagged import EventBatch, Requests, offsets_of, ranges, ranges_owner, stream_of
from foundation.model import FoundationModel, UserStates


@dataclass(frozen=True)
class UserCache:
    """What is kept of B users. state_SD, offset_B1: the trunk's states of each user's last closed tokens, as many as
    are read (`FoundationModel.reach`)."""

    trunk: TrunkCache
    state_SD: Tensor
    offset_B1: Tensor


def empty_user_cache(model: FoundationModel, users: int) -> UserCache:
    """Of users of whom nothing is known yet."""
    trunk = empty_cache(model.trunk, users)
    return UserCache(trunk, model.empty_D.new_zeros(0, model.config.width), torch.zeros_like(trunk.offset_B1))


@torch.no_grad()
def states_onto(
    model: FoundationModel, cache: UserCache, batch: EventBatch, requests: Requests
) -> tuple[UserStates, UserCache]:
    """`model(batch, requests)`, of which the trunk reads only what is not in the cache; and the cache after it.

    batch: the whole lives of the cached users, in the same order. requests: one a user, after the whole life, as
    `requests_now` makes them. Raises ModelError for others, and where lives are shorter than what is cached of them.
    """
    if not torch.equal(requests.end_R, batch.offset_B1[1:]):
        raise ModelError("a cache answers for now: give one request a user, after all events (`requests_now`)")
    length_B = batch.offset_B1.diff()
    fresh_B = length_B - cache.trunk.closed_B
    if bool((fresh_B < 0).any()):
        raise ModelError("a life is shorter than what is cached of it: give all events of the users, in the same order")
    read = model.read(batch)
    fresh = _last(read, fresh_B)
    state_TD, trunk = encode_onto(model.trunk, cache.trunk, model.events(fresh, model.tower), stream_of(fresh))
    # States of kept tokens and of new ones side by side, as their tokens are.
    kept_B = cache.offset_B1.diff()
    owner_S = torch.cat([ranges_owner(kept_B), ranges_owner(fresh_B)])
    recent_TD = torch.cat([cache.state_SD, state_TD])[torch.argsort(owner_S, stable=True)]
    recent = _last(read, kept_B + fresh_B)
    ends = _at_ends(requests, recent)
    states = model.states(model.borders(recent_TD, recent, ends), batch, requests, model.keys(recent_TD, recent, ends))
    # Of what is closed now, the newest.
    open_B = length_B - trunk.closed_B
    keep_B = torch.clamp(kept_B + fresh_B - open_B, max=model.reach)
    place_S = ranges(recent.offset_B1[1:] - open_B - keep_B, keep_B)
    return states, UserCache(trunk, recent_TD[place_S], offsets_of(keep_B))


def _last(batch: EventBatch, length_B: Tensor) -> EventBatch:
    """The same users with only so many of their last tokens."""
    users_B = torch.arange(batch.users, device=length_B.device)
    return batch.picked(ranges(batch.offset_B1[1:] - length_B, length_B), offsets_of(length_B), users_B)


def _at_ends(requests: Requests, batch: EventBatch) -> Requests:
    return Requests(requests.user_R, batch.offset_B1[1:], requests.time_R, requests.context_RC)
