"""Contests in blocks of requests beside contests at once: the same loss and every gradient, whatever the block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundation.objectives import blocks
from foundation.objectives.blocks import contest_sums
from foundation.objectives.contests import Bonus, Vectors, contest_logits
from foundation.objectives.softmax import set_softmax
from foundation.objectives.targets import Negatives
from tests.foundation.objectives.test_contests import ITEMS, parts


@given(
    rows=st.integers(1, 7),
    number=st.integers(0, 40),
    own=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 39))),
    lifted=st.booleans(),
    gathered=st.sampled_from([0, 1_000_000]),
)
def test_in_blocks_the_loss_and_every_gradient_are_those_at_once(
    rows: int, number: int, own: set[tuple[int, int]], lifted: bool, gathered: int
) -> None:
    draw = torch.Generator().manual_seed(number)
    leaves, contest, category_NC = parts(
        rows, own, Negatives(torch.arange(number), -torch.rand(number, generator=draw))
    )
    state_RD, item_ND, popularity_N, lift_RS, shown_A = leaves
    # Every item is a candidate, negatives first: code = column.
    among, bonus = Vectors(item_ND, popularity_N, category_NC), Bonus((lift_RS,) if lifted else (), shown_A)
    asked = [leaf for leaf in leaves if lifted or leaf is not lift_RS]
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "ROWS", rows)
        patch.setattr(blocks, "BLOCK", {"cpu": 1})
        patch.setattr(blocks, "GATHERED", gathered)
        for say in (contest_logits, contest_sums):
            logits = say(state_RD, among, contest, bonus)
            loss, _ = set_softmax(*logits, contest.pairs, contest.target.request_E, contest.target.weight_E)
            found.append((loss, *torch.autograd.grad(loss, asked, allow_unused=True, materialize_grads=True)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    leaves, contest, category_NC = parts(1, {(0, 1), (2, 30)}, Negatives(torch.arange(30), torch.zeros(30)))
    doubled = [leaf.detach().double().requires_grad_() for leaf in leaves]
    contest = replace(contest, negatives=Negatives(torch.arange(30), torch.linspace(-1, 0, 30, dtype=torch.float64)))

    def sums(*leaves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state_RD, item_ND, popularity_N, lift_RS, shown_A = leaves
        among = Vectors(item_ND, popularity_N, category_NC)
        return contest_sums(state_RD, among, contest, Bonus((lift_RS,), shown_A))

    assert len(category_NC) == ITEMS
    torch.autograd.gradcheck(sums, doubled)
