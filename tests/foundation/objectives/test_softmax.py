from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foundation.objectives.softmax import negative_weights, set_softmax
from foundation.objectives.targets import Negatives, Shown, shown

REQUESTS, ITEMS = 3, 12
NOBODYS = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
TARGETS = (torch.tensor([0, 0, 2]), torch.tensor([3, 5, 5]))  # request 1 has none
WEIGHTS = torch.tensor([0.7, 0.7, 1.0])


def logits(seed: int = 0) -> Tensor:
    return torch.randn(REQUESTS, ITEMS, generator=torch.Generator().manual_seed(seed))


def loss_over(logit_RV: Tensor, negatives: Negatives, own: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """`set_softmax` with logits taken from those of every item."""
    pairs = shown(own, TARGETS, ITEMS)
    negative_RM = logit_RV[:, negatives.code_M] + negative_weights(negatives, pairs, len(logit_RV))
    return set_softmax(negative_RM, logit_RV[pairs.row_A, pairs.code_A], pairs, TARGETS[0], WEIGHTS)


def test_with_every_item_as_a_negative_it_is_the_full_softmax() -> None:
    everything = Negatives(torch.arange(ITEMS), torch.zeros(ITEMS))
    for own in (NOBODYS, (torch.tensor([0, 0, 1]), torch.tensor([3, 9, 4]))):
        logit_RV = logits().requires_grad_()
        total, weight = loss_over(logit_RV, everything, own)
        plain = logit_RV.detach().clone().requires_grad_()
        expected = -(torch.log_softmax(plain, dim=1)[TARGETS] * WEIGHTS).sum()
        torch.testing.assert_close(total, expected)
        assert weight == WEIGHTS.sum()
        total.backward()
        expected.backward()
        torch.testing.assert_close(logit_RV.grad, plain.grad)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5))), st.sets(st.tuples(st.integers(0, 3), st.integers(0, 5)))
)
def test_own_items_and_targets_are_shown_once_each_own_ones_first(
    targets: list[tuple[int, int]], own: set[tuple[int, int]]
) -> None:
    def columns(pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        return tuple(torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T)  # type: ignore[return-value]

    found = shown(columns(sorted(own)), columns(targets), 6)
    pairs = list(zip(found.row_A.tolist(), found.code_A.tolist(), strict=True))
    assert pairs[: len(own)] == sorted(own)
    assert sorted(pairs) == sorted(own | set(targets))
    assert [pairs[place] for place in found.place_E.tolist()] == targets


def test_a_negative_stands_for_many_unless_it_is_shown() -> None:
    negatives = Negatives(torch.tensor([5, 7]), torch.tensor([-2.0, -0.5]))
    pairs = Shown(torch.tensor([0, 0, 1, 2]), torch.tensor([3, 5, 9, 7]), torch.tensor([0, 1, 3]))
    expected = torch.tensor([[-torch.inf, 0.5], [2.0, 0.5], [2.0, -torch.inf]])
    assert torch.equal(negative_weights(negatives, pairs, REQUESTS), expected)


def test_an_item_that_is_left_out_gets_no_gradient() -> None:
    logit_RV = logits().requires_grad_()
    loss_over(logit_RV, Negatives(torch.tensor([1]), torch.zeros(1)), NOBODYS)[0].backward()
    assert logit_RV.grad is not None
    assert torch.equal(logit_RV.grad[0].nonzero().squeeze(1), torch.tensor([1, 3, 5]))
    assert not logit_RV.grad[1].any()  # nothing came of this request
    assert torch.isfinite(logit_RV.grad).all()


def test_a_request_that_only_its_targets_compete_for_is_finite() -> None:
    logit_RV = logits().requires_grad_()
    nothing = Negatives(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    total, _ = loss_over(logit_RV, nothing, NOBODYS)
    total.backward()
    among = torch.log_softmax(logit_RV[0, [3, 5]], dim=0)
    torch.testing.assert_close(total, -0.7 * among.sum())
    assert logit_RV.grad is not None
    assert torch.isfinite(logit_RV.grad).all()


def test_large_logits_do_not_overflow() -> None:
    everything = Negatives(torch.arange(ITEMS), torch.zeros(ITEMS))
    small, large = (loss_over(logits() + shift, everything, NOBODYS)[0] for shift in (0.0, 500.0))
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-3)


def test_the_sampled_denominator_is_right_on_average() -> None:
    """Σ exp(logit) over drawn items ÷ the chance of being drawn (Horvitz & Thompson, JASA 1952)."""
    draw = torch.Generator().manual_seed(7)
    logit_RV = logits(1)
    share = torch.softmax(torch.randn(ITEMS, generator=draw), 0)
    trials, draws = 4000, 6
    chance = 1 - (1 - share) ** draws
    pairs = shown(NOBODYS, TARGETS, ITEMS)
    certain = torch.zeros(REQUESTS).index_add(0, pairs.row_A, logit_RV[pairs.row_A, pairs.code_A].exp())
    totals = []
    for _ in range(trials):
        drawn = torch.multinomial(share, draws, replacement=True, generator=draw).unique()
        weight_RM = negative_weights(Negatives(drawn, chance[drawn].log()), pairs, REQUESTS)
        totals.append(certain + torch.logsumexp(logit_RV[:, drawn] + weight_RM, dim=1).exp())
    found = torch.stack(totals)
    error = found.std(0) / trials**0.5
    assert ((found.mean(0) - logit_RV.exp().sum(1)).abs() < 4 * error).all()
