"""Declarations that nobody wrote: valid ones of every kind and section, and each of the ways to break one.

from tests.tokenization.strategies import declarations, mistakes

@given(declarations())
def test_...(values): EventSchema.from_dict(values)
"""

from __future__ import annotations

import copy
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from hypothesis import strategies as st
from pydantic import BaseModel

from tokenization.schema.event_schema import RESERVED, EventSchema
from tokenization.schema.rules import ClockFacet, Combine, Kind, Late, Method, PairsRule, SemanticIdsRule

Values = dict[str, Any]
Draw = Any
PREDICTED = ("category", "id", "number", "duration")

names = (
    st.text(string.ascii_lowercase + string.digits + "_-ßé", min_size=1, max_size=8)
    .filter(lambda name: name.replace("-", "_").isidentifier())
    .filter(lambda name: name not in RESERVED and name != "action")
)
columns = st.one_of(
    st.sampled_from(["user_id", "Item Price", "yes", "null", "7", "a:b", "# no", "größe", "x, y", "[1]", "~"]),
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12),
)
attributes = columns.filter(lambda name: not any(odd in name for odd in "/\\:"))
values = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6)
spans = st.one_of(
    st.integers(1, 10**6), st.floats(0.5, 1e6), st.sampled_from(["45s", "30m", "2h", "1.5d", "1w", " 3 h "])
)
units = st.sampled_from(["s", "ms", "us", "ns"])
dates = st.dates().filter(lambda day: 1980 < day.year < 2100)
moments = st.one_of(
    dates.map(str),
    dates.map(lambda day: f"{day}T12:00"),
    dates.map(lambda day: f"{day} 12:00:00.5+02:00"),
    dates.map(lambda day: f"{day}T00:00:00Z"),
)


def some(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Values]:
    """A mapping with any of these keys."""
    return st.fixed_dictionaries({}, optional=keys)


def few(of: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[list[Any]]:
    return st.lists(of, min_size=least, max_size=3, unique=True)


aliases = st.dictionaries(values, values, max_size=2)
times = st.builds(
    lambda column, more: {"column": column, **more},
    columns,
    some(
        zone=st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata"]),
        unit=units,
        latest=moments,
        facets=st.lists(st.sampled_from([str(facet) for facet in ClockFacet]), unique=True),
        late=st.sampled_from([str(late) for late in Late]),
    ),
)
hashed = {"admit": st.integers(1, 100), "buckets": st.integers(0, 4096)}
of_kind: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "category": {**hashed, "aliases": aliases},
    "id": {**hashed, "aliases": aliases},
    "number": {"combine": st.sampled_from([str(how) for how in Combine])},
    "duration": {"unit": units, "combine": st.sampled_from([str(how) for how in Combine])},
    "timestamp": {"unit": units},
    "text": {"admit": hashed["admit"], "most": st.integers(1, 64)},
    "set": {"admit": hashed["admit"], "most": st.integers(1, 64)},
    "vector": {"levels": st.integers(1, 8)},
}
assert set(of_kind) == {str(kind) for kind in Kind}


@st.composite
def facets(draw: Draw, kinds: tuple[str, ...]) -> Values:
    """The rule of one facet."""
    kind = draw(st.sampled_from(kinds))
    return {"kind": kind, **draw(some(column=columns, **of_kind[kind]))}


semantic_ids = some(
    levels=st.integers(1, 8), codes=st.integers(2, 4096), method=st.sampled_from([str(method) for method in Method])
)
items = st.one_of(
    some(id=columns, categories=few(attributes), text=few(columns), vectors=few(columns), released=columns),
    st.builds(
        lambda text, more: {"text": text, **more},
        few(columns, least=1),
        some(id=columns, categories=few(attributes), encoder=columns, semantic_ids=semantic_ids),
    ),
)


@st.composite
def splits(draw: Draw, clock: bool) -> Values:
    """Any of the three ways; times only where the log has some."""
    ways = ["fraction", "last_items", *(["time", "validation"] if clock else [])]
    match draw(st.sampled_from(ways)):
        case "fraction":
            return {"fraction": draw(st.floats(0.01, 0.99))}
        case "last_items":
            return {"last_items": draw(st.integers(1, 5))}
        case "time":
            return {"time": draw(moments)}
        case _:
            first, last = sorted(draw(st.lists(dates, min_size=2, max_size=2, unique=True)))
            return {"time": str(last), "validation": str(first)}


@st.composite
def declarations(draw: Draw, kinds: tuple[str, ...] = tuple(of_kind)) -> Values:
    """A valid declaration as `EventSchema.from_dict` takes it, and as YAML holds it.

    kinds: those that its facets may have.
    """
    found = draw(st.lists(names, min_size=1, max_size=8, unique=True))
    cut = sorted(draw(st.lists(st.integers(1, len(found)), min_size=2, max_size=2)))
    entities, context, outcome = found[: cut[0]], found[cut[0] : cut[1]], found[cut[1] :]
    clock, action = draw(st.booleans()), draw(st.booleans())
    told: Values = {
        "schema": 1,
        "name": draw(columns),
        "user": draw(columns),
        **({"time": draw(times)} if clock else {"position": draw(columns)}),
        "entities": {name: draw(some(column=columns, **hashed)) for name in entities},
    }
    told["entities"][draw(st.sampled_from(entities))]["candidates"] = True
    for section, members in (("context", context), ("outcome", outcome)):
        if members or draw(st.booleans()):
            told[section] = {name: draw(facets(kinds)) for name in members}
    if action:
        level = {"day_level": few(values)} if clock else {}
        told["action"] = {"column": draw(columns), **draw(some(aliases=aliases, **level))}
    told |= draw(
        some(revision=st.integers(1, 99), group=columns, group_within=spans, event_id=columns, split=splits(clock))
    )
    told |= draw(_tables(told))
    told |= draw(_rules(told))
    return told


