"""Semantic IDs by an autoencoder: residual codebooks in a narrow space that is learned together with them.

RQ-VAE (Zeghidour et al., SoundStream, arXiv:2107.03312; for items Rajput et al., TIGER, arXiv:2305.05065). Training
takes torch and vector-quantize-pytorch, both imported late; encoding takes numpy, and is exact as in `semantic_ids`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tokenization.arrays import Codes, Floats, Vectors
from tokenization.errors import VocabularyError
from tokenization.items.grid import Grid, bound_of
from tokenization.items.semantic_ids import Arrays, ResidualKMeans, checked_matrix

_HIDDEN = 256
_LATENT = 64
_BATCH = 1024
_STEPS = 400
_RATE = 3e-3
_MEMORY = 0.99
_COMMITMENT = 0.25
_CHUNK = 16_384


@dataclass(frozen=True, eq=False)
class Layer:
    """x [n, i] → x · weight + bias [n, o]. bound: a power of two; a component of x beyond it is read as the bound."""

    weight: Vectors
    bias: Vectors
    bound: float

    def __call__(self, rows: Floats) -> Floats:
        """The same for a row whatever stands beside it."""
        given, weight = self._grids
        exact: Floats = given.units(rows) @ self._units * (given.step * weight.step)
        return exact + self.bias

    @cached_property
    def _grids(self) -> tuple[Grid, Grid]:
        terms = len(self.weight)
        return Grid.for_sums(self.bound, terms), Grid.for_sums(bound_of(self.weight.reshape(1, -1)), terms)

    @cached_property
    def _units(self) -> Floats:
        return self._grids[1].units(self.weight)


@dataclass(frozen=True, eq=False)
class RqVae:
    """Layers to the narrow space and back, with a ramp (ReLU) between them, and the codebooks in it."""

    encoder: tuple[Layer, ...]
    quantizer: ResidualKMeans
    decoder: tuple[Layer, ...]

    @classmethod
    def fit(cls, vectors: NDArray[Any], levels: int, codes: int, seed: int = 0) -> Self:
        """As `ResidualKMeans.fit`, but every level has `codes` centroids, and a random start decides more.

        Raises:
            SourceError, ValueError: as there.
        """
        if levels < 1 or codes < 1:
            raise ValueError(f"{levels} levels of {codes} codes make no semantic ID; take at least 1 of each")
        checked = checked_matrix(vectors)
        size = float(np.sqrt(np.mean(np.square(checked), dtype=np.float64))) if checked.any() else 1.0
        learned = _train((checked / size).astype(np.float32), levels, codes, seed)
        encoder = _bounded(_scaled(learned.encoder, before=1 / size), checked)
        latent = _through(encoder, checked)
        quantizer = ResidualKMeans.revived(learned.codebooks, latent)
        decoder = _bounded(_scaled(learned.decoder, after=size), quantizer.decode(quantizer.encode(latent)))
        return cls(encoder, quantizer, decoder)

    @property
    def levels(self) -> int:
        """Codes a vector is told in."""
        return self.quantizer.levels

    @property
    def width(self) -> int:
        """w, the number of components of a vector."""
        return len(self.encoder[0].weight)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Centroids of each level."""
        return self.quantizer.sizes

    def encode(self, vectors: NDArray[Any]) -> Codes:
        """Vectors [n, w] → codes [n, levels], from 0.

        Raises:
            SourceError: the vectors are no matrix, of another width, or hold NaN or infinity.
        """
        return self.quantizer.encode(_through(self.encoder, checked_matrix(vectors, self.width)))

    def decode(self, codes: Codes) -> Vectors:
        """Codes [n, any number of first levels] → the vectors [n, w] that they name.

        Raises:
            VocabularyError: more levels than there are, or a code that its level does not have.
        """
        return _through(self.decoder, self.quantizer.decode(codes)).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Named arrays that `from_arrays` takes."""
        return {**self.quantizer.to_arrays(), **_named("encoder", self.encoder), **_named("decoder", self.decoder)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `to_arrays` gave.

        Raises:
            VocabularyError: an array is missing.
        """
        try:
            return cls(
                tuple(_layers("encoder", arrays)), ResidualKMeans.from_arrays(arrays), tuple(_layers("decoder", arrays))
            )
        except KeyError as error:
            raise VocabularyError(f"these arrays lack {error}: take what to_arrays gave, whole") from error


