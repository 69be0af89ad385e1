"""Weights are read as they were saved, or refused."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch

from foundation.errors import ModelError
from foundation.weights import load_weights, save_weights


@pytest.fixture
def saved(tmp_path: Path) -> tuple[torch.nn.Linear, Path]:
    torch.manual_seed(0)
    module, path = torch.nn.Linear(5, 3), tmp_path / "head.safetensors"
    save_weights(module, path, "f" * 64)
    return module, path


def test_weights_are_read_as_they_were_saved(saved: tuple[torch.nn.Linear, Path]) -> None:
    module, path = saved
    other = torch.nn.Linear(5, 3)
    load_weights(other, path, "f" * 64)
    assert torch.equal(other.weight, module.weight)
    assert torch.equal(other.bias, module.bias)


def test_any_flipped_bit_is_refused(saved: tuple[torch.nn.Linear, Path]) -> None:
    """In the header, the checksum and the numbers; where it is not refused, it changed nothing that is read."""
    module, path = saved
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        other = torch.nn.Linear(5, 3)
        with suppress(ModelError):
            load_weights(other, path, "f" * 64)
            assert torch.equal(other.weight, module.weight), place
            assert torch.equal(other.bias, module.bias), place


def test_a_flipped_bit_of_a_weight_is_a_sentence(saved: tuple[torch.nn.Linear, Path]) -> None:
    damaged = bytearray(saved[1].read_bytes())
    damaged[-2] ^= 1
    saved[1].write_bytes(damaged)
    with pytest.raises(ModelError, match=r"head\.safetensors is damaged, or fitted on another model: fit"):
        load_weights(torch.nn.Linear(5, 3), saved[1], "f" * 64)


def test_weights_of_another_model_are_refused(saved: tuple[torch.nn.Linear, Path]) -> None:
    with pytest.raises(ModelError, match=r"head\.safetensors is damaged, or fitted on another model"):
        load_weights(torch.nn.Linear(5, 3), saved[1], "e" * 64)


def test_weights_of_another_shape_are_refused(saved: tuple[torch.nn.Linear, Path]) -> None:
    with pytest.raises(ModelError, match="does not fit this model: fit the heads again"):
        load_weights(torch.nn.Linear(5, 4), saved[1], "f" * 64)
