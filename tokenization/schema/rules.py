"""The sections of a declaration, each a frozen model that accepts no unknown key."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from tokenization.errors import with_article
from tokenization.schema.yaml_source import Mistake

Unit = Literal["s", "ms", "us", "ns"]
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


class Kind(StrEnum):
    """What the values of a declared facet are."""

    CATEGORY = "category"  # one of some hundreds of values
    ID = "id"  # one of very many; those too rare for a code of their own share hashed buckets
    NUMBER = "number"
    DURATION = "duration"  # a number of `unit`s that is never negative
    TIMESTAMP = "timestamp"  # a moment, read as its distance from the event
    TEXT = "text"  # the first words of it
    SET = "set"  # a list of categories
    VECTOR = "vector"  # a list of floats, read as the codes of its nearest centroids


class ClockFacet(StrEnum):
    """What a time says by itself. `age` is that of the event's item; the others are known when a request is made."""

    HOUR = "hour"
    WEEKDAY = "weekday"
    MONTH = "month"
    GAP = "gap"  # since the user's last complete group
    TENURE = "tenure"  # since the user's first event
    AGE = "age"  # of the item, since it was released, where the items table says when, else since anybody first met it


class Combine(StrEnum):
    """How the numbers of events that become one token become one number."""

    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"


class Late(StrEnum):
    """What becomes of an event that arrives when a later group of its user is closed."""

    QUARANTINE = "quarantine"
    NOW = "now"  # it takes effect with the newest


def _seconds(value: object) -> object:
    if isinstance(value, str) and (parts := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", value)):
        return float(parts[1]) * _SECONDS[parts[2]]
    if isinstance(value, str):
        raise ValueError(f"{value!r} is no span of time; write one such as 45s, 30m, 2h, 1d or 1w")
    return value


def _moment(value: object) -> object:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is no time; write one such as 2024-03-20 or 2024-03-20T12:00Z") from None
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return value


_WRITTEN_SPAN = r"^\s*\d+(\.\d+)?\s*[smhdw]\s*$"
_WRITTEN_MOMENT = r"^\d{4}-?(\d{1,2}|W\d{2})"
Span = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(gt=0),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": _WRITTEN_SPAN}]}
    ),
]
"""Seconds; in YAML also 45s, 30m, 2h, 1d, 1w."""
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "pattern": _WRITTEN_MOMENT})]
"""A time; a date is its midnight, and what has no zone is UTC."""


class Rule(BaseModel):
    """A section: frozen, without unknown keys."""

    # The line below a key is what an editor shows of it (json_schema.py).
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)


class TimeRule(Rule):
    """The column of event times. Stamps without a zone, and numbers (`unit` since 1970), are UTC; `zone`
    gives the hour, the weekday and the end of the day. Stamps after `latest` (by default a day after now) are set
    aside. `facets`: what the model is told of a time. `late`: of an event no later than its user's last closed
    group; the newest are open, and what comes for them joins them."""

    column: str
    """The column with the time of each event: timestamps, dates, ISO 8601 text, or numbers since 1970."""
    zone: str = "UTC"
    """IANA name of the log's local zone, such as America/New_York: of its hours, weekdays and days."""
    unit: Unit = "s"
    """What numbers in the column count since 1970."""
    latest: Moment | None = None
    """Events after this moment are set aside; by default, those more than a day after now."""
    facets: tuple[ClockFacet, ...] = (ClockFacet.HOUR, ClockFacet.WEEKDAY, ClockFacet.GAP)
    """What the model is told of a time."""
    late: Late = Late.QUARANTINE
    """What becomes of an event that is appended when a later group of its user is closed."""

    @field_validator("zone")
    @classmethod
    def _zone_exists(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"no time zone is called {zone!r}; write one such as America/New_York") from error
        return zone


class ActionRule(Rule):
    """The column that says what kind of event a row is. `day_level` actions are known to the day only: their
    time is a local date, and they take effect at the end of that day. `aliases`: other spelling → action."""

    column: str
    """The column that says what kind of event a row is."""
    day_level: tuple[str, ...] = ()
    """Actions of which only the local date is known; they take effect at the end of that day."""
    aliases: dict[str, str] = {}
    """Other spelling → action."""


