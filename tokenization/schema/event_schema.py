"""How a user declares an event log: who, when, what, and what is to be learned from it.

The declaration is one YAML file (examples/complete_journey/schema.yaml is a whole one) or the same keys in
Python. Whatever is wrong in it is an error that names the file, the line, the key and the nearest name that
would be right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tokenization.errors import SchemaError, nearest, with_article
from tokenization.schema import yaml_source as declaration
from tokenization.schema.rules import (
    ActionRule,
    ClockFacet,
    EntityRule,
    FacetRule,
    ItemsRule,
    Kind,
    MergeRule,
    Rule,
    Span,
    SplitRule,
    TimeRule,
    UsersRule,
)
from tokenization.schema.yaml_source import Mistake

_LONGEST_NAME = 100
_A_DAY = 86_400.0
RESERVED = frozenset({"user_id", "user", "time", "position", "group", "lasted", "events", "actions", *ClockFacet})


class EventSchema(Rule):
    """The declaration of one event log. Frozen; equal declarations compare equal.

    `schema` is the version of this format, `revision` that of this log's declaration: raise it when a facet is added,
    renamed (`was`) or retired (list its name under `retired`). `event_id`: a column by which a repeated row of
    a user is known. `drop`: by facet, values whose events are left out, and counted.

    Raises:
        SchemaError: from `from_yaml` and `from_dict`, naming the key and the mend. Built directly with
            keyword arguments, pydantic's own `ValidationError` is raised.
    """

    version: Literal[1] = Field(alias="schema")
    """Version of this format."""
    name: str = Field(min_length=1)
    """What the log is called."""
    revision: int = Field(default=1, ge=1)
    """Version of this declaration: raise it whenever a facet is added, renamed or retired."""
    user: str
    """The column that says whose event a row is."""
    time: TimeRule | None = None
    """When an event was, and what the model is told of it. Give this or `position`."""
    position: str | None = None
    """The column of numbers that orders a user's events, where there are no times."""
    action: ActionRule | None = None
    """What kind of event a row is."""
    group: str | None = None
    """The column of basket, request or session ids: what happens in one is a set, not a sequence, predicted from what
    was complete when it began."""
    group_within: Span | None = None
    """A basket, request or session in which nothing happens for longer is over, and what comes later is another; by
    default a day. Of a log with positions instead of times: so many positions, by default any number."""
    event_id: str | None = None
    """The column by which a row of the same user that is there already is known, in the log or in what is appended."""
    entities: dict[str, EntityRule] = Field(min_length=1)
    """What events are about, each type with ids of its own; a row has at most one of them."""
    context: dict[str, FacetRule] = Field(default_factory=dict)
    """What is known when a recommendation is asked for, whatever the item: device, store, locale."""
    outcome: dict[str, FacetRule] = Field(default_factory=dict)
    """What is known only afterwards, or through the item: price, quantity, rating, duration."""
    retired: tuple[str, ...] = ()
    """Names of facets and entities that earlier revisions had and this one has no more."""
    drop: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By facet, the values whose events are left out, and counted."""
    items: ItemsRule | None = None
    """The table of what is known about the candidates (--items)."""
    users: UsersRule | None = None
    """The table of what is known about users."""
    merge: MergeRule = MergeRule()
    """Which events become one token."""
    targets: dict[str, float] = Field(default_factory=dict)
    """What the model learns to predict, with weights: the candidates and whatever else."""
    feedback: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """What an event of an action says of interest in its item, as a weight; by default 1. With 0 (a skip, a return) the
    item is none that the user wanted: it is never learned as the next one, however well its action is told."""
    split: SplitRule = SplitRule(fraction=0.9)
    """Where training data ends; by default after nine tenths of the log's events."""

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
        for check in _CHECKS:
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

    @cached_property
    def facets(self) -> dict[str, FacetRule]:
        """The rules of the context and outcome facets, by name."""
        return {**self.context, **self.outcome}

    @property
    def longest_pause(self) -> float:
        """Seconds, or positions, after which a declared group is over."""
        if self.group_within is not None:
            return self.group_within
        return _A_DAY if self.time else math.inf

    @property
    def clock_facets(self) -> tuple[ClockFacet, ...]:
        """What is derived from times; nothing in a log of positions."""
        return self.time.facets if self.time else ()

    @property
    def released(self) -> str | None:
        """The column of the items table that ages are counted from; None too where no age is read."""
        return self.items.released if self.items and ClockFacet.AGE in self.clock_facets else None

    @cached_property
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
        if self.event_id:
            yield self.event_id
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
    """A facet's column defaults to its name, the ids of items and users to the columns that the events have."""
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
    users = filled.get("users")
    if isinstance(users, Mapping) and isinstance(filled.get("user"), str):
        filled["users"] = {"id": filled["user"], **users}
    items, entities = filled.get("items"), filled.get("entities")
    if isinstance(items, Mapping) and "id" not in items and isinstance(entities, Mapping):
        rules = [rule for rule in entities.values() if isinstance(rule, Mapping)]
        for rule in sorted(rules, key=lambda rule: not rule.get("candidates"))[:1]:
            if isinstance(rule["column"], str):  # else it is wrong where it was written, and not here
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
        for name, rule in getattr(schema, section).items():
            if not name.replace("-", "_").isidentifier():
                raise Mistake((section, name), "a facet's name has only letters, digits, - and _")
            if name in RESERVED:
                raise Mistake((section, name), "this name is taken by userfm itself; choose another")
            if name in seen:
                raise Mistake((section, name), "two facets have this name; rename one")
            if name in schema.retired:
                raise Mistake((section, name), "this name is retired; choose another, or take it from `retired`")
            if rule.was == name:
                raise Mistake((section, name, "was"), "this is the name it has; leave `was` out")
            seen.add(name)


