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
    lineage: `origin` of the spaces this one grew from, oldest first. aligned_to: id of the space its vectors are
    rotated into, if any.
    """

    name: str
    version: int
    fingerprint: str
    width: int
    as_of: float
    metric: Literal["dot"] = "dot"
    lineage: tuple[str, ...] = ()
    aligned_to: str | None = None

    @property
    def id(self) -> str:
        """Name and version as one word, also the folder's name in a store."""
        return f"{self.name}-v{self.version}"

    @property
    def origin(self) -> str:
        """Id and the beginning of the fingerprint: which space this is, also before a store has numbered it."""
        return f"{self.id}@{self.fingerprint[:12]}"

    def to_json(self) -> str:
        """One JSON object, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json`. Raises ModelError for anything else."""
        try:
            fields: Mapping[str, Any] = json.loads(text)
            return cls(**{**fields, "lineage": tuple(fields["lineage"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"this is no space description ({error}): take space.json of a model directory") from error
