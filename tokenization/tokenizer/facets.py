"""What the model reads of a token: columns of one code each, 0 absent, 1 unknown, 2.. a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tokenization.codes.codecs import CLOCK_SIZES, DISTANCES, NumberCodec
from tokenization.codes.counting import CODES_OF_A_VECTOR
from tokenization.codes.vocabulary import FIRST, Vocabulary
from tokenization.merging.merging import Merging, Together
from tokenization.merging.pairs import LONGEST
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import ClockFacet, Combine, FacetRule, Kind


class Role(StrEnum):
    """What a facet tells, and so when it is known: context at the request, the others only afterwards."""

    ACTION = "action"
    ENTITY = "entity"
    CONTEXT = "context"
    OUTCOME = "outcome"


class FacetKind(StrEnum):
    """How a facet's values become codes."""

    ID = "id"
    CATEGORY = "category"
    HASH = "hash"
    NUMBER = "number"
    DURATION = "duration"
    TIMESTAMP = "timestamp"
    TEXT = "text"
    SET = "set"
    VECTOR = "vector"
    HOUR = "hour"
    WEEKDAY = "weekday"
    MONTH = "month"
    GAP = "gap"
    TENURE = "tenure"
    AGE = "age"


@dataclass(frozen=True)
class Facet:
    """One column of codes that the model reads.

    size counts its codes with 0 and 1. A facet that holds several codes, such as a set, takes several columns, which
    share one `table` of embeddings.
    """

    name: str
    kind: FacetKind
    role: Role
    size: int
    table: str


def facets_of(
    schema: EventSchema, vocabularies: Mapping[str, Vocabulary], numbers: Mapping[str, NumberCodec]
) -> tuple[Facet, ...]:
    """Every column in the order that the model reads them: action, entities, context, clock, outcome."""
    return tuple(_facets(schema, vocabularies, numbers))


def _facets(
    schema: EventSchema, vocabularies: Mapping[str, Vocabulary], numbers: Mapping[str, NumberCodec]
) -> Iterator[Facet]:
    def several(name: str, kind: FacetKind, role: Role, size: int, columns: tuple[str, ...]) -> Iterator[Facet]:
        return (Facet(column, kind, role, size, name) for column in columns)

    def declared(name: str, rule: FacetRule, role: Role) -> Iterator[Facet]:
        kind = FacetKind(rule.kind.value)
        match rule.kind:
            case Kind.NUMBER | Kind.DURATION:
                yield Facet(name, kind, role, numbers[name].size, name)
            case Kind.TIMESTAMP:
                yield Facet(name, kind, role, DISTANCES, name)
            case Kind.TEXT | Kind.SET:
                yield from several(name, kind, role, vocabularies[name].size, columns_of(name, rule))
            case Kind.VECTOR:
                yield from (
                    Facet(column, kind, role, FIRST + CODES_OF_A_VECTOR, column) for column in columns_of(name, rule)
                )
            case Kind.CATEGORY | Kind.ID:
                yield Facet(name, kind, role, vocabularies[name].size, name)
                yield from several(
                    f"{name}.hash", FacetKind.HASH, role, FIRST + rule.hashed_to, hashes_of(name, rule.hashed_to)
                )

    if schema.action:
        yield Facet("action", FacetKind.CATEGORY, Role.ACTION, vocabularies["action"].size, "action")
    for name, entity in schema.entities.items():
        yield Facet(name, FacetKind.ID, Role.ENTITY, vocabularies[name].size, name)
        size = FIRST + entity.buckets
        yield from several(f"{name}.hash", FacetKind.HASH, Role.ENTITY, size, hashes_of(name, entity.buckets))
    for name, rule in schema.context.items():
        yield from declared(name, rule, Role.CONTEXT)
    for clock in schema.clock_facets:
        role = Role.OUTCOME if clock is ClockFacet.AGE else Role.CONTEXT
        yield Facet(clock.value, FacetKind(clock.value), role, CLOCK_SIZES[clock], clock.value)
    for name, rule in schema.outcome.items():
        yield from declared(name, rule, Role.OUTCOME)
    if schema.merge.pairs:
        yield from several("actions", FacetKind.SET, Role.ACTION, vocabularies["action"].size, ACTIONS)


LASTED = "lasted"
"""The column that tells how long before the effect of its group a token's first event was; no facet of the model."""
ACTIONS = tuple(f"actions.{place}" for place in range(LONGEST))
"""Columns that tell the actions of a token that a table of pairs made."""


def columns_of(name: str, rule: FacetRule) -> tuple[str, ...]:
    """The columns of a facet, without those of hashed buckets."""
    match rule.kind:
        case Kind.TEXT | Kind.SET:
            return tuple(f"{name}.{place}" for place in range(rule.most))
        case Kind.VECTOR:
            return tuple(f"{name}.{level}" for level in range(rule.levels))
        case _:
            return (name,)


def hashes_of(name: str, buckets: int) -> tuple[str, ...]:
    """The columns of the two hashes of an id that has no code of its own."""
    return (f"{name}.hash.0", f"{name}.hash.1") if buckets else ()


def merging_of(schema: EventSchema) -> Merging:
    """How each column of events that become one token becomes a column of the token."""
    chosen: list[Together] = [("action",)] if schema.action else []
    chosen += [(name, *hashes_of(name, rule.buckets)) for name, rule in schema.entities.items()]
    united: list[Together] = [ACTIONS] if schema.merge.pairs else []
    for name, rule in schema.facets.items():
        if rule.kind is Kind.SET:
            united.append(columns_of(name, rule))
        elif rule.kind not in (Kind.NUMBER, Kind.DURATION, Kind.TIMESTAMP):
            hashed = rule.hashed_to if rule.kind in (Kind.CATEGORY, Kind.ID) else 0
            chosen.append((*columns_of(name, rule), *hashes_of(name, hashed)))
    # A stamp is the nearest of those that merge; what a request said of itself is said once, and not added up.
    combine = {name: rule.combine for name, rule in schema.outcome.items() if rule.kind is not Kind.TIMESTAMP}
    nearest = {name: Combine.MIN for name in schema.facets if name not in combine}
    return Merging(tuple(chosen), tuple(united), {**combine, **nearest, LASTED: Combine.MAX})