class EntityRule(Rule):
    """One type of thing events are about, with a vocabulary of its own. The model ranks the `candidates`.

    Ids with fewer than `admit` events get no code of their own; they share `buckets`, by two hashes. `was`: its name
    in the revision before.
    """

    column: str
    """The column with the ids of this type; by default the one named like the entity."""
    candidates: bool = False
    """Whether these are what is recommended; exactly one entity is."""
    admit: int = Field(default=1, ge=1)
    """So many events, before the split and in all that is appended, give an id a code of its own."""
    buckets: int = Field(default=0, ge=0, le=2**24)
    """Hashed buckets that ids without a code of their own share."""
    was: str | None = None
    """The name of this entity in the revision before."""


_KEYS = {
    "admit": (Kind.CATEGORY, Kind.ID, Kind.SET, Kind.TEXT),
    "buckets": (Kind.CATEGORY, Kind.ID),
    "aliases": (Kind.CATEGORY, Kind.ID),
    "most": (Kind.SET, Kind.TEXT),
    "unit": (Kind.DURATION, Kind.TIMESTAMP),
    "combine": (Kind.NUMBER, Kind.DURATION),
    "levels": (Kind.VECTOR,),
}


class FacetRule(Rule):
    """One more field of an event.

    admit, buckets: as of an entity; an id has buckets unless told otherwise. aliases: other
    spelling → value. most: so many members of a set, or words of a text, are kept. unit: of durations, and of
    timestamps that are numbers. combine: what numbers do when events merge. levels: codes a vector is told in. was:
    its name in the revision before.
    """

    column: str
    """The column of this facet; by default the one named like it."""
    kind: Kind
    """What its values are."""
    admit: int | None = Field(default=None, ge=1)
    """So many events, before the split and in all that is appended, give a value a code of its own; by default 2 of an
    id or a text, 1 of others."""
    buckets: int | None = Field(default=None, ge=0, le=2**24)
    """Hashed buckets that the other values share; by default 1024 of an id, 0 of a category."""
    aliases: dict[str, str] = {}
    """Other spelling → value; of a category or an id."""
    most: int = Field(default=8, ge=1, le=64)
    """So many members of a set, or words of a text, are kept."""
    unit: Unit = "s"
    """What durations, and timestamps that are numbers, count."""
    combine: Combine = Combine.SUM
    """How numbers and durations of events that become one token become one."""
    levels: int = Field(default=3, ge=1, le=8)
    """Codes that a vector is told in, from coarse to fine."""
    was: str | None = None
    """The name of this facet in the revision before."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        for key, kinds in _KEYS.items():
            if self.kind not in kinds and getattr(self, key) != type(self).model_fields[key].default:
                raise Mistake((key,), f"{with_article(self.kind)} has no {key}; only {_told(kinds)} has")
        return self

    @property
    def admitted_from(self) -> int:
        """Events that give a value a code of its own."""
        return self.admit or (2 if self.kind in (Kind.ID, Kind.TEXT) else 1)

    @property
    def hashed_to(self) -> int:
        """Buckets that the other values share."""
        return self.buckets if self.buckets is not None else 1024 if self.kind is Kind.ID else 0


class Method(StrEnum):
    """How vectors become codes."""

    RESIDUAL_KMEANS = "residual_kmeans"
    RQ_VAE = "rq_vae"


class SemanticIdsRule(Rule):
    """Items' content as codes, `levels` of at most `codes` each, which the item tower learns embeddings of."""

    levels: int = Field(default=3, ge=1, le=8)
    """Codes of an item, each naming what those before it left over."""
    codes: int = Field(default=256, ge=2, le=65_536)
    """Centroids a level."""
    method: Method = Method.RESIDUAL_KMEANS
    """How the centroids are found: residual_kmeans, or rq_vae."""


METADATA = "metadata"
"""What the vectors made of `ItemsRule.metadata` are called, beside those of the columns in `vectors`."""


