"""The weights of a small module in one file that knows its own checksum, and the model that it was fitted on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foundation.errors import ModelError

_SEAL = "seal"


def save_weights(module: nn.Module, path: Path, fingerprint: str) -> None:
    """Write a module's weights as safetensors, sealed for the model with this fingerprint."""
    weights = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    save_file(weights, path, metadata={_SEAL: _seal(weights, fingerprint)})


def load_weights(module: nn.Module, path: Path, fingerprint: str) -> None:
    """Read what `save_weights` wrote into a module.

    Raises ModelError where a bit of it has changed, or where it was fitted on a model with another fingerprint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            sealed = (file.metadata() or {}).get(_SEAL)
            names = file.keys()
            weights = {name: file.get_tensor(name) for name in names}
        if sealed != _seal(weights, fingerprint):
            raise ModelError(f"{path} is damaged, or fitted on another model: fit the heads again")
        module.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path} does not fit this model: fit the heads again") from error


def _seal(weights: Mapping[str, Tensor], fingerprint: str) -> str:
    """sha256 hex over the model's fingerprint and the names, shapes, types and bytes of the weights."""
    digest = hashlib.sha256(fingerprint.encode())
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
