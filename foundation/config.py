"""What a model is: frozen, versioned, saved as config.json beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Self, TypeVar

from foundation.bands import widths_between
from foundation.errors import ModelError
from tokenization.errors import nearest

Part = TypeVar("Part")

FORMAT = 3  # raised when a saved config.json changes meaning
_SINCE: Mapping[int, Mapping[str, Any]] = {
    1: {
        "attributes": (),
        "groups": "set",
        "repeat_path": "on",
        "category_affinity": "on",
        "intents": (),
        "category_targets": (),
        "gap_bins": 0,
        "candidates": {"layers": 0, "heads": 2, "reach": 64},
    },
    2: {
        "dropout": 0.0,
        "item_gate": "off",
        "decoder": {"layers": 0},
        "bands": (),
        "state_layers": (),
        "pools": (),
        "interests": 0,
    },
}
"""What came after a format: what a file of it lacks, as it meant it."""


class Backend(StrEnum):
    """How attention is computed; all agree with REFERENCE on values and gradients (`attention/backends.py`)."""

    REFERENCE = "reference"  # one dense mask: plain, for tests and short streams
    BLOCKED = "blocked"  # blocks of queries over the keys in their reach, any device
    FLEX = "flex"  # FlexAttention: compiled for the mask; forward only on a CPU
    XFORMERS = "xformers"  # the same blocks through xformers' memory-efficient attention, CUDA only


class Rotary(StrEnum):
    """What turns queries and keys."""

    PLACE = "place"  # the ordinal of the group
    TIME = "time"  # seconds since the user's first event
    BOTH = "both"  # half of each head by one, half by the other


class Groups(StrEnum):
    """How the trunk reads the events of a group."""

    SET = "set"  # at one position, each seeing all
    SEQUENCE = "sequence"  # one after another in canonical order, each seeing those before it: to compare with


class Switch(StrEnum):
    """Whether a part of the model exists."""

    ON = "on"
    OFF = "off"


class ItemGate(StrEnum):
    """What decides how much an item's own row counts beside its content (foundation/item_age.py)."""

    OFF = "off"  # nothing: it always counts alike
    AGE = "age"  # how long the item had been met by then


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
class AttentionConfig:
    """What a token sees of its user's past, see `attention/sight.py`.

    windows: tokens that each layer reaches back, one number for all layers or one a layer; 0 = everything before.
    sinks: so many of the user's first tokens are seen from everywhere. memory: slots into which each block of
    `memory_block` tokens before the window is compressed, 0 = none; a token sees the newest `memory_reach` blocks.
    rotary: what turns queries and keys. time_unit: seconds that turn as far as one group does.
    """

    windows: tuple[int, ...] = (256,)
    sinks: int = 0
    memory: int = 0
    memory_block: int = 64
    memory_reach: int = 128
    rotary: Rotary = Rotary.PLACE
    time_unit: float = 86_400.0

    def __post_init__(self) -> None:
        for name in ("sinks", "memory"):
            if getattr(self, name) < 0:
                raise ModelError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("memory_block", "memory_reach", "time_unit"):
            if not getattr(self, name) > 0:
                raise ModelError(f"{name} must be above 0, got {getattr(self, name)}")
        if not self.windows or min(self.windows) < 0:
            raise ModelError(f"windows must be one number or one a layer, each at least 0, got {self.windows}")


@dataclass(frozen=True)
class CandidateConfig:
    """Target-aware scoring: how candidates read a user's states (foundation/candidates.py).

    layers: of attention and feed-forward; with 0 of them candidates are scored by dot product, repeat path and
    affinity alone. heads: of each layer. reach: tokens of the history that candidates read, at most.
    """

    layers: int = 0
    heads: int = 2
    reach: int = 64


