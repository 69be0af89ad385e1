"""How a user declares an event log: who, when, what, and what is to be learned from it.

The declaration is one YAML file (examples/complete_journey/schema.yaml is a whole one) or the same keys in
Python. Whatever is wrong in it is an error that names the file, the line, the key and the nearest name that
would be right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tokenization import declaration
from tokenization.declaration import Mistake
from tokenization.errors import SchemaError, nearest

RESERVED = frozenset({"user_id", "user", "time", "position", "group", "events", "hour", "weekday", "gap"})


class Kind(StrEnum):
    """What the values of a declared facet are."""

    CATEGORY = "category"
    NUMBER = "number"


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class TimeRule(_Rule):
    """The column of event times. Stamps without a zone, and numbers (`unit` since 1970), are UTC; `zone`
    gives the hour, the weekday and the end of the day."""

    column: str
    zone: str = "UTC"
    unit: Literal["s", "ms", "us", "ns"] = "s"

    @field_validator("zone")
    @classmethod
    def _zone_exists(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"no time zone is called {zone!r}; write one such as America/New_York") from error
        return zone


class ActionRule(_Rule):
    """The column that says what kind of event a row is. `day_level` actions are known to the day only: their
    time is a local date, and they take effect at the end of that day."""

    column: str
    day_level: tuple[str, ...] = ()


class EntityRule(_Rule):
    """One type of thing events are about, with a vocabulary of its own. The model ranks the `candidates`."""

    column: str
    candidates: bool = False


class FacetRule(_Rule):
    """One more field of an event."""

    column: str
    kind: Kind


class ItemsRule(_Rule):
    """The table of what is known about the candidates. `id` defaults to the column of the candidate entity."""

    id: str
    categories: tuple[str, ...] = ()
    text: tuple[str, ...] = ()


class MergeRule(_Rule):
    """Which events become one token. `same_item_in_group`: lines of one group with the same action and
    entity; their numbers are summed."""

    same_item_in_group: bool = False


class SplitRule(_Rule):
    """Where training data ends. Give `time` (and, if you like, `validation`), or `fraction` of the log's time
    span, or `last_items` of every user. Dates are midnight UTC."""

    time: datetime | None = None
    validation: datetime | None = None
    fraction: float | None = Field(default=None, gt=0, lt=1)
    last_items: int | None = Field(default=None, ge=1)

    @field_validator("time", "validation", mode="before")
    @classmethod
    def _midnight_utc(cls, value: object) -> object:
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

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [n for n in ("time", "fraction", "last_items") if getattr(self, n) is not None]
        if len(ways) != 1:
            raise ValueError("give exactly one of time, fraction, last_items")
        if self.validation is not None and (self.time is None or self.validation >= self.time):
            raise ValueError("validation must be a time before the split's time")
        return self


class EventSchema(_Rule):
    """The declaration of one event log. Frozen; equal declarations compare equal.

    Raises:
        SchemaError: from `from_yaml` and `from_dict`, naming the key and the mend. Built directly with
            keyword arguments, pydantic's own `ValidationError` is raised.
    """

    version: Literal[1] = Field(alias="schema")
    name: str = Field(min_length=1)
    user: str
    time: TimeRule | None = None
    position: str | None = None
    action: ActionRule | None = None
    group: str | None = None
    entities: dict[str, EntityRule] = Field(min_length=1)
    context: dict[str, FacetRule] = {}
    outcome: dict[str, FacetRule] = {}
    items: ItemsRule | None = None
    merge: MergeRule = MergeRule()
    targets: dict[str, float] = {}
    split: SplitRule = SplitRule(fraction=0.9)

    @classmethod
    def from_yaml(cls, path: str | Path) -> EventSchema:
        """Read a declaration from a YAML file; a mistake is a `SchemaError` with file, line and key."""
        source = declaration.read(Path(path))
        return cls._declare(source.values, source)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> EventSchema:
        """The same from a mapping with the keys of the YAML file."""
        return cls._declare(dict(values), declaration.Source("schema", dict(values), {}))

    @classmethod
    def _declare(cls, values: object, source: declaration.Source) -> EventSchema:
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SchemaError(declaration.sentence(error, cls, source)) from None

    def to_dict(self) -> dict[str, Any]:
        """The whole declaration, defaults filled in, as JSON-serialisable values that `from_dict` takes."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @model_validator(mode="before")
    @classmethod
    def _fill_columns(cls, values: object) -> object:
        return _with_default_columns(values)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for check in (_check_clock, _check_names, _check_candidates, _check_targets):
            check(self)
        return self

    @property
    def candidates(self) -> str:
        """Name of the entity type whose members are ranked."""
        return next(name for name, rule in self.entities.items() if rule.candidates)

    @property
    def facet_names(self) -> tuple[str, ...]:
        """Declared facets in the order the model reads them, without those derived from time."""
        action = ("action",) if self.action else ()
        return (*action, *self.entities, *self.context, *self.outcome)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the event table that is read, each once."""
        return tuple(dict.fromkeys(self._columns()))

    def _columns(self) -> Iterator[str]:
        yield self.user
        yield self.clock
        if self.action:
            yield self.action.column
        if self.group:
            yield self.group
        for rules in (self.entities, self.context, self.outcome):
            yield from (rule.column for rule in rules.values())

    @property
    def clock(self) -> str:
        """The column that orders a user's events: of times, or of positions."""
        column = self.time.column if self.time else self.position
        assert column is not None  # _check_clock
        return column

    @property
    def weights(self) -> dict[str, float]:
        """Target facets with their weights; the candidates alone where nothing is declared."""
        return dict(self.targets) or {self.candidates: 1.0}