def _check_candidates(schema: EventSchema) -> None:
    ranked = [name for name, rule in schema.entities.items() if rule.candidates]
    if len(ranked) != 1:
        said = f"{', '.join(ranked)} have" if ranked else "no entity has"
        raise Mistake(("entities",), f"{said} `candidates: true`; exactly one must, the type to be recommended")


def _check_released(schema: EventSchema) -> None:
    if schema.items and schema.items.released is not None and schema.time is None:
        raise Mistake(("items", "released"), "positions are no times, so items have no age; leave this out")


_PREDICTED = (Kind.CATEGORY, Kind.ID, Kind.NUMBER, Kind.DURATION)


def _check_targets(schema: EventSchema) -> None:
    known = [name for name in schema.facet_names if name not in schema.context]
    for name, weight in schema.targets.items():
        if name in schema.context:
            raise Mistake(("targets", name), "context is known at the request, so there is nothing to predict")
        if name not in known:
            raise Mistake(("targets", name), f"no facet is called {name!r}; {nearest(name, known)}")
        if name in schema.outcome and (kind := schema.outcome[name].kind) not in _PREDICTED:
            raise Mistake(
                ("targets", name), f"{with_article(kind)} can't be predicted; only {', '.join(_PREDICTED)} can"
            )
        if not weight > 0:
            raise Mistake(("targets", name), "a target's weight must be above 0")
    if schema.targets and schema.candidates not in schema.targets:
        raise Mistake(("targets",), f"the candidates ({schema.candidates}) must be among the targets")


def _check_feedback(schema: EventSchema) -> None:
    if schema.feedback and schema.action is None:
        raise Mistake(("feedback",), "it weighs actions, and none is declared; declare action, or no feedback")
    aliases = schema.action.aliases if schema.action else {}
    for name in schema.feedback:
        if name in aliases:
            raise Mistake(("feedback", name), f"this is another spelling of {aliases[name]!r}; weigh that")


def _check_attributes(schema: EventSchema) -> None:
    """Names of attributes become names of files and columns."""
    told = {
        "items": {"categories": schema.items.categories} if schema.items else {},
        "users": {"categories": schema.users.categories, "numbers": schema.users.numbers} if schema.users else {},
    }
    for section, lists in told.items():
        names = [name for listed in lists.values() for name in listed]
        for key, name in ((key, name) for key, listed in lists.items() for name in listed):
            if why := _no_attribute(name):
                raise Mistake((section, key), f"the column {name!r} can't name an attribute, since {why}; rename it")
            if names.count(name) > 1:
                raise Mistake((section,), f"{name!r} is listed twice; list it once")
    if len(set(schema.clock_facets)) < len(schema.clock_facets):
        raise Mistake(("time", "facets"), "a facet of the clock is listed twice; list it once")


def _no_attribute(name: str) -> str:
    """Why a name can't be part of that of a file; "" where it can."""
    if not name:
        return "it has no letter"
    if len(name.encode()) > _LONGEST_NAME:
        return f"it is longer than {_LONGEST_NAME} bytes"
    odd = [letter for letter in name if letter in "/\\:\x7f" or letter < " "]
    return f"{odd[0]!r} is in it, and its values are kept in a file of that name" if odd else ""


def _check_drop(schema: EventSchema) -> None:
    named = (Kind.CATEGORY, Kind.ID)
    known = [name for name in schema.facet_names if name not in schema.facets or schema.facets[name].kind in named]
    for name in schema.drop:
        if name not in known:
            raise Mistake(("drop", name), f"no action, entity or category is called {name!r}; {nearest(name, known)}")


def _check_merge(schema: EventSchema) -> None:
    pairs = schema.merge.pairs
    if pairs is None:
        return
    if schema.action is None:
        raise Mistake(("merge", "pairs"), "pairs are of actions, and none is declared; declare action, or no pairs")
    known = schema.items.categories if schema.items else ()
    if pairs.by is not None and pairs.by not in known:
        raise Mistake(("merge", "pairs", "by"), f"no category of the items is {pairs.by!r}; {nearest(pairs.by, known)}")


_CHECKS = (
    _check_clock,
    _check_names,
    _check_candidates,
    _check_released,
    _check_targets,
    _check_feedback,
    _check_attributes,
    _check_drop,
    _check_merge,
)