class ItemsRule(Rule):
    """The table of what is known about the candidates. `id` defaults to the column of the candidate entity."""

    id: str
    """The column of their ids; by default the column of the candidates in the events."""
    categories: tuple[str, ...] = ()
    """Columns with one of a few values an item: department, genre, brand."""
    metadata: tuple[str, ...] = ()
    """Columns whose values go into the content vector: items that share them are alike, whatever their texts say."""
    text: tuple[str, ...] = ()
    """Columns whose words say what an item is: title, description."""
    vectors: tuple[str, ...] = ()
    """Columns of content vectors (of an image, of a sound), each a list of floats of one length."""
    released: str | None = None
    """Column of the time since when an item exists, which its age is counted from; like the column of event times."""
    encoder: str | None = None
    """Folder or name of the sentence-transformers model that reads `text`; by default WordLlama does."""
    semantic_ids: SemanticIdsRule | None = None
    """Content as codes of residual quantisation, which the model learns embeddings of."""

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.encoder is not None and not self.text:
            raise Mistake(("encoder",), "no text is declared for it to read; declare `text`, or leave this out")
        if self.semantic_ids is not None and not (self.text or self.metadata or self.vectors):
            told = "they are made of content; declare `text`, `metadata` or `vectors`, or leave this out"
            raise Mistake(("semantic_ids",), told)
        if self.metadata and METADATA in self.vectors:
            told = f"{METADATA!r} is what the vectors of `metadata` are called; give this column another name"
            raise Mistake(("vectors",), told)
        return self


class UsersRule(Rule):
    """The table of what is known about users. `id` defaults to the column of the user.

    An attribute is taken as known at every moment of the log, as a birth year or the way somebody signed up. So don't
    declare what becomes true later, or tells of what came later (`churned`, `lifetime value`, a segment made of all
    purchases): it would tell the future to whoever is trained and judged on the past.
    """

    id: str
    """The column of their ids; by default the column of the user in the events."""
    categories: tuple[str, ...] = ()
    """Columns with one of a few values a user."""
    numbers: tuple[str, ...] = ()
    """Columns with a number a user."""


class PairsRule(Rule):
    """A learned table of adjacent events that become one token, as byte pairs do.

    Adjacent events about one item, at most `within` apart, merge where their actions, and the item's class (its
    category `by`), make one of the `number` pairs most frequent before the split.
    """

    number: int = Field(ge=1, le=4096)
    """So many pairs are learned."""
    within: Span
    """Events further apart than this never merge."""
    by: str | None = None
    """The category of the items that tells pairs apart; left out, only actions do."""


class MergeRule(Rule):
    """Which events become one token. `same_item_in_group`: lines of one group with the same action and
    entity. `same_item_within`: adjacent events with the same action and entity, each at most so long after the one
    before. `pairs`: what a learned table says. Nothing of a number is lost: see `combine`."""

    same_item_in_group: bool = False
    """Lines of one group with the same action and entity are one token."""
    same_item_within: Span | None = None
    """Adjacent events with the same action and entity, at most so long apart, are one token."""
    pairs: PairsRule | None = None
    """A learned table of frequent adjacent pairs that are one token."""


class SplitRule(Rule):
    """Where training data ends. Give `time` (and, if you like, `validation`), or the `fraction` of the log's
    events that lie before it, or `last_items` of every user. Dates are midnight UTC. A group that is open at a
    border, begun before it and not yet complete, is on neither side of it."""

    time: Moment | None = None
    """Training data ends here; what follows is for testing. A date is its midnight, UTC."""
    validation: Moment | None = None
    """What lies between this and `time` is for choosing settings."""
    fraction: float | None = Field(default=None, gt=0, lt=1)
    """Training data ends at the moment before which this share of the log's events lie."""
    last_items: int | None = Field(default=None, ge=1)
    """So many of each user's last groups are for testing, as many before them for choosing settings."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [n for n in ("time", "fraction", "last_items") if getattr(self, n) is not None]
        if len(ways) != 1:
            raise ValueError("give exactly one of time, fraction, last_items")
        if self.validation is not None and (self.time is None or self.validation >= self.time):
            raise ValueError("validation must be a time before the split's time")
        return self


def _told(kinds: Iterable[Kind]) -> str:
    *others, last = map(with_article, kinds)
    return f"{', '.join(others)} or {last}" if others else last
