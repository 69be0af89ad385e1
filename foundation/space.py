"""The identity of one trained model's embedding space. Spaces never mix: vectors meet only with equal fingerprints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from foundation.errors import ModelError


@dataclass(frozen=True)
class Space:
    """Name, version and fingerprint of an embedding space.

    version: counts the models of one name; a store gives it on the first push, until then it is 1.
    fingerprint: sha256 hex over weights, configuration, tokenizer rules, and the vocabularies and item contents that
    the model was trained on; what they grow by later changes no existing vector, and not the fingerprint either.
    width: dimensions of a vector. metric: users and items meet by dot product.
    as_of: epoch seconds of the last event that training could read; item vectors are of that moment.
    lineage: `origin` of the spaces this one grew from, oldest first. aligned_to: `origin` of the space its vectors are
    rotated into, if any. frames: fingerprints of all spaces whose directions they share by that, oldest first.
    """

    name: str
    version: int
    fingerprint: str
    width: int
    as_of: float
    metric: Literal["dot"] = "dot"
    lineage: tuple[str, ...] = ()
    aligned_to: str | None = None
    frames: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Name and version as one word, also the folder's name in a store."""
        return f"{self.name}-v{self.version}"

    @property
    def origin(self) -> str:
        """Id and the beginning of the fingerprint: which space this is, also before a store has numbered it."""
        return f"{self.id}@{self.fingerprint[:12]}"

    def accepts(self, offered: Space) -> bool:
        """Whether what was fitted on vectors of this space, and is frozen, may be given vectors of the offered one: of
        this very space, or of a successor that is aligned to it. They still never meet in one product."""
        return self.width == offered.width and self.fingerprint in (offered.fingerprint, *offered.frames)

    def expect(self, offered: Space) -> None:
        """Raises ModelError, naming both fingerprints, where `accepts` says no."""
        if not self.accepts(offered):
            raise ModelError(
                f"this was fitted on space {self.id} with fingerprint {self.fingerprint}, the vectors are of "
                f"{offered.id} with {offered.fingerprint}, which is not aligned to it: fit it again on them, or align "
                "their model (`userfm align`)"
            )

    def to_json(self) -> str:
        """One JSON object, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json`. Raises ModelError for anything else."""
        try:
            fields: Mapping[str, Any] = json.loads(text)
            lists = {name: tuple(fields[name]) for name in ("lineage", "frames") if name in fields}
            return cls(**{**fields, **lists})
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"this is no space description ({error}): take space.json of a model directory") from error
