"""Where a lesson's requests stand: at the beginning of groups, reading what was complete strictly before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foundation.jagged import EventBatch, segment_ids

AFTER_CUT = 4
"""Groups that are asked for behind a cut: with more, a user of few events would be one of two dozen requests."""


def askable(events: EventBatch, first_G: Tensor, owner_G: Tensor, fresh_B: Tensor) -> Tensor:
    """bool [G]: groups that are fresh in their row, and began after another of the row was complete."""
    row_G = events.offset_B1[owner_G]  # where the row begins, with the first group of it to be complete
    fresh_G = first_G - row_G >= fresh_B[owner_G]
    return fresh_G & (events.time_T[row_G] < events.begin_T[first_G])


def history_ends(batch: EventBatch, first_G: Tensor, owner_G: Tensor) -> Tensor:
    """int64 [G]: the user's first token that was not complete strictly before the group began."""
    begin_G = batch.begin_T[first_G]
    if torch.equal(begin_G, batch.time_T[first_G]):
        return first_G
    # Users and times as one number that ascends with the tokens.
    moment_N, rank_N = torch.unique(torch.cat([batch.time_T, begin_G]), return_inverse=True)
    rank_T, rank_G = rank_N[: batch.tokens], rank_N[batch.tokens :]
    return torch.searchsorted(batch.user_T * len(moment_N) + rank_T, owner_G * len(moment_N) + rank_G)


def soon_after(owner_G: Tensor, askable_G: Tensor, cut_B: Tensor) -> Tensor:
    """bool [G]: of the groups that can be asked for, all; but of rows that were cut only the first `AFTER_CUT`."""
    count_B = torch.bincount(owner_G[askable_G], minlength=len(cut_B))
    before_B = count_B.cumsum(0) - count_B
    number_G = askable_G.cumsum(0) - before_B[owner_G]  # from 1, of those that can be asked for
    return askable_G & (~cut_B[owner_G] | (number_G <= AFTER_CUT))


def draw_groups(owner_G: Tensor, askable_G: Tensor, per_user: int, draw: np.random.Generator) -> Tensor:
    """At most `per_user` of each user's groups that can be asked for, in order."""
    owner = owner_G.numpy()
    candidate = np.flatnonzero(askable_G.numpy())
    order = np.lexsort((draw.random(len(candidate)), owner[candidate]))
    owners = owner[candidate][order]
    first = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]]) if len(owners) else np.zeros(0, dtype=int)
    rank = np.arange(len(owners)) - np.repeat(first, np.diff(np.r_[first, len(owners)]))
    return torch.from_numpy(np.sort(candidate[order[rank < per_user]]))


def context_of_groups(batch: EventBatch, border_G1: Tensor, columns: Sequence[int]) -> Tensor:
    """int64 [G, C] of the tokens that were there when the group began; 0 where these disagree: that is no property of
    the request, as in `holdout`. columns: of the facets that are asked for."""
    code_TC = batch.facet_TF[:, list(columns)][batch.opening_T]
    group_TC = segment_ids(border_G1)[batch.opening_T, None].expand_as(code_TC)
    nothing_GC = code_TC.new_zeros(len(border_G1) - 1, code_TC.shape[1])
    low_GC, high_GC = (
        nothing_GC.scatter_reduce(0, group_TC, code_TC, extreme, include_self=False) for extreme in ("amin", "amax")
    )
    return torch.where(low_GC == high_GC, low_GC, 0)
