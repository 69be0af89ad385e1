"""Against problems whose Hessian is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.sophia import INTERVAL, Sophia, hessian_diagonal


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mean_diagonal(slope, weights, draws: int) -> list[torch.Tensor]:
    found = [hessian_diagonal(slope, weights, drawn(seed)) for seed in range(draws)]
    return [torch.stack(parts).mean(0) for parts in zip(*found, strict=True)]


def test_one_draw_is_exact_where_the_hessian_is_a_diagonal() -> None:
    steepness = torch.tensor([0.5, 2.0, -3.0, 0.0])
    weight = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.1, 0.4]))

    def slope() -> list[torch.Tensor]:
        return list(torch.autograd.grad((steepness * weight.square()).sum() / 2, [weight]))

    assert torch.allclose(hessian_diagonal(slope, [weight], drawn(0))[0], steepness, atol=1e-3)


def test_the_mean_of_draws_is_the_diagonal_of_a_full_quadratic() -> None:
    torch.manual_seed(0)
    half = torch.randn(6, 6)
    hessian = half @ half.T
    weight = torch.nn.Parameter(torch.randn(6) / 10)

    def slope() -> list[torch.Tensor]:
        return list(torch.autograd.grad(weight @ hessian @ weight / 2, [weight]))

    (found,) = mean_diagonal(slope, [weight], 600)
    # Its variance is the sum of the squares off the diagonal: four standard errors.
    off = hessian - hessian.diag().diag()
    assert ((found - hessian.diag()).abs() < 4 * (off.square().sum(1) / 600).sqrt() + 1e-2).all()


def test_the_mean_of_draws_is_the_diagonal_of_a_softmax_regression() -> None:
    """Hessian of the mean cross-entropy by the weight of class c and input i: mean of p_c (1 − p_c) x_i²."""
    torch.manual_seed(1)
    x, y = torch.randn(40, 3), torch.randint(0, 4, (40,))
    weight, bias = torch.nn.Parameter(torch.randn(4, 3) / 2), torch.nn.Parameter(torch.zeros(4))

    def slope() -> list[torch.Tensor]:
        return list(torch.autograd.grad(F.cross_entropy(x @ weight.T + bias, y), [weight, bias]))

    p = torch.softmax(x @ weight.detach().T, dim=1)
    spread = p * (1 - p)
    of_weight, of_bias = mean_diagonal(slope, [weight, bias], 800)
    assert torch.allclose(of_weight, spread.T @ x.square() / 40, atol=0.05)
    assert torch.allclose(of_bias, spread.mean(0), atol=0.05)
    assert (of_weight - spread.T @ x.square() / 40).abs().mean() < 0.01


def test_looking_leaves_weights_and_gradients_as_they_were() -> None:
    weight = torch.nn.Parameter(torch.rand(50) * 1e3)
    weight.grad = torch.rand(50)
    before, gradient = weight.detach().clone(), weight.grad.clone()
    hessian_diagonal(lambda: list(torch.autograd.grad(weight.pow(3).sum(), [weight])), [weight], drawn(0))
    assert torch.equal(weight, before)
    assert torch.equal(weight.grad, gradient)

    def broken() -> list[torch.Tensor]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hessian_diagonal(broken, [weight], drawn(0))
    assert torch.equal(weight, before)


def test_a_flat_direction_gets_the_longer_step_and_none_is_longer_than_the_rate() -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    sophia = Sophia([weight], rate=0.1, gamma=0.5)
    sophia.observe([torch.tensor([8.0, 2.0, 1e-3, -5.0])])
    weight.grad = torch.tensor([1.0, -0.5, 1.0, -1.0])
    sophia.step()
    # rate × clip(m / (γ h), ±1); what curves down is clipped, as in the paper.
    assert torch.allclose(weight.detach(), torch.tensor([-0.1 / 4, 0.1 * 0.5, -0.1, 0.1]))


def test_the_curvature_is_a_moving_average_of_what_was_looked_at() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    sophia = Sophia([weight], rate=1.0, betas=(0.0, 0.5), gamma=1.0)
    for curvature in (4.0, 8.0):
        sophia.observe([torch.tensor([curvature])])
    weight.grad = torch.ones(1)
    sophia.step()
    # (.5 × .5 × 4 + .5 × 8) ÷ (1 − .25), so the start from zero counts nothing.
    assert weight.item() == pytest.approx(-1 / (5 / 0.75))


def test_weights_decay_apart_from_the_gradient() -> None:
    weight = torch.nn.Parameter(torch.full((1,), 2.0))
    sophia = Sophia([weight], rate=0.1, weight_decay=0.5)
    weight.grad = torch.zeros(1)
    sophia.step()
    assert weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))


def test_newton_in_a_ravine_where_signs_would_zigzag() -> None:
    """Curvatures a thousand times apart: with momentum off and γ 1, one step lands on the bottom."""
    steepness = torch.tensor([100.0, 0.1])
    weight = torch.nn.Parameter(torch.tensor([0.01, 0.9]))

    def slope() -> list[torch.Tensor]:
        return list(torch.autograd.grad((steepness * weight.square()).sum() / 2, [weight]))

    sophia = Sophia([weight], rate=1.0, betas=(0.0, 0.99), gamma=1.0)
    sophia.observe(hessian_diagonal(slope, [weight], drawn(0)))
    (weight.grad,) = slope()
    sophia.step()
    assert weight.detach().abs().max() < 2e-2


def test_it_looks_at_the_first_step_and_at_each_tenth_after_it() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    sophia = Sophia([weight], rate=0.1)
    wants = []
    for _ in range(2 * INTERVAL + 1):
        wants.append(sophia.wants_curvature)
        weight.grad = torch.ones(1)
        sophia.step()
    assert [step for step, want in enumerate(wants) if want] == [0, INTERVAL, 2 * INTERVAL]
    other = Sophia([torch.nn.Parameter(torch.zeros(1))], rate=0.1)
    other.load_state_dict(sophia.state_dict())
    assert other.steps == sophia.steps


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="without a closure"):
        Sophia([torch.nn.Parameter(torch.zeros(1))], rate=0.1).step(lambda: 0.0)
