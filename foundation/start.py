"""First weights that every training of one business has in common.

Two trainings that start alike and see the same log end nearly alike, direction by direction; two that start apart end
with vectors that no rotation brings together, since much of what tells items apart is as good by one code as by
another (docs/log.md). So weights are drawn by what they are of and not by a run's seed: a weight by its name, a row of
the item table by the item's id, any other row by its number, which grows at the end. More items, stores or categories,
met in another order, turn no other row; how wide a draw is, is estimated, and moves by a little. Runs that start alike
stay connected: Frankle et al., arXiv:1912.05671.

Numbers are those of splitmix64 (Steele et al., doi:10.1145/2660193.2660195), one counter a weight, by way of Box and
Muller.

Shapes: V item codes, R rows of a weight, N numbers in a row.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from foundation.config import ModelConfig
from foundation.embedding import ItemContent
from foundation.model import FoundationModel
from tokenization.hashing import mixed

Keys = NDArray[np.uint64]
ITEM_ROWS = "tower.id.weight"
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def shared_start(config: ModelConfig, content: ItemContent, item_ids: pa.Array) -> FoundationModel:
    """A new model whose weights depend on no seed, as wide in their spread as those that a seed draws.

    item_ids: [V] of all item codes, null where a code has none.
    """
    model, twin = _seeded(config, content, 0), _seeded(config, content, 1)
    others = dict(twin.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = weight != others[name]  # what two seeds agree on is no draw: zeros, ones, popularity
            if not bool(drawn.any()):
                continue
            spread = float((weight - others[name])[drawn].double().square().mean().div(2).sqrt())
            key_R = keys_of(item_ids) if name == ITEM_ROWS else np.arange(len(weight), dtype=np.uint64)
            noise = torch.from_numpy(normal(name, key_R[: len(weight)], weight[0].numel())).reshape(weight.shape)
            weight.copy_(torch.where(drawn, noise * spread, weight))
    return model


def keys_of(ids: pa.Array) -> Keys:
    """uint64 [V]: a number for each id, the same in every process; 0 where there is none."""
    texts = ids.cast(pa.large_string()).to_pylist()
    digests = [b"\0" * 8 if text is None else hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def normal(name: str, key_R: Keys, numbers: int) -> NDArray[np.float32]:
    """float32 [R, N] standard normal numbers: a row by the name and its own key alone."""
    stream = np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), dtype="<u8")
    counter_N = np.arange(2 * numbers, dtype=np.uint64) * _GOLDEN
    with np.errstate(over="ignore"):
        counter_RN = mixed(mixed(key_R + _GOLDEN)[:, None] ^ stream) + counter_N
        uniform_RN = (mixed(counter_RN) >> np.uint64(11)).astype(np.float64) / 2.0**53
    radius_RN = np.sqrt(-2.0 * np.log1p(-uniform_RN[:, :numbers]))
    return np.asarray(radius_RN * np.cos(2.0 * np.pi * uniform_RN[:, numbers:]), dtype=np.float32)


def _seeded(config: ModelConfig, content: ItemContent, seed: int) -> FoundationModel:
    torch.manual_seed(seed)
    return FoundationModel(config, content)