@st.composite
def _tables(draw: Draw, told: Values) -> Values:
    """Items and users, and names that are not in use any more."""
    taken = {name for section in ("entities", "context", "outcome") for name in told.get(section, ())}
    gone = few(names.filter(lambda name: name not in taken))
    tables: Values = draw(
        some(
            items=items if "time" in told else items.map(_without_release),
            users=some(id=columns, categories=few(attributes), numbers=few(attributes.map(lambda name: f"{name}#"))),
            retired=gone,
        )
    )
    return tables


def _without_release(told: Values) -> Values:
    return {key: value for key, value in told.items() if key != "released"}


@st.composite
def _rules(draw: Draw, told: Values) -> Values:
    """Targets, dropping and merging, of what is declared."""
    action = ["action"] if "action" in told else []
    ranked = next(name for name, rule in told["entities"].items() if rule.get("candidates"))
    found = {**told.get("context", {}), **told.get("outcome", {})}
    predicted = [name for name, rule in told.get("outcome", {}).items() if rule["kind"] in PREDICTED]
    named = [*action, *told["entities"], *(name for name, rule in found.items() if rule["kind"] in ("category", "id"))]
    weights = st.floats(0.01, 10)
    more = st.dictionaries(st.sampled_from([*action, *told["entities"], *predicted]), weights, max_size=3)
    merging: dict[str, st.SearchStrategy[Any]] = {"same_item_in_group": st.booleans(), "same_item_within": spans}
    if action:
        by = told.get("items", {}).get("categories", [])
        pairs = some(**({"by": st.sampled_from(by)} if by else {}))
        merging["pairs"] = st.builds(
            lambda number, within, more: {"number": number, "within": within, **more},
            st.integers(1, 4096),
            spans,
            pairs,
        )
    rules: Values = draw(
        some(
            targets=st.builds(lambda weight, others: {**others, ranked: weight}, weights, more),
            drop=st.dictionaries(st.sampled_from(named), few(values, least=1), max_size=2),
            merge=some(**merging),
        )
    )
    return rules


@dataclass(frozen=True)
class Broken:
    """A declaration with one mistake. key: the last part of the key that must be named. values: the whole."""

    key: str
    values: Values
    why: str


@st.composite
def mistakes(draw: Draw) -> Broken:
    """A valid declaration after one key was misspelt, one value became of another type, or a name that nothing has."""
    told = copy.deepcopy(draw(declarations()))
    makers = [_misspelt, _of_wrong_type, _nameless]
    return draw(st.sampled_from(makers))(draw, told)  # type: ignore[no-any-return]


def _misspelt(draw: Draw, told: Values) -> Broken:
    inner, rule = draw(st.sampled_from(list(_sections(told))))
    key = draw(st.sampled_from(sorted(inner)))
    known = {field.alias or name for name, field in rule.model_fields.items()} | set(rule.model_fields)
    wrong = draw(st.sampled_from([key[:-1] + "x", key + "s", key[1:] or "x", key.upper(), f"{key}-"]))
    if wrong in known:
        wrong = f"{wrong}_"
    renamed = {(wrong if name == key else name): value for name, value in inner.items()}
    inner.clear()
    inner.update(renamed)
    return Broken(wrong, told, "misspelt")


def _of_wrong_type(draw: Draw, told: Values) -> Broken:
    inner, _ = draw(st.sampled_from(list(_sections(told))))
    key = draw(st.sampled_from(sorted(inner)))
    right = inner[key]
    wrong: list[Any] = [[["x"]], "\t?"] if isinstance(right, dict | bool | int | float) else [{"x": 1}, 3.5]
    inner[key] = draw(st.sampled_from(wrong))
    return Broken(key, told, "of the wrong type")


def _nameless(draw: Draw, told: Values) -> Broken:
    ways = ["targets", "drop", "facets", "kind", "by"]
    match draw(st.sampled_from(ways)):
        case "targets":
            told["targets"] = {**told.get("targets", {}), "no such": 1.0}
            return Broken("no such", told, "a target that is no facet")
        case "drop":
            told["drop"] = {"no such": ["x"]}
            return Broken("no such", told, "a dropped value of no facet")
        case "facets" if "time" in told:
            told["time"]["facets"] = ["hour", "our"]
            return Broken("1", told, "no facet of time")
        case "by" if "action" in told:
            told["merge"] = {"pairs": {"number": 1, "within": "1h", "by": "no such"}}
            return Broken("by", told, "no category of the items")
        case _:
            taken = {name for section in ("entities", "context", "outcome") for name in told.get(section) or ()}
            name = draw(names.filter(lambda name: name not in taken | set(told.get("retired", ()))))
            told.setdefault("outcome", {})[name] = {"kind": "numbr"}
            return Broken("kind", told, "no kind")


def _sections(told: Values) -> Iterator[tuple[Values, type[BaseModel]]]:
    """Every mapping of fixed keys, with the model that says which."""
    yield told, EventSchema
    for name, field in EventSchema.model_fields.items():
        inner = told.get(field.alias or name)
        rule = next((part for part in _parts(field.annotation) if _is_rule(part)), None)
        if rule is None or not inner:
            continue
        members = inner.values() if name in ("entities", "context", "outcome") else [inner]
        yield from ((member, rule) for member in members if member)
    inner: list[tuple[str, str, type[BaseModel]]] = [
        ("merge", "pairs", PairsRule),
        ("items", "semantic_ids", SemanticIdsRule),
    ]
    yield from ((told[section][key], rule) for section, key, rule in inner if told.get(section, {}).get(key))


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _is_rule(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)
