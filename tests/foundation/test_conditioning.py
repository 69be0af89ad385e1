from __future__ import annotations

import torch

from foundation.conditioning import Conditioning
from foundation.config import ModelConfig


def columns_of(config: ModelConfig) -> list[tuple[str, int]]:
    return [(facet.name, facet.size) for facet in config.context]


def test_it_starts_as_the_identity(config: ModelConfig) -> None:
    state = torch.randn(3, config.width)
    context = torch.ones(3, len(config.context), dtype=torch.int64)
    assert torch.equal(Conditioning(config.width, columns_of(config))(state, context), state)


def test_each_context_facet_moves_the_state_only_when_it_is_told(config: ModelConfig, shake) -> None:
    conditioning = shake(Conditioning(config.width, columns_of(config)))
    state = torch.randn(1, config.width)
    untold = torch.zeros(1, len(config.context), dtype=torch.int64)
    bare = conditioning(state, untold)
    for column in range(len(config.context)):
        told = untold.clone()
        told[0, column] = 2
        assert (conditioning(state, told) - bare).abs().max() > 1e-3
        with torch.no_grad():  # the row of "not told" is never read
            conditioning.tables[column].weight[0] = 99.0
        assert torch.equal(conditioning(state, untold), bare)


def test_a_context_admitted_after_training_reads_as_unknown(config: ModelConfig, shake) -> None:
    conditioning = shake(Conditioning(config.width, columns_of(config)))
    state = torch.randn(1, config.width)
    later, unknown = (torch.full((1, len(config.context)), code) for code in (10_000, 1))
    assert torch.equal(conditioning(state, later), conditioning(state, unknown))
