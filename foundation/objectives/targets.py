"""What a lesson asks for: the true targets of each horizon, negatives, and the pairs that always compete."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """What really came at one horizon: E pairs (request, target event).

    request_E: int64 row of the request. item_E: int64 item code, < 2 where the event has no item.
    facet_EF: int64 codes of the predicted facets, in the order of ModelConfig.targets. weight_E: float32. reward_E:
    float32, what the event's action says of interest in its item: 0 is none, and the item was shown in vain.
    """

    request_E: Tensor
    item_E: Tensor
    facet_EF: Tensor
    weight_E: Tensor
    reward_E: Tensor

    def picked(self, keep_E: Tensor) -> Self:
        """Some of them, by mask."""
        return replace(self, **{field.name: getattr(self, field.name)[keep_E] for field in fields(self)})

    @classmethod
    def none(cls) -> Self:
        """Nothing that is asked for."""
        nothing = torch.zeros(0, dtype=torch.int64)
        return cls(nothing, nothing, torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0), torch.zeros(0))


@dataclass(frozen=True)
class Negatives:
    """M items drawn once for the whole batch. code_M: int64, distinct, ascending. log_expected_M: log of the expected
    number of times each was drawn, the correction of sampled softmax (Bengio & Senécal, 2008; Yi et al., 2019)."""

    code_M: Tensor
    log_expected_M: Tensor

    def __len__(self) -> int:
        return len(self.code_M)


@dataclass(frozen=True)
class Shown:
    """A pairs (request, candidate) that always take part in the request's softmax, with weight 1.

    row_A: int64 request. code_A: int64 item code. place_E: where among the A each target stands.
    """

    row_A: Tensor
    code_A: Tensor
    place_E: Tensor


def shown(own: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], codes: int) -> Shown:
    """Own items and targets, each pair once.

    own, target: (row of the request, item code); own pairs are distinct and ascend by row, then code. codes: more
    than the largest code.
    """
    own_P, target_E = (row * codes + code for row, code in (own, target))
    place_E = torch.searchsorted(own_P, target_E)
    padded = torch.cat([own_P, own_P.new_full((1,), -1)])
    fresh_E = padded[place_E] != target_E
    fresh, among_fresh = torch.unique(target_E[fresh_E], return_inverse=True)
    place_E[fresh_E] = len(own_P) + among_fresh
    return Shown(torch.cat([own[0], fresh // codes]), torch.cat([own[1], fresh % codes]), place_E)


def with_impressions(pairs: Shown, vain: tuple[Tensor, Tensor], codes: int) -> Shown:
    """The same and, after them, what was shown in vain, each pair once and none that competes anyway.

    vain: (row of the request, item code). codes: as of `shown`.
    """
    there, wanted = pairs.row_A * codes + pairs.code_A, torch.unique(vain[0] * codes + vain[1])
    fresh = wanted[~torch.isin(wanted, there)]
    return Shown(torch.cat([pairs.row_A, fresh // codes]), torch.cat([pairs.code_A, fresh % codes]), pairs.place_E)