@dataclass(frozen=True)
class DecoderConfig:
    """Generative retrieval: the decoder of semantic IDs (foundation/decoder.py). layers: of its GRU; 0 = none."""

    layers: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the shape of a FoundationModel.

    width D, layers, heads: of the trunk. horizons: how many next groups are predicted at once (multi-token prediction).
    targets: (facet, weight) besides the item. attributes: (name, number of codes) of what is known of users. groups:
    how events of one group are read. repeat_path: whether own items return by a score of their own, `repeat`; off in
    domains that do not repeat. category_affinity: whether items gain by how much of their categories a user takes.

    Off by default: intents, names of target facets or item categories that lead to the item (`foundation.intents`).
    category_targets: item categories that are predicted of the next groups. gap_bins: so many bins in which the time
    until the next group is predicted. dropout: share of what tokens say, and of what each layer adds, that training
    hides at random (Srivastava et al., JMLR 2014); for logs that are passed over many times. item_gate: whether an
    item's own row counts by its age. bands: numbers of first dimensions of stored vectors that are learned to be usable
    alone (`foundation.bands`).

    state_layers: layers of the trunk, from 0, of whose outputs a state is a learned mixture; the last alone where none
    is named. pools: numbers of last tokens, short and long, over which states are averaged beside the newest.
    interests: so many vectors of a user beside the stored one, of which each is to find something else
    (`foundation.pooling`).
    """

    facets: tuple[FacetConfig, ...]
    item: ItemConfig
    repeat: RepeatConfig
    targets: tuple[tuple[str, float], ...] = ()
    width: int = 64
    layers: int = 2
    heads: int = 2
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    horizons: int = 3
    backend: Backend = Backend.BLOCKED
    attributes: tuple[tuple[str, int], ...] = ()
    groups: Groups = Groups.SET
    repeat_path: Switch = Switch.ON
    category_affinity: Switch = Switch.ON
    intents: tuple[str, ...] = ()
    category_targets: tuple[str, ...] = ()
    gap_bins: int = 0
    candidates: CandidateConfig = CandidateConfig()
    dropout: float = 0.0
    item_gate: ItemGate = ItemGate.OFF
    decoder: DecoderConfig = DecoderConfig()
    bands: tuple[int, ...] = ()
    state_layers: tuple[int, ...] = ()
    pools: tuple[int, ...] = ()
    interests: int = 0

    def __post_init__(self) -> None:
        widths_between(self.bands, self.width)
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout is a share, from 0 to below 1, got {self.dropout}")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ModelError(f"width {self.width} must split into {self.heads} heads of even width")
        for name in ("layers", "horizons"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, got {getattr(self, name)}")
        if len(self.attention.windows) not in (1, self.layers):
            raise ModelError(f"{self.layers} layers take one window or {self.layers}, got {self.attention.windows}")
        names = [facet.name for facet in self.facets]
        for name in (self.item.facet, *(name for name, _ in self.targets)):
            if name not in names:
                raise ModelError(f"facet {name!r} is not among the model's facets {names}")
        _see_that_known("category target", self.category_targets, [name for name, _ in self.item.categories])
        _see_that_known("intent", self.intents, list(self._intended))
        if self.gap_bins < 0 or self.gap_bins == 1:
            raise ModelError(f"gap_bins must be 0, for none, or at least 2, got {self.gap_bins}")
        if self.candidates.layers:
            self._check_candidates()
        self._check_user()
        if self.decoder.layers < 0:
            raise ModelError(f"decoder: layers must be at least 0, got {self.decoder.layers}")
        if self.decoder.layers and not self.item.semantic_ids:
            raise ModelError(
                "decoder: items have no semantic IDs to decode; declare `semantic_ids` in the schema's items"
            )

    def _check_user(self) -> None:
        read = self.state_layers
        if read and (list(read) != sorted(set(read)) or read[0] < 0 or read[-1] != self.layers - 1):
            raise ModelError(
                f"state_layers ascend from 0 and end with the last of {self.layers} layers, {self.layers - 1}, got "
                f"{read}: a layer that no state reads would learn nothing"
            )
        if min(self.pools, default=1) < 1 or len(set(self.pools)) < len(self.pools):
            raise ModelError(f"pools are different numbers of tokens, each at least 1, got {self.pools}")
        if self.interests < 0 or self.interests == 1:
            raise ModelError(f"interests must be 0, for none, or at least 2, got {self.interests}")

    def _check_candidates(self) -> None:
        told = self.candidates
        if told.layers < 0 or told.reach < 1 or told.heads < 1:
            raise ModelError(f"candidates: layers must be at least 0, heads and reach at least 1, got {told}")
        if self.width % told.heads:
            raise ModelError(f"width {self.width} must split into the {told.heads} heads of candidates.heads")

    @property
    def _intended(self) -> dict[str, int]:
        """What may be an intent, with its number of codes; a target facet goes before a category of its name."""
        sizes = {facet.name: facet.size for facet in self.facets}
        return dict(self.item.categories) | {name: sizes[name] for name, _ in self.targets}

    @property
    def intent_sizes(self) -> tuple[tuple[str, int], ...]:
        """The intents, each with its number of codes."""
        return tuple((name, self._intended[name]) for name in self.intents)

    @property
    def windows(self) -> tuple[int, ...]:
        """The window of each layer."""
        return self.attention.windows * (self.layers // len(self.attention.windows))

    @property
    def facet_names(self) -> tuple[str, ...]:
        """The columns of `facet_TF`."""
        return tuple(facet.name for facet in self.facets)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The columns of `attribute_BA`."""
        return tuple(name for name, _ in self.attributes)

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
        """Read `to_json`, of this format or an older one. Raises ModelError for anything else."""
        try:
            told: dict[str, Any] = json.loads(text)
            written = told.pop("format")
            if written not in range(1, FORMAT + 1):
                raise ModelError(
                    f"config.json has format {written}, this userfm reads {FORMAT}: install a userfm that wrote it"
                )
            if written == 1:
                told = _from_first_format(told)
            for earlier in range(written, FORMAT):
                told = {**_SINCE[earlier], **told}
            # What a file leaves out must not become a default that may have moved since it was written.
            _see_that_whole(cls, told)
            attention = _whole(AttentionConfig, told.pop("attention"))
            return cls(
                facets=tuple(FacetConfig(**facet) for facet in told.pop("facets")),
                item=_whole(ItemConfig, told.pop("item")),
                repeat=_whole(RepeatConfig, told.pop("repeat")),
                attention=replace(attention, rotary=Rotary(attention.rotary)),
                candidates=_whole(CandidateConfig, told.pop("candidates")),
                decoder=_whole(DecoderConfig, told.pop("decoder")),
                backend=Backend(told.pop("backend")),
                groups=Groups(told.pop("groups")),
                repeat_path=Switch(told.pop("repeat_path")),
                category_affinity=Switch(told.pop("category_affinity")),
                item_gate=ItemGate(told.pop("item_gate")),
                **_tuples(told),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"config.json can't be read ({error}): take a whole model directory") from error


