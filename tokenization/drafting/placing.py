"""Which section and kind the columns of a log belong to that are neither user, time, item, action nor group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from tokenization.arrays import Codes
from tokenization.drafting import naming
from tokenization.drafting.profiles import Profile, Shape, determined
from tokenization.schema.rules import Kind

FEW = 20
"""Whole numbers with so many values may be names of something."""
MANY = 1000
"""A category has no more values than this; an id has."""
_SAME = 0.95
"""Share of groups, items or users with one value alone, for it to be theirs."""
_TITLES = 200
"""Texts of several words are categories as long as there are no more of them."""
_SENTENCE = 3.0
"""Words of a text, on average, for it to be read word by word."""


@dataclass(frozen=True)
class Placed:
    """One column: `name` of the facet, its kind with `keys` of the kind, the section it goes to ("" = nowhere), why."""

    column: str
    section: str
    why: str
    name: str = ""
    kind: Kind | None = None
    keys: Mapping[str, str] = field(default_factory=dict)


def place_facets(
    columns: Mapping[str, Profile], users: Codes, items: Codes, sets: Codes, taken: Iterable[str]
) -> list[Placed]:
    """Section and kind of each column.

    Args:
        users, items, sets: [n] whose a row is, what it is about, which group it is in; -1 = none.
        taken: names that no facet may have.
    """
    return list(_placed(columns, users, items, sets, set(taken)))


def _placed(
    columns: Mapping[str, Profile], users: Codes, items: Codes, sets: Codes, taken: set[str]
) -> Iterator[Placed]:
    for name, column in columns.items():
        if column.distinct < 2 and column.shape not in (Shape.VECTOR, Shape.LIST):
            yield Placed(name, "", "it is the same in all rows looked at")
            continue
        kind, keys, what = _kind(column)
        if kind is Kind.ID and column.distinct == column.rows:
            yield Placed(name, "", "every row has a value of its own; as `event_id` it would tell repeated rows")
            continue
        section, why = _section(column, users, items, sets)
        facet = naming.facet_name(name, taken)
        taken.add(facet)
        odd = f"; {column.odd:,} values are none, their rows go to quarantine" if column.odd else ""
        yield Placed(name, section, f"{what}{odd}. {why}", facet, kind, keys)


def _kind(column: Profile) -> tuple[Kind, dict[str, str], str]:
    """What the values are, keys that go with it, and why."""
    name, count = column.name, f"{column.distinct:,} values"
    match column.shape:
        case Shape.VECTOR:
            return Kind.VECTOR, {}, f"lists of {column.width} numbers"
        case Shape.LIST:
            return Kind.SET, {}, f"lists of {count}"
        case Shape.STAMP:
            return Kind.TIMESTAMP, {}, "times, told by their distance from the event"
        case Shape.FLAG:
            return Kind.CATEGORY, {}, "true or false"
        case Shape.WHOLE | Shape.FRACTIONAL:
            return _kind_of_numbers(column)
        case _ if column.words >= _SENTENCE and column.distinct > _TITLES and not naming.is_identity(name):
            return Kind.TEXT, {}, f"text with {count}, {column.words:.0f} words on average"
        case _ if column.distinct <= MANY and column.distinct <= column.given.sum() / 2:
            return Kind.CATEGORY, {}, f"text with {count}"
        case _:
            return Kind.ID, {}, f"text with {count}; those too rare for a code share hashed buckets"


def _kind_of_numbers(column: Profile) -> tuple[Kind, dict[str, str], str]:
    name, count = column.name, f"{column.distinct:,} values"
    known = column.numbers[np.isfinite(column.numbers)]
    unit = column.unit
    if unit and naming.place(name, naming.TIME) is not None and not naming.is_identity(name):
        return Kind.TIMESTAMP, {"unit": unit} if unit != "s" else {}, f"numbers that are times in {unit} since 1970"
    if naming.likeness(name, naming.DURATION) and known.min() >= 0:
        unit = naming.duration_unit(name)
        why = f"its name says that it lasts, here in {unit}; check the unit"
        return Kind.DURATION, {"unit": unit} if unit != "s" else {}, why
    if column.shape is Shape.FRACTIONAL or (
        naming.likeness(name, naming.NUMBER) and not (naming.is_identity(name) and column.distinct > FEW)
    ):
        return Kind.NUMBER, {}, f"numbers from {known.min():g} to {known.max():g}"
    if naming.is_identity(name) or naming.likeness(name, naming.CONTEXT):
        kind = Kind.CATEGORY if column.distinct <= MANY else Kind.ID
        return kind, {}, f"whole numbers, and its name says that they name something; {count}"
    if column.distinct <= FEW:
        return Kind.CATEGORY, {}, f"whole numbers with only {count}; if they count something, write kind: number"
    return Kind.NUMBER, {}, f"whole numbers with {count}; if they name something, write kind: category or id"


def _section(column: Profile, users: Codes, items: Codes, sets: Codes) -> tuple[str, str]:
    """Context or outcome. What can't be told is an outcome: that leaks nothing."""
    by_name = naming.likeness(column.name, naming.CONTEXT)
    if not len(column.codes):
        return "outcome", "Its name and kind do not tell when it is known; if at the request, move it to context"
    in_group, of_user, of_item = (determined(column.codes, by) for by in (sets, users, items))
    if not np.isnan(in_group) and in_group < _SAME:
        also = "though its name sounds like context, " if by_name else ""
        return "outcome", f"{also}it differs inside groups, so it is not of the request".capitalize()
    if of_user >= _SAME and not of_item >= _SAME:
        return "context", "It is the same in all events of a user; it could come from a users table"
    if by_name:
        return "context", "Its name says that it is known at the request; check"
    if of_item >= _SAME:
        told = "It is the same in all events of an item; it could come from the items table"
        if column.shape is Shape.STAMP and naming.likeness(column.name, naming.RELEASED):
            told += ", and be the `released` that the `age` of items is counted from"
        return "outcome", told
    return "outcome", "Nothing tells when it is known; if at the request, whatever the item, move it to context"
