from __future__ import annotations

import torch
from torch import Tensor

from foundation.objectives import candidate_weights, facet_cross_entropy, set_softmax

REQUESTS, ITEMS = 3, 12
NOTHING = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
TARGETS = (torch.tensor([0, 0, 2]), torch.tensor([3, 5, 5]))  # request 1 has none
WEIGHTS = torch.tensor([0.7, 0.7, 1.0])


def logits(seed: int = 0) -> Tensor:
    return torch.randn(REQUESTS, ITEMS, generator=torch.Generator().manual_seed(seed))


def test_with_every_item_as_a_negative_it_is_the_full_softmax() -> None:
    logit_RN = logits().requires_grad_()
    everything = (torch.arange(ITEMS), torch.zeros(ITEMS))
    weight_RN = candidate_weights(REQUESTS, ITEMS, everything, NOTHING, TARGETS)
    total, weight = set_softmax(logit_RN, weight_RN, *TARGETS, WEIGHTS)
    plain = logit_RN.detach().clone().requires_grad_()
    expected = -(torch.log_softmax(plain, dim=1)[TARGETS] * WEIGHTS).sum()
    torch.testing.assert_close(total, expected)
    assert weight == WEIGHTS.sum()
    total.backward()
    expected.backward()
    torch.testing.assert_close(logit_RN.grad, plain.grad)


def test_own_items_and_targets_always_compete_and_the_rest_only_when_drawn() -> None:
    negative = (torch.tensor([5, 7]), torch.tensor([-2.0, -0.5]))
    own = (torch.tensor([1]), torch.tensor([9]))
    weight_RN = candidate_weights(REQUESTS, ITEMS, negative, own, TARGETS)
    expected = torch.full((REQUESTS, ITEMS), -torch.inf)
    expected[:, 5], expected[:, 7] = 2.0, 0.5
    expected[0, 3] = expected[0, 5] = expected[2, 5] = 0.0  # the accidental hits stand for themselves alone
    expected[1, 9] = 0.0
    assert torch.equal(weight_RN, expected)


def test_an_item_that_is_left_out_gets_no_gradient() -> None:
    logit_RN = logits().requires_grad_()
    weight_RN = candidate_weights(REQUESTS, ITEMS, (torch.tensor([1]), torch.zeros(1)), NOTHING, TARGETS)
    set_softmax(logit_RN, weight_RN, *TARGETS, WEIGHTS)[0].backward()
    assert logit_RN.grad is not None
    assert torch.equal(logit_RN.grad[0].nonzero().squeeze(1), torch.tensor([1, 3, 5]))
    assert not logit_RN.grad[1].any()  # nothing came of this request
    assert torch.isfinite(logit_RN.grad).all()


def test_the_sampled_denominator_is_right_on_average() -> None:
    """Σ exp(logit) over drawn items ÷ the chance of being drawn (Horvitz & Thompson, JASA 1952)."""
    draw = torch.Generator().manual_seed(7)
    logit_RN = logits(1)
    share = torch.softmax(torch.randn(ITEMS, generator=draw), 0)
    trials, draws = 4000, 6
    chance = 1 - (1 - share) ** draws
    totals = []
    for _ in range(trials):
        drawn = torch.multinomial(share, draws, replacement=True, generator=draw).unique()
        weight_RN = candidate_weights(REQUESTS, ITEMS, (drawn, chance[drawn].log()), NOTHING, TARGETS)
        totals.append(torch.logsumexp(logit_RN + weight_RN, dim=1).exp())
    found = torch.stack(totals)
    error = found.std(0) / trials**0.5
    assert ((found.mean(0) - logit_RN.exp().sum(1)).abs() < 4 * error).all()


def test_absent_facets_count_nothing() -> None:
    logit_RC = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    row, code = torch.tensor([0, 0, 1]), torch.tensor([3, 0, 0])
    total, weight = facet_cross_entropy(logit_RC, row, code, torch.tensor([0.5, 9.0, 9.0]))
    torch.testing.assert_close(total, -0.5 * torch.log_softmax(logit_RC, 1)[0, 3])
    assert weight == 0.5
    total.backward()
    assert logit_RC.grad is not None
    assert not logit_RC.grad[1].any()
