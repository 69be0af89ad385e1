"""A model directory: everything that is needed to encode a user, in files that run no code when read.

config.json             the shape of the model (foundation/config.py)
model.safetensors       its weights
space.json              the identity of the embedding space in which its vectors leave
alignment.safetensors   the map into the directions of an earlier space, if it is aligned (foundation/alignment.py)
tokenizer/              the tokenizer that it was trained with, item contents included
heads/                  thin heads, if any were fitted
README.md               the model card

It is written beside its place and moved there when it is whole, so that no crash leaves half a model.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from foundation.alignment import FILE as ALIGNMENT
from foundation.alignment import UNALIGNED, Alignment, check_orthogonal
from foundation.config import ModelConfig
from foundation.errors import ModelError
from foundation.space import Space
from tokenization.disk import sync
from tokenization.items.content import ItemTable
from tokenization.tokenizer.tokenizer import Tokenizer

NEEDED = ("config.json", "model.safetensors", "space.json", "tokenizer")
NAMES = frozenset({*NEEDED, ALIGNMENT, "heads", "README.md"})


@dataclass(frozen=True)
class Folder:
    """What a model directory holds, before a model is built of it.

    space: of the weights as they are, unaligned; alignment: the map by which vectors leave, if any. card: Markdown, ""
    where there is none.
    """

    config: ModelConfig
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    space: Space
    card: str
    alignment: Alignment = UNALIGNED


@dataclass(frozen=True)
class Identity:
    """Which model some weights are: their own space, the map by which vectors leave it, and a card."""

    space: Space
    card: str
    alignment: Alignment = UNALIGNED


About = Callable[[str], Identity]
"""What a fingerprint makes of weights."""


def read(path: Path) -> Folder:
    """Read a model directory. Raises ModelError naming the file that is missing, torn or of another model."""
    for name in NEEDED:
        if not (path / name).exists():
            raise ModelError(f"{path} is no model directory, {name} is missing: give the `model` folder of a run")
    config = ModelConfig.from_json((path / "config.json").read_text())
    space = Space.from_json((path / "space.json").read_text())
    tokenizer = Tokenizer.load(path / "tokenizer")
    alignment = Alignment.load(path)
    unaligned = replace(space, fingerprint=fingerprint(path, tokenizer, config), aligned_to=None, frames=())
    if alignment.space(unaligned) != space:
        raise ModelError(f"{path} is not the model that space.json describes: copy the whole folder again")
    try:
        weights = load_file(path / "model.safetensors")
    except SafetensorError as error:
        raise ModelError(f"the weights in {path} can't be read: copy the whole folder again") from error
    card = path / "README.md"
    told = card.read_text(encoding="utf-8") if card.exists() else ""
    return Folder(config, weights, tokenizer, unaligned, told, alignment)


def write(path: Path, config: ModelConfig, weights: Mapping[str, Tensor], tokenizer: Tokenizer, about: About) -> Folder:
    """Write a model directory and return what it holds. Weights are kept in float32.

    A model directory that is there already is replaced as a whole, its heads with it: they were fitted on other
    weights. Raises ModelError where the place holds anything else, or the weights are spread over processes.
    """
    kept = {name: _kept(name, value) for name, value in weights.items()}
    with _replaced(path) as fresh:
        save_file(kept, fresh / "model.safetensors")
        (fresh / "config.json").write_text(config.to_json())
        tokenizer.without_waiting().save(fresh / "tokenizer")
        identity = about(fingerprint(fresh, tokenizer, config))
        _identify(fresh, identity)
    return Folder(config, kept, tokenizer, identity.space, identity.card, identity.alignment)


def identify(path: Path, identity: Identity) -> Space:
    """Give a model directory another map or card, all else as it is, heads included: they read unaligned states.

    Returns the space in which its vectors leave from now on. Raises ModelError where the map would change a dot
    product, or the identity is of other weights.
    """
    check_orthogonal(identity.alignment.blocks)
    held = read(path)
    if held.space.fingerprint != identity.space.fingerprint:
        raise ModelError(f"{path} holds {held.space.origin}, not {identity.space.origin}: align each model by itself")
    with _replaced(path) as fresh:
        shutil.copytree(path, fresh, dirs_exist_ok=True)
        (fresh / ALIGNMENT).unlink(missing_ok=True)
        _identify(fresh, identity)
    return identity.alignment.space(identity.space)


def _identify(folder: Path, identity: Identity) -> None:
    identity.alignment.save(folder)
    (folder / "space.json").write_text(identity.alignment.space(identity.space).to_json())
    (folder / "README.md").write_text(identity.card, encoding="utf-8")


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


def _kept(name: str, value: Tensor) -> Tensor:
    if hasattr(value, "full_tensor"):  # a DTensor, told by what it can do: nothing here knows of processes
        raise ModelError(
            f"the weight {name!r} is spread over processes: gather all of them into a Subgraph of one process and save "
            "that (get_model_state_dict of torch.distributed.checkpoint.state_dict, full_state_dict=True)"
        )
    whole = value.detach().cpu()
    return (whole.float() if whole.is_floating_point() else whole).contiguous()


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of `path` once everything in it is on disk."""
    strange = sorted(entry.name for entry in path.iterdir() if entry.name not in NAMES) if path.exists() else []
    if strange:
        raise ModelError(f"{path} holds {strange[0]!r}, which is no part of a model: save into a folder of its own")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (path.with_name(f".{path.name}.{state}") for state in ("fresh", "old"))
    for left in (fresh, old):  # by a crash
        shutil.rmtree(left, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        for written in (*fresh.rglob("*"), fresh):
            sync(written)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if path.exists():
        path.rename(old)
    fresh.rename(path)
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)