def _with_default_columns(values: object) -> object:
    """A facet's column defaults to its name, the items' id to the column of the candidate entity."""
    if not isinstance(values, Mapping):
        return values
    filled = dict(values)
    for section in ("entities", "context", "outcome"):
        rules = filled.get(section)
        if isinstance(rules, Mapping):
            filled[section] = {
                name: {"column": str(name), **rule} if isinstance(rule, Mapping) else rule
                for name, rule in rules.items()
            }
    items, entities = filled.get("items"), filled.get("entities")
    if isinstance(items, Mapping) and "id" not in items and isinstance(entities, Mapping):
        rules = [rule for rule in entities.values() if isinstance(rule, Mapping)]
        for rule in sorted(rules, key=lambda rule: not rule.get("candidates"))[:1]:
            filled["items"] = {"id": rule["column"], **items}
    return filled


def _check_clock(schema: EventSchema) -> None:
    if (schema.time is None) == (schema.position is None):
        raise Mistake(("time",), "give either time or position, the column that orders a user's events")
    if schema.position is not None and schema.action and schema.action.day_level:
        raise Mistake(("action", "day_level"), "only a log with time has actions known to the day")
    if schema.position is not None and (schema.split.time or schema.split.validation):
        raise Mistake(("split", "time"), "positions are no times; split by fraction or last_items")


def _check_names(schema: EventSchema) -> None:
    seen: set[str] = {"action"} if schema.action else set()
    for section in ("entities", "context", "outcome"):
        for name in getattr(schema, section):
            if not name.replace("-", "_").isidentifier():
                raise Mistake((section, name), "a facet's name has only letters, digits, - and _")
            if name in RESERVED:
                raise Mistake((section, name), "this name is taken by userfm itself; choose another")
            if name in seen:
                raise Mistake((section, name), "two facets have this name; rename one")
            seen.add(name)


def _check_candidates(schema: EventSchema) -> None:
    ranked = [name for name, rule in schema.entities.items() if rule.candidates]
    if len(ranked) != 1:
        said = f"{', '.join(ranked)} have" if ranked else "no entity has"
        raise Mistake(("entities",), f"{said} `candidates: true`; exactly one must, the type to be recommended")


def _check_targets(schema: EventSchema) -> None:
    known = [name for name in schema.facet_names if name not in schema.context]
    for name, weight in schema.targets.items():
        if name in schema.context:
            raise Mistake(("targets", name), "context is known at the request, so there is nothing to predict")
        if name not in known:
            raise Mistake(("targets", name), f"no facet is called {name!r}; {nearest(name, known)}")
        if not weight > 0:
            raise Mistake(("targets", name), "a target's weight must be above 0")
    if schema.targets and schema.candidates not in schema.targets:
        raise Mistake(("targets",), f"the candidates ({schema.candidates}) must be among the targets")
