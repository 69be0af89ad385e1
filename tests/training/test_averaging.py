"""The average of a run's weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.averaging import Average


def one_weight(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    set_to(model, value)
    return model


def set_to(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)


def settled(average: Average, model: nn.Linear) -> float:
    average.settle()
    return model.weight.item()


def test_where_the_weights_began_does_not_count() -> None:
    model = one_weight(100.0)
    average = Average(model, 0.9)
    set_to(model, 3.0)
    average.follow()
    set_to(model, 7.0)
    assert settled(average, model) == 3.0


def test_a_long_run_forgets_as_the_decay_says() -> None:
    model = one_weight(0.0)
    average = Average(model, 0.5)
    for _ in range(100):
        average.follow()
    for step in (1, 2):
        set_to(model, 1.0)
        average.follow()
        assert average.state()["weights"]["weight"].item() == pytest.approx(1 - 0.5**step)


def test_weights_that_learn_are_left_alone_until_the_end() -> None:
    model = one_weight(1.0)
    average = Average(model, 0.9)
    for value in (2.0, 3.0):
        set_to(model, value)
        average.follow()
        assert model.weight.item() == value


def test_an_average_goes_on_from_its_state() -> None:
    models = one_weight(1.0), one_weight(5.0)
    first, second = (Average(model, 0.9) for model in models)
    for value in (2.0, 4.0, 9.0):
        set_to(models[0], value)
        first.follow()
    second.load(first.state())
    for model, average in zip(models, (first, second), strict=True):
        set_to(model, -1.0)
        average.follow()
    assert settled(first, models[0]) == settled(second, models[1])


def test_the_state_of_a_run_without_an_average_is_refused() -> None:
    with pytest.raises(KeyError):
        Average(one_weight(1.0), 0.9).load({})
