"""What a model is: frozen, versioned, saved as config.json beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from foundation.attention import Backend
from foundation.errors import ModelError

FORMAT = 1  # raised when a saved config.json changes meaning


@dataclass(frozen=True)
class FacetConfig:
    """One column of a token: its name, how many codes it has (0 absent, 1 unknown) and its role.

    Columns that share a `table` share their embeddings, as the members of a set do; by default each has its own.
    """

    name: str
    size: int
    role: str  # action | entity | context | outcome
    table: str = ""


@dataclass(frozen=True)
class ItemConfig:
    """The candidates: which facet holds them and what is known of them.

    codes: rows of the trainable table; codes admitted later read the row of the unknown.
    categories: (name, number of codes) of each metadata column. text_width: of the text vector, 0 without text.
    media_width: of the vectors that the user brings, side by side. semantic_ids: number of codes of each level.
    """

    facet: str
    codes: int
    categories: tuple[tuple[str, int], ...]
    text_width: int
    media_width: int = 0
    semantic_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class RepeatConfig:
    """The path by which a user's own earlier items return.

    half_lives: seconds over which an earlier meeting loses half its weight; inf counts every meeting alike.
    time_unit: seconds that count as one step (the usual gap between two groups), so that features have no unit.
    """

    half_lives: tuple[float, ...]
    time_unit: float
    width: int = 32


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the shape of a FoundationModel.

    width D, layers, heads: of the trunk. window: tokens that attention reaches back. horizons: how many next
    groups are predicted at once (multi-token prediction). targets: (facet, weight) besides the item.
    """

    facets: tuple[FacetConfig, ...]
    item: ItemConfig
    repeat: RepeatConfig
    targets: tuple[tuple[str, float], ...] = ()
    width: int = 64
    layers: int = 2
    heads: int = 2
    window: int = 256
    horizons: int = 3
    backend: Backend = Backend.BLOCKED

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ModelError(f"width {self.width} must split into {self.heads} heads of even width")
        for field in ("layers", "window", "horizons"):
            if getattr(self, field) < 1:
                raise ModelError(f"{field} must be at least 1, got {getattr(self, field)}")
        names = [facet.name for facet in self.facets]
        for name in (self.item.facet, *(name for name, _ in self.targets)):
            if name not in names:
                raise ModelError(f"facet {name!r} is not among the model's facets {names}")

    @property
    def tables(self) -> dict[str, tuple[int, ...]]:
        """Columns of `facet_TF` that read each table of embeddings, without that of the items."""
        found: dict[str, tuple[int, ...]] = {}
        for column, facet in enumerate(self.facets):
            if facet.name != self.item.facet:
                name = facet.table or facet.name
                found[name] = (*found.get(name, ()), column)
        return found

    @property
    def context(self) -> tuple[FacetConfig, ...]:
        """The facets that are known when a request is made, in the order of `Requests.context_RC`."""
        return tuple(facet for facet in self.facets if facet.role == "context")

    @property
    def context_columns(self) -> tuple[int, ...]:
        """Columns of the context facets in `facet_TF`."""
        return tuple(column for column, facet in enumerate(self.facets) if facet.role == "context")

    @property
    def item_column(self) -> int:
        """Column of the candidates in `facet_TF`."""
        return [facet.name for facet in self.facets].index(self.item.facet)

    def to_json(self) -> str:
        """One JSON object with its format number."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json`. Raises ModelError for another format, a missing or an unknown key."""
        try:
            told: dict[str, Any] = json.loads(text)
            written = told.pop("format")
            if written != FORMAT:
                raise ModelError(
                    f"config.json has format {written}, this userfm reads {FORMAT}: install a userfm that wrote it"
                )
            item = {"semantic_ids": (), **told.pop("item")}
            repeat = told.pop("repeat")
            # What a file leaves out must not become a default that may have moved since it was written.
            _see_that_whole(cls, told | {"item": item, "repeat": repeat})
            _see_that_whole(RepeatConfig, repeat)
            return cls(
                facets=tuple(FacetConfig(**facet) for facet in told.pop("facets")),
                item=ItemConfig(
                    **{
                        **item,
                        "categories": tuple(map(tuple, item["categories"])),
                        "semantic_ids": tuple(item["semantic_ids"]),
                    }
                ),
                repeat=RepeatConfig(**{**repeat, "half_lives": tuple(repeat["half_lives"])}),
                targets=tuple(map(tuple, told.pop("targets"))),
                backend=Backend(told.pop("backend")),
                **told,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"config.json can't be read ({error}): take a whole model directory") from error


def _see_that_whole(kind: type[Any], told: Mapping[str, Any]) -> None:
    for field in fields(kind):
        if field.name not in told:
            raise KeyError(field.name)
