"""Which items stand against the targets of a step, and how likely each was to: the proposal of sampled softmax.

Negatives are drawn ∝ count ** power once a step, for all ranks. The targets of a batch may join them (in-batch
negatives with logQ correction: Yi et al., Sampling-Bias-Corrected Neural Modeling, RecSys 2019; both together: Yang et
al., Mixed Negative Sampling, WWW 2020). There the proposal is the chance of an item to be among the targets of a batch.
Yi et al. estimate it from a stream whose future they don't know. Here every batch of an epoch is known to be drawn from
the same log, so the frequency to which their estimate converges is counted instead: it is there from the first
step, it is the same for every number of ranks, and a run resumes at the exact batch without a state of its own.

Every negative enters the denominator with 1 ÷ its chance to be there at all, by the draws or by the batch, so
that those that are there stand for the rest of the catalogue; in training only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from foundation.jagged import EventBatch, group_offsets, segment_ids
from foundation.objectives.contests import wanted
from foundation.objectives.targets import Negatives, Targets
from foundation.repeat import FIRST_ITEM
from tokenization.arrays import Floats


@dataclass(frozen=True)
class Proposal:
    """float64 chance of each item to be a negative. drawn_V: to be among the draws of a step. asked_V: to be among the
    targets of a batch; 0 where these are no negatives of one another."""

    drawn_V: Floats
    asked_V: Floats

    @classmethod
    def of_draws(cls, count_V: Floats, number: int, power: float) -> Self:
        """Of so many draws ∝ count ** power, with replacement."""
        share_V = _shares(count_V, power)
        return cls(_drawn(share_V, number), np.zeros(len(share_V)))

    def negatives(self, code_M: np.ndarray) -> Negatives:
        """These items, distinct and ascending, with the log of their chance."""
        chance_M = 1 - (1 - self.drawn_V[code_M]) * (1 - self.asked_V[code_M])
        return Negatives(torch.from_numpy(code_M), torch.from_numpy(np.log(chance_M)).float())


@dataclass(frozen=True)
class Draws:
    """Draws with replacement ∝ count ** power, ready for every step of a run: a step then costs what it draws, and no
    pass over all items. share_V, until_V: float64, the chance of each item in one draw, and their running sum."""

    share_V: Floats
    until_V: Floats

    @classmethod
    def of(cls, count_V: Floats, power: float) -> Self:
        """count_V: meetings of each item."""
        share_V = _shares(count_V, power)
        return cls(share_V, np.cumsum(share_V))

    def negatives(self, number: int, draw: np.random.Generator) -> Negatives:
        """Distinct items of so many draws, with the log of their chance to be among the draws."""
        code_M = np.searchsorted(self.until_V, draw.random(number), side="right")
        code_M = np.unique(np.minimum(code_M, len(self.share_V) - 1))
        code_M = code_M[self.share_V[code_M] > 0]
        log_expected_M = np.log(_drawn(self.share_V[code_M], number))
        return Negatives(torch.from_numpy(code_M), torch.from_numpy(log_expected_M).float())


def whole_catalogue(count_V: Floats) -> Negatives:
    """Every item that the log has, each with certainty: softmax over all of them, with nothing to correct.

    Items that nobody has met yet are not pushed down for it.
    """
    code_M = np.flatnonzero(count_V > 0)
    return Negatives(torch.from_numpy(code_M), torch.zeros(len(code_M)))


def among_batch(negatives: Negatives, target: Targets, proposal: Proposal) -> Negatives:
    """The negatives and the items that the requests of the batch ask for.

    A request's own are shown to it anyway, and so are no negatives of it (`negative_weights`). What a rank asks for is
    decided by its packed batch, not by which rank that is; batches of other ranks are not looked into.
    """
    return proposal.negatives(np.union1d(negatives.code_M.numpy(), wanted(target).item_E.numpy()))


def uncorrected(negatives: Negatives) -> Negatives:
    """The same as if each were there with certainty: what is drawn often is pushed down for it."""
    return Negatives(negatives.code_M, torch.zeros_like(negatives.log_expected_M))


def asked_chances(
    events: EventBatch, item_column: int, askable_G: Tensor, reward_T: Tensor, requests: int, batches: int, codes: int
) -> Floats:
    """float64 [V]: chance of each item to be among the targets of a batch.

    A row is in one of the batches of an epoch, and of its askable groups so many as `requests` are asked for: what m of
    n groups hold is missed by all with the chance C(n − m, k) / C(n, k).
    """
    border_G1 = group_offsets(events)
    group_T, item_T = segment_ids(border_G1), events.facet_TF[:, item_column]
    told_T = askable_G[group_T] & (item_T >= FIRST_ITEM) & (reward_T > 0)
    held = torch.unique(group_T[told_T] * codes + item_T[told_T])  # a group holds an item once
    row_G = events.user_T[border_G1[:-1]]
    pair, groups_P = torch.unique(row_G[held // codes] * codes + held % codes, return_counts=True)
    askable_B = torch.bincount(row_G[askable_G], minlength=events.users)
    met_P = _met_chances(askable_B[pair // codes].double(), groups_P.double(), float(requests))
    missed_V = torch.zeros(codes, dtype=torch.float64)
    missed_V.index_add_(0, pair % codes, torch.log1p(-met_P / batches))
    return -torch.expm1(missed_V).numpy()


def _met_chances(groups_P: Tensor, holding_P: Tensor, asked: float) -> Tensor:
    """1 − C(n − m, k) / C(n, k), for n groups of which m hold the item and k are asked for."""
    rest_P = groups_P - holding_P
    surely_P = rest_P < asked
    n_P, rest_P = torch.where(surely_P, asked, groups_P), torch.where(surely_P, asked, rest_P)
    log_missed_P = _log_factorial(rest_P) - _log_factorial(rest_P - asked)
    log_missed_P = log_missed_P - _log_factorial(n_P) + _log_factorial(n_P - asked)
    return torch.where(surely_P, 1.0, -torch.expm1(log_missed_P))


def _log_factorial(number_P: Tensor) -> Tensor:
    return torch.lgamma(number_P + 1)


def _drawn(share_V: Floats, number: int) -> Floats:
    """Chance of being among so many draws at all, since duplicates are dropped."""
    return np.asarray(-np.expm1(number * np.log1p(-np.minimum(share_V, 1 - 1e-9))))


def _shares(count_V: Floats, power: float) -> Floats:
    share_V = count_V**power
    return np.asarray(share_V / share_V.sum())
