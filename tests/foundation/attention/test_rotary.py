from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foundation.attention.rotary import rotate, rotations
from foundation.config import AttentionConfig, Rotary

YEAR = 365 * 86_400.0


def turned(x_THK: Tensor, place: int, time: float, config: AttentionConfig) -> Tensor:
    at = torch.tensor([place]), torch.tensor([time], dtype=torch.float64)
    return rotate(x_THK, rotations(*at, config, x_THK.shape[-1]))


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 2, 8, generator=draw, dtype=torch.float64) for _ in range(2))
    return q, k


def product(pair: tuple[Tensor, Tensor], config: AttentionConfig, *at: tuple[int, float]) -> Tensor:
    return (turned(pair[0], *at[0], config) * turned(pair[1], *at[1], config)).sum()


@pytest.mark.parametrize("rotary", list(Rotary))
def test_equal_places_and_times_turn_alike_and_only_distance_counts(
    pair: tuple[Tensor, Tensor], rotary: Rotary
) -> None:
    config = AttentionConfig(rotary=rotary, time_unit=3600.0)
    torch.testing.assert_close(product(pair, config, (7, 50.0), (7, 50.0)), (pair[0] * pair[1]).sum())
    near = product(pair, config, (6, 9_000.0), (0, 0.0))
    far = product(pair, config, (1009, 9_000.0 + 20 * YEAR), (1003, 20 * YEAR))
    torch.testing.assert_close(far, near, rtol=1e-3, atol=1e-3)
    assert not torch.isclose(near, product(pair, config, (0, 0.0), (0, 0.0)), atol=1e-3)


def test_each_kind_reads_what_it_says(pair: tuple[Tensor, Tensor]) -> None:
    here, later, behind = (3, 0.0), (3, 86_400.0), (9, 0.0)
    moved = {
        rotary: tuple(
            not torch.isclose(product(pair, AttentionConfig(rotary=rotary), other, here), (pair[0] * pair[1]).sum())
            for other in (later, behind)
        )
        for rotary in Rotary
    }
    assert moved == {Rotary.PLACE: (False, True), Rotary.TIME: (True, False), Rotary.BOTH: (True, True)}


def test_seconds_are_told_apart_after_twenty_years(pair: tuple[Tensor, Tensor]) -> None:
    config = AttentionConfig(rotary=Rotary.TIME, time_unit=1.0)
    early, late = ((0, start + 1.0) for start in (0.0, 20 * YEAR))
    found = [product(pair, config, one, (0, one[1] - 1.0)) for one in (early, late)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)
