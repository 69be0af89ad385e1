"""Matrices that learn by a product of two thin ones, and are plain matrices again at the end."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from foundation.errors import ModelError
from foundation.low_rank import loosen, merge


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.LayerNorm(8), nn.Linear(8, 3, bias=False))


@pytest.fixture
def x_TD() -> Tensor:
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(1))


def learn(net: nn.Sequential, x_TD: Tensor) -> None:
    optimiser = torch.optim.SGD([weight for weight in net.parameters() if weight.requires_grad], lr=0.01)
    for _ in range(5):
        optimiser.zero_grad()
        net(x_TD).square().sum().backward()
        optimiser.step()


def test_nothing_changes_before_anything_is_learned(net: nn.Sequential, x_TD: Tensor) -> None:
    before = net(x_TD)
    loosen(net, 2)
    assert torch.equal(net(x_TD), before)


def test_what_is_learned_is_of_the_rank_and_stays_when_it_is_merge(net: nn.Sequential, x_TD: Tensor) -> None:
    known = copy.deepcopy(net)
    loosen(net, 2)
    learn(net, x_TD)
    learned = net(x_TD)
    merge(net)
    torch.testing.assert_close(net(x_TD), learned)
    assert list(net.state_dict()) == list(known.state_dict())
    for now, before in zip((net[0], net[2]), (known[0], known[2]), strict=True):
        assert torch.linalg.matrix_rank(now.weight - before.weight, atol=1e-5) == 2


def test_a_copy_learns_for_itself(net: nn.Sequential, x_TD: Tensor) -> None:
    loosen(net, 1)
    other = copy.deepcopy(net)
    before = net(x_TD)
    learn(other, x_TD)
    assert torch.equal(net(x_TD), before)
    assert not torch.equal(other(x_TD), before)


@pytest.mark.parametrize("rank", [0, 7])
def test_a_rank_that_a_matrix_has_not_is_a_sentence(net: nn.Sequential, rank: int) -> None:
    with pytest.raises(ModelError, match=rf"a matrix of 8 × 6 has no rank {rank}: take one from 1 to 6"):
        loosen(net, rank)


def test_what_was_never_loosened_is_merged_already(net: nn.Sequential, x_TD: Tensor) -> None:
    before = net(x_TD)
    merge(net)
    assert torch.equal(net(x_TD), before)
