from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foundation.config import AttentionConfig, Backend, ModelConfig, Rotary
from foundation.jagged import EventBatch, stream_of
from foundation.transformer import Trunk

SPARSE = AttentionConfig((12, 6), sinks=5, memory=2, memory_block=8, memory_reach=3, rotary=Rotary.BOTH)
SEEING = [AttentionConfig((3,)), AttentionConfig((12,)), AttentionConfig((64,)), AttentionConfig((0, 6)), SPARSE]


@pytest.mark.parametrize("attention", SEEING)
def test_the_trunk_is_the_same_with_every_backend(
    config: ModelConfig, batch: EventBatch, attention: AttentionConfig
) -> None:
    found = []
    for backend in (Backend.REFERENCE, Backend.BLOCKED):
        torch.manual_seed(0)
        trunk = Trunk(replace(config, attention=attention, backend=backend))
        x_TD = torch.randn(batch.tokens, config.width, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = trunk(x_TD, stream_of(batch))
        out[:, 0].square().sum().backward()
        found.append([out.detach(), x_TD.grad, *(weight.grad for weight in trunk.parameters())])
    for reference, other in zip(*found, strict=True):
        torch.testing.assert_close(other, reference, rtol=1e-3, atol=1e-3)


def read_by(config: ModelConfig, batch: EventBatch, first: int, last: int) -> Tensor:
    """Tokens that the states of tokens `first` to `last` depend on."""
    torch.manual_seed(0)
    x_TD = torch.randn(batch.tokens, config.width).requires_grad_()
    Trunk(config)(x_TD, stream_of(batch))[first:last, 0].sum().backward()
    assert x_TD.grad is not None
    return x_TD.grad.abs().sum(1).nonzero().squeeze(1)


def test_layers_reach_further_back_but_never_forward(config: ModelConfig, batch: EventBatch) -> None:
    token = int(batch.offset_B1[1]) - 1  # the last token of the first user
    moved = read_by(config, batch, token, token + 1)
    assert moved.max() == token
    assert moved.min() <= token - 12  # a layer sees a window of 12, two layers see further


@pytest.mark.parametrize("attention", SEEING)
def test_a_user_reads_nothing_of_another(config: ModelConfig, batch: EventBatch, attention: AttentionConfig) -> None:
    begin, end = int(batch.offset_B1[4]), int(batch.offset_B1[5])
    touched = read_by(replace(config, attention=attention), batch, begin, end)
    assert (int(touched.min()), int(touched.max())) == (begin, end - 1)


@pytest.mark.parametrize("attention", SEEING)
def test_no_group_reads_a_later_one(config: ModelConfig, batch: EventBatch, attention: AttentionConfig) -> None:
    border_G1 = stream_of(batch).border_G1
    group = len(border_G1) // 3
    touched = read_by(replace(config, attention=attention), batch, 0, int(border_G1[group]))
    assert int(touched.max()) == int(border_G1[group]) - 1


@pytest.mark.parametrize(("attention", "far"), [(AttentionConfig((12,)), False), (SPARSE, True)])
def test_memory_and_sinks_reach_the_beginning_of_a_life(
    config: ModelConfig, batch: EventBatch, attention: AttentionConfig, far: bool
) -> None:
    longest = int(batch.offset_B1.diff().argmax())
    begin, end = batch.offset_B1[longest : longest + 2].tolist()
    assert end - begin > 2 * 12
    touched = read_by(replace(config, layers=len(attention.windows), attention=attention), batch, end - 1, end)
    assert (int(touched.min()) == begin) is far


def test_the_states_of_an_earlier_layer_are_those_of_a_trunk_that_ends_there(
    config: ModelConfig, batch: EventBatch
) -> None:
    trunk, stream = Trunk(config), stream_of(batch)
    x_TD = torch.randn(batch.tokens, config.width)
    first_TD, last_TD = trunk.layers(x_TD, stream)
    assert torch.equal(trunk.norm(last_TD), trunk(x_TD, stream))
    shallow = Trunk(replace(config, layers=1))
    assert shallow.load_state_dict(trunk.state_dict(), strict=False).missing_keys == []
    assert torch.equal(trunk.norm(first_TD), shallow(x_TD, stream))


def test_a_state_mixes_the_layers_that_it_is_told_of(config: ModelConfig, batch: EventBatch) -> None:
    torch.manual_seed(0)
    mixed = Trunk(replace(config, layers=3, state_layers=(0, 2)))
    plain = Trunk(replace(config, layers=3))
    assert mixed.mix is not None
    plain.load_state_dict(mixed.state_dict(), strict=False)
    x_TD = torch.randn(batch.tokens, config.width)
    outputs = plain.layers(x_TD, stream_of(batch))
    torch.testing.assert_close(mixed(x_TD, stream_of(batch)), plain.norm((outputs[0] + outputs[2]) / 2))
    with torch.no_grad():
        mixed.mix.share_L[0] = -100.0
    torch.testing.assert_close(mixed(x_TD, stream_of(batch)), plain(x_TD, stream_of(batch)))
