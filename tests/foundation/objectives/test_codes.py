from __future__ import annotations

import math

import torch

from foundation.objectives.codes import path_cross_entropy


def test_a_path_may_be_made_or_copied() -> None:
    made = torch.log(torch.tensor([0.1, 0.2, 0.4])).requires_grad_()
    yes = torch.tensor([math.log(0.25), math.log(0.25), -torch.inf]).requires_grad_()
    no = torch.tensor([math.log(0.75), math.log(0.75), 0.0]).requires_grad_()
    copied, weight = torch.tensor([0.6, 0.0, 0.0]), torch.tensor([1.0, 2.0, 3.0])
    total, weights = path_cross_entropy(made, copied, yes, no, weight)
    expected = math.log(0.75 * 0.1 + 0.25 * 0.6) + 2 * math.log(0.75 * 0.2) + 3 * math.log(0.4)
    torch.testing.assert_close(total, torch.tensor(-expected))
    assert weights == 6.0
    total.backward()
    for value in (made, yes, no):
        assert value.grad is not None
        assert torch.isfinite(value.grad).all()
    torch.testing.assert_close(made.grad[0], torch.tensor(-0.75 * 0.1 / (0.75 * 0.1 + 0.25 * 0.6)))
