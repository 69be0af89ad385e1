"""A model directory: everything that is needed to encode a user, in files that run no code when read.

config.json         the shape of the model (foundation/config.py)
model.safetensors   its weights
space.json          the identity of its embedding space
tokenizer/          the tokenizer that it was trained with, item contents included
heads/              thin heads, if any were fitted
README.md           the model card
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from foundation.config import ModelConfig
from foundation.embedding import ItemContent
from foundation.errors import ModelError
from foundation.model import FoundationModel
from foundation.space import Space
from tokenization.items.content import ItemTable
from tokenization.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Pretrained:
    """A model with what belongs to it."""

    model: FoundationModel
    tokenizer: Tokenizer
    space: Space


def item_content(items: ItemTable, recent_V: Tensor | None = None) -> ItemContent:
    """What the tokenizer knows of every item. recent_V: as in ItemContent, for a new model."""
    codes = len(items)
    columns = [torch.from_numpy(column.astype(np.int64)) for column in items.categories.values()]
    return ItemContent(
        category_VC=torch.stack(columns, dim=1) if columns else torch.zeros(codes, 0, dtype=torch.int64),
        text_UX=torch.from_numpy(np.array(items.distinct_vectors, dtype=np.float32)),
        text_row_V=torch.from_numpy(items.text_of.astype(np.int64)),
        recent_V=torch.zeros(codes) if recent_V is None else recent_V,
        media_VM=_side_by_side([torch.from_numpy(np.array(matrix)) for matrix in items.media.values()], codes),
        semantic_VL=_semantic_ids(items, codes),
    )


def _side_by_side(matrices: Sequence[Tensor], rows: int) -> Tensor:
    return torch.cat(list(matrices), dim=1) if matrices else torch.zeros(rows, 0)


def _semantic_ids(items: ItemTable, rows: int) -> Tensor:
    if items.semantic is None:
        return torch.zeros(rows, 0, dtype=torch.int64)
    return torch.from_numpy(items.semantic.embedded.astype(np.int64))


def save(
    model: FoundationModel,
    tokenizer: Tokenizer,
    path: Path,
    name: str,
    version: int,
    as_of: float,
    card: str,
    lineage: Sequence[str] = (),
) -> Space:
    """Write a model directory; returns the space whose fingerprint covers weights, config, tokenizer and items."""
    path.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    save_file(weights, path / "model.safetensors")
    (path / "config.json").write_text(model.config.to_json())
    tokenizer.without_waiting().save(path / "tokenizer")
    space = Space(name, version, fingerprint(path, tokenizer, model.config), model.width, as_of, lineage=tuple(lineage))
    (path / "space.json").write_text(space.to_json())
    (path / "README.md").write_text(card)
    return space


def load(path: Path) -> Pretrained:
    """Read a model directory. Raises ModelError naming the file that is missing, torn or of another model."""
    for name in ("config.json", "model.safetensors", "space.json", "tokenizer"):
        if not (path / name).exists():
            raise ModelError(f"{path} is no model directory, {name} is missing: give the `model` folder of a run")
    config = ModelConfig.from_json((path / "config.json").read_text())
    space = Space.from_json((path / "space.json").read_text())
    tokenizer = Tokenizer.load(path / "tokenizer")
    if fingerprint(path, tokenizer, config) != space.fingerprint:
        raise ModelError(f"{path} is not the model that space.json describes: copy the whole folder again")
    model = FoundationModel(config, item_content(tokenizer.items))
    try:
        model.load_state_dict(load_file(path / "model.safetensors"))
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"the weights in {path} don't fit its config.json: copy the whole folder again") from error
    return Pretrained(model.eval(), tokenizer, space)


def fingerprint(path: Path, tokenizer: Tokenizer, config: ModelConfig) -> str:
    """sha256 hex over config.json, the weights, the tokenizer as far as the model was trained on its vocabularies, and
    what is known of the trained items: everything that an existing vector depends on, and nothing that grew since.

    Raises VocabularyError where the tokenizer's vocabularies are shorter than those that the model was trained on.
    """
    digest = hashlib.sha256(tokenizer.prefix_fingerprint(_trained_sizes(config)).encode())
    for name in ("config.json", "model.safetensors"):
        digest.update((path / name).read_bytes())
    for part in _content(tokenizer.items, config.item.codes):
        digest.update(part.tobytes())
    return digest.hexdigest()


def _trained_sizes(config: ModelConfig) -> dict[str, int]:
    """How many codes each vocabulary had in training, as `Tokenizer.prefix_fingerprint` takes them."""
    facets = {facet.name: facet.size for facet in config.facets}
    categories = {f"item.{name}": size for name, size in config.item.categories}
    attributes = {f"user.{name}": size for name, size in config.attributes}
    return facets | {config.item.facet: config.item.codes} | categories | attributes


def _content(items: ItemTable, codes: int) -> Iterator[np.ndarray]:
    """Categories, texts, media and semantic IDs of the first `codes` items. Texts are counted as they first appear: how
    the table numbers them may change when it grows."""
    for column in items.categories.values():
        yield column[:codes].astype("<i4")
    _, first_U, text_V = np.unique(items.text_of[:codes], return_index=True, return_inverse=True)
    place_U = np.argsort(np.argsort(first_U))
    yield place_U[text_V].astype("<i4")
    yield items.distinct_vectors[items.text_of[np.sort(first_U)]].astype("<f4")
    for matrix in items.media.values():
        yield matrix[:codes].astype("<f4")
    if items.semantic is not None:
        yield items.semantic.embedded[:codes].astype("<i4")
