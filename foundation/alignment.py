"""Orthogonal maps between embedding spaces: what two trainings call by different directions, called alike.

A dot product says nothing of directions, so two trainings of one recipe agree on which vectors are near and not on
where they point; a model that was fitted on the vectors of one understands nothing of the other. The map that brings
the same entities together and keeps every dot product is a rotation, perhaps with a reflection: orthogonal Procrustes
(Schönemann, Psychometrika 31, 1966, doi:10.1007/BF02289451; between embeddings Smith et al., arXiv:1702.03859). It has
no shift, which would change products of users and items, and no scale, which it can only report.

Bands (`bands.py`) stay usable alone where the map is block-diagonal over the widths between them: then the first
dimensions stay among themselves. Dimensions behind all blocks keep their meaning and are not touched: the last one
of a vector is popularity.

Shapes: N vectors of width D, whose first W = sum(widths) dimensions are rotated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from foundation.errors import ModelError
from foundation.space import Space

FILE = "alignment.safetensors"
ORTHOGONAL = 1e-4  # most that an entry of a block times its transpose may differ from the identity


@dataclass(frozen=True, eq=False)  # tensors have no one equality; spaces have, by their fingerprints
class Alignment:
    """A map out of a model's own space into that of another; without blocks it changes nothing.

    blocks: orthogonal float32 [b, b], one behind the other. aligned_to: `origin` of the other space. frames:
    fingerprints of all spaces whose directions the mapped vectors share, oldest first: the other one, and those that it
    was aligned to.
    """

    blocks: tuple[Tensor, ...] = ()
    aligned_to: str | None = None
    frames: tuple[str, ...] = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the blocks."""
        return tuple(len(block) for block in self.blocks)

    def __call__(self, vectors_ND: Tensor) -> Tensor:
        """float [N, D] in the other space's directions; their dot products are what they were."""
        width = sum(self.widths)
        if width > vectors_ND.shape[1]:
            raise ModelError(f"this map is for vectors of at least {width} dimensions, got {vectors_ND.shape[1]}")
        if not self.blocks:
            return vectors_ND
        parts = torch.split(vectors_ND[:, :width], list(self.widths), dim=1)
        mapped = [part_NB @ block.to(part_NB) for part_NB, block in zip(parts, self.blocks, strict=True)]
        return torch.cat([*mapped, vectors_ND[:, width:]], dim=1)

    def inverse(self) -> Alignment:
        """The way back, for vectors that come in the other space's directions; it belongs to no space."""
        return Alignment(tuple(block.T.contiguous() for block in self.blocks))

    def space(self, unaligned: Space) -> Space:
        """The space of the mapped vectors: a fingerprint over the model's own and this map."""
        if not self.blocks:
            return unaligned
        digest = hashlib.sha256(unaligned.fingerprint.encode())
        digest.update(json.dumps([self.widths, self.aligned_to, self.frames]).encode())
        for block in self.blocks:
            digest.update(block.numpy().astype("<f4").tobytes())
        return replace(unaligned, fingerprint=digest.hexdigest(), aligned_to=self.aligned_to, frames=self.frames)

    def save(self, folder: Path) -> None:
        """Write `alignment.safetensors`; nothing where this maps nothing."""
        if self.blocks:
            told = json.dumps({"aligned_to": self.aligned_to, "frames": self.frames})
            blocks = {f"band.{number}": block.contiguous() for number, block in enumerate(self.blocks)}
            save_file(blocks, folder / FILE, metadata={"told": told})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; where there is no file, what maps nothing. Raises ModelError."""
        path = folder / FILE
        if not path.exists():
            return cls()
        try:
            with safe_open(path, framework="pt") as file:
                told = json.loads(file.metadata()["told"])
                names = sorted(file.keys(), key=lambda name: int(name.removeprefix("band.")))
                blocks = tuple(file.get_tensor(name) for name in names)
            return cls(blocks, told["aligned_to"], tuple(told["frames"]))
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{path} can't be read as an alignment: copy the whole folder again") from error


UNALIGNED = Alignment()


@dataclass(frozen=True)
class Shared:
    """The same entities in two spaces: source_ND of the one to be mapped, target_ND of the other; weight_N of each when
    the map is fitted."""

    source_ND: Tensor
    target_ND: Tensor
    weight_N: Tensor

    def __post_init__(self) -> None:
        if self.source_ND.shape != self.target_ND.shape:
            here, there = tuple(self.source_ND.shape), tuple(self.target_ND.shape)
            raise ModelError(f"vectors of shape {here} can't be mapped onto {there}: give the same entities and widths")
        if self.weight_N.shape != self.source_ND.shape[:1]:
            raise ModelError(f"{len(self.source_ND)} entities need a weight each, got {tuple(self.weight_N.shape)}")


def together(kinds: Sequence[Shared]) -> Shared:
    """Users and items, say, as one, each kind with the same total weight however many it has."""
    weights = [kind.weight_N.double() / kind.weight_N.sum().clamp(min=1e-12) for kind in kinds]
    sources, targets = [kind.source_ND for kind in kinds], [kind.target_ND for kind in kinds]
    return Shared(torch.cat(sources), torch.cat(targets), torch.cat(weights))


def fit_blocks(shared: Shared, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """Orthogonal float32 blocks that give the greatest weighted mean cosine of the entities with themselves.

    Rows count by direction, not by length, else a few long vectors would decide. widths: of the blocks; they may
    cover less than the vectors. Raises ModelError where there are fewer entities than dimensions in a block.
    """
    _check_widths(widths, shared.source_ND.shape[1])
    weighty = int((shared.weight_N > 0).sum())
    if weighty < max(widths):
        raise ModelError(f"{weighty} shared entities can't fix {max(widths)} directions: share more users or items")
    source, target = (_directions(vectors_ND, sum(widths)) for vectors_ND in (shared.source_ND, shared.target_ND))
    weighted_NW = source * shared.weight_N.double()[:, None]
    sides = (torch.split(side_NW, list(widths), dim=1) for side_NW in (weighted_NW, target))
    parts = zip(*sides, strict=True)
    return tuple(_nearest_orthogonal(source_NB.T @ target_NB) for source_NB, target_NB in parts)


def cosines(one_ND: Tensor, other_ND: Tensor, width: int) -> Tensor:
    """float64 [N] cosine of each row with the same row of the other, over the first `width` dimensions."""
    return (_directions(one_ND, width) * _directions(other_ND, width)).sum(1)


def scale(one_ND: Tensor, other_ND: Tensor, width: int) -> float:
    """Median length of the other's rows by that of the one's, over the first `width` dimensions: what no orthogonal map
    can change, and a downstream model may notice."""
    lengths = [vectors_ND[:, :width].double().norm(dim=1).median() for vectors_ND in (other_ND, one_ND)]
    return float(lengths[0] / lengths[1].clamp(min=1e-12))


def check_orthogonal(blocks: Sequence[Tensor]) -> None:
    """Raises ModelError where a block would change a dot product."""
    for number, block in enumerate(blocks):
        off = float((block.double() @ block.double().T - torch.eye(len(block), dtype=torch.float64)).abs().max())
        if not off <= ORTHOGONAL:
            raise ModelError(f"block {number} of this map is not orthogonal ({off:.1g} off): fit the alignment again")


def _check_widths(widths: Sequence[int], width: int) -> None:
    if not widths or min(widths) < 1 or sum(widths) > width:
        raise ModelError(f"widths {tuple(widths)} must be whole numbers from 1 that make at most {width} together")


def _directions(vectors_ND: Tensor, width: int) -> Tensor:
    kept_NW = vectors_ND[:, :width].double()
    directions_NW: Tensor = kept_NW / kept_NW.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return directions_NW


def _nearest_orthogonal(product_BB: Tensor) -> Tensor:
    left_BB, _, right_BB = torch.linalg.svd(product_BB)
    nearest_BB: Tensor = (left_BB @ right_BB).float()
    return nearest_BB
