"""The slate is a fair draw: what it says of the whole catalogue is right in the mean."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foundation.objectives.softmax import negative_weights
from foundation.objectives.target_aware import WANTED, Contenders, drawn, slate, slate_softmax, target_weights
from foundation.objectives.targets import Negatives, shown


def contenders(
    logit_RV: Tensor,
    own: list[tuple[int, int]],
    targets: list[tuple[int, int]],
    weight: list[float],
    negatives: Negatives | None = None,
) -> Contenders:
    """Of R requests over V items; every item is a negative that is drawn once where no others are given."""
    requests, items = logit_RV.shape
    negatives = negatives or Negatives(torch.arange(items), torch.zeros(items))
    own_rows, own_codes = torch.tensor(sorted(own), dtype=torch.int64).view(-1, 2).T
    rows, codes = torch.tensor(targets, dtype=torch.int64).view(-1, 2).T
    pairs = shown((own_rows, own_codes), (rows, codes), items)
    column_V = torch.full((items,), -1)
    column_V[negatives.code_M] = torch.arange(len(negatives.code_M))
    others = (column_V < 0).nonzero().squeeze(1)
    column_V[others] = len(negatives.code_M) + torch.arange(len(others))
    return Contenders(
        logit_RV[:, negatives.code_M] + negative_weights(negatives, pairs, requests),
        logit_RV[pairs.row_A, pairs.code_A],
        pairs,
        column_V[pairs.code_A],
        target_weights(pairs.place_E, torch.tensor(weight), len(pairs.row_A)),
        negatives.code_M,
        torch.arange(requests) * 7919,
    )


@given(
    own=st.sets(st.tuples(st.integers(0, 2), st.integers(0, 8))),
    targets=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8)), min_size=1),
    seed=st.integers(0, 99),
)
def test_a_slate_of_everybody_is_the_whole_softmax(
    own: set[tuple[int, int]], targets: list[tuple[int, int]], seed: int
) -> None:
    logit_RV = torch.randn(3, 9, generator=torch.Generator().manual_seed(seed))
    weight = [0.5 + place for place in range(len(targets))]
    found = slate(contenders(logit_RV, list(own), targets, weight), competitors=50)
    # Columns are item codes here, so a bonus by item can be compared with one in the whole softmax.
    bonus_RV = torch.randn(3, 9, generator=torch.Generator().manual_seed(seed + 1))
    total, weights = slate_softmax(found, bonus_RV.gather(1, found.column_RN))
    rows, codes = torch.tensor(targets).T
    expected = -(torch.log_softmax(logit_RV + bonus_RV, dim=1)[rows, codes] * torch.tensor(weight)).sum()
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4)
    assert float(weights) == pytest.approx(sum(weight))


def test_nobody_competes_with_himself() -> None:
    """Of own items, targets and negatives that are the same item only one takes part."""
    for seed in range(20):
        logit_RV = torch.randn(2, 30, generator=torch.Generator().manual_seed(seed))
        found = slate(contenders(logit_RV, [(0, 3), (0, 4), (1, 5)], [(0, 4), (0, 9), (0, 9)], [1.0, 1.0, 1.0]), 12)
        for row in range(2):
            columns = found.column_RN[row, found.plain_RN[row] > -torch.inf].tolist()
            assert len(columns) == len(set(columns))
        assert found.weight_RW[0].sort().values.tolist() == [1.0, 2.0]
        assert found.weight_RW[1].sum() == 0


def test_what_is_shown_and_not_wanted_competes() -> None:
    """Own items, and what was shown in vain: pairs without a weight as a target."""
    logit_RV = torch.zeros(1, 30)
    found = slate(contenders(logit_RV, [(0, 3)], [(0, 4), (0, 5)], [1.0, 0.0]), 50)
    assert found.weight_RW.tolist() == [[1.0]]
    assert sorted(found.column_RN[0, found.plain_RN[0] > -torch.inf].tolist()) == list(range(30))


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_those_drawn_stand_for_all_in_the_mean(spread: float) -> None:
    draw = torch.Generator().manual_seed(0)
    logit_C = spread * torch.randn(60, generator=draw)
    uniform_RC = torch.rand(40_000, 60, generator=draw).clamp(1e-6, 1 - 1e-6)
    place_RS, log_stands_RS = drawn(logit_C.expand(40_000, -1), uniform_RC, 8)
    assert all(len(set(row)) == 8 for row in place_RS[:50].tolist())
    value_C = torch.rand(60, generator=draw)  # any function of an item, not only its logit
    for of_C in (torch.ones(60), value_C):
        sums_R = (torch.exp(logit_C[place_RS] + log_stands_RS) * of_C[place_RS]).sum(1)
        exact = float((torch.exp(logit_C) * of_C).sum())
        error = float(sums_R.std()) / 40_000**0.5
        assert float(sums_R.mean()) == pytest.approx(exact, abs=5 * error)
        assert error < 0.02 * exact


def test_what_the_plain_score_likes_is_drawn_far_more_often() -> None:
    logit_RV = torch.zeros(400, 100)
    logit_RV[:, 7] = 6.0
    found = slate(contenders(logit_RV, [], [(0, 1)], [1.0]), 5)
    hit_R = (found.column_RN[:, :5] == 7).any(1)
    assert hit_R.float().mean() > 0.95
    others = found.column_RN[:, :5][found.column_RN[:, :5] != 7]
    assert len(others.unique()) > 90  # the others each have their chance


def test_a_slate_is_the_same_whenever_it_is_drawn_and_another_in_another_step() -> None:
    logit_RV = torch.zeros(6, 100)
    every = torch.arange(100)
    one, again, other = (
        slate(contenders(logit_RV, [(0, 3)], [(0, 1)], [1.0], Negatives(codes, torch.zeros(len(codes)))), 5)
        for codes in (every, every, every[1:])
    )
    assert torch.equal(one.column_RN, again.column_RN)
    codes = [set(row) for row in one.column_RN[:, :5].tolist()]
    later = [{column + 1 for column in row} for row in other.column_RN[:, :5].tolist()]
    assert codes != later
    assert len({tuple(sorted(row)) for row in codes}) == 6  # and each request has its own


def test_of_a_very_large_group_some_are_drawn() -> None:
    items = 3 * WANTED
    targets = [(0, code) for code in range(items)]
    found = slate(contenders(torch.zeros(1, items + 5), [], targets, [1.0] * items), 5)
    assert found.weight_RW.shape == (1, WANTED)
    assert found.weight_RW.sum() == WANTED
    kept = found.column_RN[0, 5:]
    assert len(kept.unique()) == WANTED
    assert kept.max() >= WANTED  # by chance, not the first
    # Those that are not asked for compete with nobody.
    assert set(found.column_RN[0, :5].tolist()) == set(range(items, items + 5))


def test_gradients_go_to_the_bonus() -> None:
    found = slate(contenders(torch.zeros(2, 20, requires_grad=True), [(0, 3)], [(0, 1)], [1.0]), 5)
    assert not found.plain_RN.requires_grad
    bonus_RN = torch.zeros(found.plain_RN.shape, requires_grad=True)
    slate_softmax(found, bonus_RN)[0].backward()  # type: ignore[no-untyped-call]
    assert bonus_RN.grad is not None
    assert bonus_RN.grad.isfinite().all()
    assert float(bonus_RN.grad[0].sum()) == pytest.approx(0.0, abs=1e-6)
    assert bonus_RN.grad[0, -1] < 0
    assert not bonus_RN.grad[1].any()
