from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foundation.attention import Backend, group_windows
from foundation.config import ModelConfig
from foundation.jagged import EventBatch
from foundation.transformer import Trunk


@pytest.mark.parametrize("window", [3, 12, 64])
def test_the_trunk_is_the_same_with_every_backend(config: ModelConfig, batch: EventBatch, window: int) -> None:
    found = []
    for backend in Backend:
        torch.manual_seed(0)
        trunk = Trunk(replace(config, backend=backend))
        x_TD = torch.randn(batch.tokens, config.width, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = trunk(x_TD, batch.group_T, group_windows(batch, window, backend))
        out[:, 0].square().sum().backward()
        found.append([out.detach(), x_TD.grad, *(weight.grad for weight in trunk.parameters())])
    for reference, other in zip(*found, strict=True):
        torch.testing.assert_close(other, reference, rtol=1e-3, atol=1e-3)


def test_layers_reach_further_back_but_never_forward(config: ModelConfig, batch: EventBatch) -> None:
    trunk = Trunk(config)
    windows = group_windows(batch, config.window, config.backend)
    x_TD = torch.randn(batch.tokens, config.width).requires_grad_()
    token = int(batch.offset_B1[1]) - 1  # the last token of the first user
    trunk(x_TD, batch.group_T, windows)[token, 0].backward()
    assert x_TD.grad is not None
    moved = x_TD.grad.abs().sum(1).nonzero().squeeze(1)
    assert moved.max() == token
    assert moved.min() < windows.start_T[token]  # a layer sees a window, two layers see further


def test_a_user_reads_nothing_of_another(config: ModelConfig, batch: EventBatch) -> None:
    trunk = Trunk(config)
    x_TD = torch.randn(batch.tokens, config.width).requires_grad_()
    out = trunk(x_TD, batch.group_T, group_windows(batch, 64, config.backend))
    begin, end = int(batch.offset_B1[4]), int(batch.offset_B1[5])
    out[begin:end, 0].sum().backward()
    assert x_TD.grad is not None
    touched = x_TD.grad.abs().sum(1).nonzero().squeeze(1)
    assert (int(touched.min()), int(touched.max())) == (begin, end - 1)
