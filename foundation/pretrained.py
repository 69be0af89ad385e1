"""A model with what belongs to it, saved to and read from a model directory (foundation/folder.py)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from foundation.alignment import UNALIGNED, Alignment
from foundation.card import grown_card
from foundation.folder import Identity, read, write
from foundation.model import FoundationModel
from foundation.space import Space
from tokenization.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Pretrained:
    """A model with what belongs to it.

    space: of the weights as they were read or last saved, unaligned. alignment: the map by which their vectors leave,
    if any. card: Markdown.
    """

    model: FoundationModel
    tokenizer: Tokenizer
    space: Space
    card: str = ""
    alignment: Alignment = UNALIGNED

    def save_pretrained(
        self, path: str | Path, learned: str = "", as_of: float | None = None, alignment: Alignment = UNALIGNED
    ) -> Pretrained:
        """Write a model directory and return what it holds; of many processes one saves.

        Weights that have changed since they were read are another space: a fingerprint of its own, version 1 until a
        store gives it one, and a lineage that ends with the space it grew from. Unchanged ones are the same space, and
        keep its alignment; changed ones are aligned to nothing, since the map was fitted to what they were.

        learned: what changed them (data, steps, ...), a paragraph of the model card. as_of: epoch seconds of the last
        event that they could learn from; None: they saw none later than before. alignment: of weights that changed, for
        whoever knows what their vectors became.
        Raises ModelError where the place holds anything else than a model, or the weights are spread over processes.
        """

        def about(fingerprint: str) -> Identity:
            if fingerprint == self.space.fingerprint:
                return Identity(self.space, self.card, self.alignment)
            moment = self.space.as_of if as_of is None else as_of
            space = Space(
                self.space.name,
                version=1,
                fingerprint=fingerprint,
                width=self.model.width,
                as_of=moment,
                lineage=(*self.space.lineage, self.space.origin),
            )
            return Identity(space, grown_card(self.model, self.tokenizer, space, learned, self.card), alignment)

        folder = write(Path(path), self.model.config, self.model.state_dict(), self.tokenizer, about)
        return replace(self, space=folder.space, card=folder.card, alignment=folder.alignment)


def load(path: Path) -> Pretrained:
    """Read a model directory. Raises ModelError naming what is missing, torn or of another model."""
    folder = read(path)
    return Pretrained(FoundationModel.of(folder), folder.tokenizer, folder.space, folder.card, folder.alignment)


def save(
    model: FoundationModel, tokenizer: Tokenizer, path: Path, name: str, version: int, as_of: float, card: str
) -> Space:
    """Write the directory of a model that was trained from nothing and return its space. Raises ModelError."""

    def about(fingerprint: str) -> Identity:
        return Identity(Space(name, version, fingerprint, model.width, as_of), card)

    return write(path, model.config, model.state_dict(), tokenizer, about).space