def _from_first_format(told: dict[str, Any]) -> dict[str, Any]:
    """As it would be written now: one window for all layers, and nothing of what came later."""
    without = {"windows": [told["window"]], "sinks": 0, "memory": 0, "memory_block": 64, "memory_reach": 128}
    attention = {**without, "rotary": "place", "time_unit": 86_400.0}
    kept = {name: value for name, value in told.items() if name != "window"}
    return {**kept, "item": {"semantic_ids": (), **told["item"]}, "attention": attention}


def _tuples(value: Any) -> Any:
    """What JSON has as lists, as tuples."""
    if isinstance(value, dict):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(_tuples(one) for one in value) if isinstance(value, list | tuple) else value


def _whole(kind: type[Part], told: Mapping[str, Any]) -> Part:
    _see_that_whole(kind, told)
    return kind(**_tuples(told))


def _see_that_whole(kind: type[Any], told: Mapping[str, Any]) -> None:
    for one in fields(kind):
        if one.name not in told:
            raise KeyError(one.name)


def _see_that_known(what: str, names: tuple[str, ...], known: list[str]) -> None:
    for name in names:
        if name not in known:
            raise ModelError(f"{what} {name!r} is unknown; {nearest(name, known)}")
        if names.count(name) > 1:
            raise ModelError(f"{what} {name!r} is listed twice; list it once")