@dataclass(frozen=True)
class _Learned:
    """Weights [i, o] and biases [o] of either side, and the codebooks [codes, latent] of every level."""

    encoder: list[tuple[Vectors, Vectors]]
    decoder: list[tuple[Vectors, Vectors]]
    codebooks: list[Vectors]


def _train(vectors: Vectors, levels: int, codes: int, seed: int) -> _Learned:
    """Adam on random batches; the caller's own random numbers stay what they were."""
    import torch
    from torch import nn
    from vector_quantize_pytorch import ResidualVQ

    width = vectors.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _LATENT))
        decoder = nn.Sequential(nn.Linear(_LATENT, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, width))
        quantizer = ResidualVQ(
            dim=_LATENT,
            num_quantizers=levels,
            codebook_size=codes,
            kmeans_init=True,
            threshold_ema_dead_code=2,
            decay=_MEMORY,
            rotation_trick=False,  # twice the time a step, and no less error on product texts
            commitment_weight=_COMMITMENT,
        )
        optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=_RATE)
        slower = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, _STEPS)
        rows = torch.from_numpy(vectors)
        for _ in range(_STEPS if len(rows) else 0):
            batch = rows[torch.randint(len(rows), (_BATCH,))]
            quantized, _, commitment = quantizer(encoder(batch)[None])
            loss = nn.functional.mse_loss(decoder(quantized[0]), batch) + commitment.sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            slower.step()
        codebooks = quantizer.codebooks.detach().numpy()
    return _Learned(_weights(encoder), _weights(decoder), list(codebooks))


def _weights(side: Iterable[Any]) -> list[tuple[Vectors, Vectors]]:
    """Of torch's linear layers, each [i, o] and [o]."""
    linear = [layer for layer in side if hasattr(layer, "weight")]
    return [(layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()) for layer in linear]


def _scaled(
    layers: Sequence[tuple[Vectors, Vectors]], before: float = 1.0, after: float = 1.0
) -> list[tuple[Vectors, Vectors]]:
    """Layers that take in what is scaled by `before`, and give out what is scaled by `after`."""
    scaled = list(layers)
    scaled[0] = (scaled[0][0] * np.float32(before), scaled[0][1])
    scaled[-1] = (scaled[-1][0] * np.float32(after), scaled[-1][1] * np.float32(after))
    return scaled


def _bounded(layers: Sequence[tuple[Vectors, Vectors]], rows: NDArray[Any]) -> tuple[Layer, ...]:
    """Layers with the bounds of what reaches them from these rows."""
    bounded: tuple[Layer, ...] = ()
    for weight, bias in layers:
        reaching = np.maximum(_through(bounded, rows), 0) if bounded else rows
        bounded = (*bounded, Layer(weight, bias, bound_of(reaching)))
    return bounded


def _through(layers: Sequence[Layer], rows: NDArray[Any]) -> Floats:
    """Rows [n, i] after all layers, [n, o]."""
    out = np.empty((len(rows), len(layers[-1].bias)))
    for begin in range(0, len(rows), _CHUNK):
        part = rows[begin : begin + _CHUNK].astype(np.float64)
        for place, layer in enumerate(layers):
            part = layer(np.maximum(part, 0) if place else part)
        out[begin : begin + _CHUNK] = part
    return out


def _named(side: str, layers: Sequence[Layer]) -> dict[str, NDArray[Any]]:
    return {
        f"{side}.{place}.{name}": array
        for place, layer in enumerate(layers)
        for name, array in (("weight", layer.weight), ("bias", layer.bias), ("bound", np.array([layer.bound])))
    }


def _layers(side: str, arrays: Arrays) -> Iterator[Layer]:
    number = sum(name.startswith(f"{side}.") and name.endswith(".weight") for name in arrays)
    for place in range(max(number, 1)):
        weight, bias, bound = (arrays[f"{side}.{place}.{name}"] for name in ("weight", "bias", "bound"))
        yield Layer(np.asarray(weight, np.float32), np.asarray(bias, np.float32), float(bound[0]))
