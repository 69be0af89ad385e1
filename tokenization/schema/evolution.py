"""From one revision of a declaration to the next: what may change, and what would make old tokens mean other things.

Codes are kept for ever, so a facet may come, go (`retired`) or get another name (`was`), and a value may get another
spelling (`aliases`); what a code means may not change. How tokens of one revision are read as those of another is in
translation.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tokenization.errors import SchemaError, with_article
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import ActionRule, ClockFacet, EntityRule, FacetRule, Kind, UsersRule

DECIDES_NO_TOKEN = ("name", "revision", "event_id", "items", "targets", "feedback", "split", "time.latest", "time.late")
"""Keys that may change with no revision: what they say decides which rows are events, how a model learns, or stands in
a table beside the log; what an event's token is, they do not."""
AnyRule = ActionRule | EntityRule | FacetRule | None


class Step(StrEnum):
    """What became of something between two revisions."""

    ADDED = "added"
    RENAMED = "renamed"
    RETIRED = "retired"
    CHANGED = "changed"


@dataclass(frozen=True)
class Change:
    """One thing in which two declarations differ.

    key: what, as the file names it (`outcome.price`, `time.zone`). before, after: what stood there and stands there.
    raises: whether `revision` must be raised for it. refused: why it can't be, and the mend; "" where it can. note:
    what is not as one may expect where it is allowed, and the mend.
    """

    step: Step
    key: str
    before: str = ""
    after: str = ""
    raises: bool = True
    refused: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Declared:
    """A facet: the section it stands in, and what is said of it there (nothing, of what is derived from times)."""

    section: str
    rule: AnyRule

    def key(self, name: str) -> str:
        return name if self.section == "action" else f"{self.section}.{name}"


def changes(old: EventSchema, new: EventSchema) -> tuple[Change, ...]:
    """Everything in which `new` differs from `old`, allowed or not, in the order of the file."""
    found = (*_of_the_log(old, new), *_of_facets(old, new), *_of_the_rest(old, new))
    return (*_of_the_revision(old, new, found), *found)


def refuse_unless_compatible(old: EventSchema, new: EventSchema) -> None:
    """Make sure that tokens made under `old` can be read under `new`.

    Raises:
        SchemaError: names the first key that stands against it, and the mend.
    """
    for change in changes(old, new):
        if change.refused:
            raise SchemaError(f"{change.key}: {change.refused}")


def deciding(schema: EventSchema) -> dict[str, Any]:
    """What of a declaration decides tokens, as JSON-serialisable values.

    What is as by default is left out, so that a key which a later userfm adds changes nothing.
    """
    left_out: dict[str, Any] = {}
    for key in DECIDES_NO_TOKEN:
        section, _, field = key.partition(".")
        left_out[section] = {*left_out.get(section, ()), field} if field else True
    return schema.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=left_out)


def origins(old: EventSchema, new: EventSchema) -> dict[str, str | None]:
    """Each facet of `new`, by name: what it was called in `old`, None where `old` did not have it."""
    before, after = _declared(old), _declared(new)
    renamed = {name: was for name, facet in after.items() if (was := _was(name, facet, before))}
    taken = set(renamed.values())
    kept = {name: name for name in after if name in before and name not in taken}
    return {name: renamed.get(name, kept.get(name)) for name in after}


def _declared(schema: EventSchema) -> dict[str, _Declared]:
    """Every facet by name, those derived from times included."""
    found: dict[str, _Declared] = {}
    if schema.action:
        found["action"] = _Declared("action", schema.action)
    for section in ("entities", "context", "outcome"):
        found |= {name: _Declared(section, rule) for name, rule in getattr(schema, section).items()}
    return found | {str(name): _Declared("time.facets", None) for name in schema.clock_facets}


def _was(name: str, facet: _Declared, before: Mapping[str, _Declared]) -> str | None:
    """The name in the revision before; once that has the new name too, the renaming is history."""
    was = _renaming(facet.rule)
    if was is None or was not in before:
        return None
    return None if name in before and _renaming(before[name].rule) == was else was


def _renaming(rule: AnyRule) -> str | None:
    return rule.was if isinstance(rule, EntityRule | FacetRule) else None


def _of_the_revision(old: EventSchema, new: EventSchema, found: tuple[Change, ...]) -> Iterator[Change]:
    raising = next((change for change in found if change.raises and not change.refused), None)
    told = (Step.CHANGED, "revision", str(old.revision), str(new.revision))
    if new.revision < old.revision:
        why = f"it was {old.revision} and is {new.revision}; give the older declaration first"
        yield Change(*told, raises=False, refused=why)
    elif raising and new.revision == old.revision:
        why = f"{raising.key} was {raising.step}, so it must be raised; write `revision: {old.revision + 1}`"
        yield Change(*told, raises=False, refused=why)
    elif new.revision != old.revision:
        yield Change(*told, raises=False)


_MEANT = "tokens made before would mean another thing; keep it, or tokenize the whole log into another corpus"


def _of_the_log(old: EventSchema, new: EventSchema) -> Iterator[Change]:
    """What decides whose event a token is, when it was, and what stands beside it."""
    names: dict[str, tuple[object, object]] = {
        "user": (old.user, new.user),
        "time": (old.time and old.time.column, new.time and new.time.column),
        "position": (old.position, new.position),
        "group": (old.group, new.group),
        "group_within": (old.longest_pause, new.longest_pause),
    }
    if old.time and new.time:
        names |= {
            "time.zone": (old.time.zone, new.time.zone),
            "time.unit": (old.time.unit, new.time.unit),
        }
    yield from _differing(names, refused=_MEANT)


def _of_facets(old: EventSchema, new: EventSchema) -> Iterator[Change]:
    before, after = _declared(old), _declared(new)
    origin = origins(old, new)
    for name, facet in after.items():
        key, was = facet.key(name), origin[name]
        if was is None:
            again = f"an earlier revision retired the name {name!r}; choose another" if name in old.retired else ""
            yield Change(Step.ADDED, key, after=_kind(facet), refused=again, note=_of_added(facet))
            continue
        if was != name:
            yield Change(Step.RENAMED, key, was, name)
        yield from _of_one(key, before[was], facet)
    for name in sorted(set(before) - set(origin.values()), key=list(before).index):
        gone, key = before[name], before[name].key(name)
        if name == old.candidates:
            why = f"the candidates can't go; keep {name!r}, or say `was: {name}` where they have another name"
        elif name in new.retired or gone.section == "time.facets":
            why = ""
        else:
            why = f"it is gone; list {name!r} under `retired`, or say `was: {name}` where it has another name"
        yield Change(Step.RETIRED, key, before=_kind(gone), refused=why)


_NOT_FITTED = "until the whole log is tokenized again, since appending fits nothing"


def _of_added(facet: _Declared) -> str:
    """What a facet that was added can't tell yet: ids get codes as they are appended, bins and centroids are fitted."""
    match facet.rule:
        case FacetRule(kind=Kind.NUMBER | Kind.DURATION):
            return f"all its values are in one bin {_NOT_FITTED}"
        case FacetRule(kind=Kind.VECTOR):
            return f"it has no centroids, so its codes are absent, {_NOT_FITTED}"
        case _:
            return ""


def _of_one(key: str, old: _Declared, new: _Declared) -> Iterator[Change]:
    """What is said of one facet: its kind and bins are for ever, its column and its spellings are not."""
    if (was := _kind(old)) != (now := _kind(new)):
        told = f"{with_article(was)} can't become {with_article(now)}"
        why = f"{told}; give it another name, and list this one under `retired`"
        yield Change(Step.CHANGED, key, was, now, refused=why)
        return
    rules = _differences(old.rule, new.rule)
    for field, (before, after) in rules.items():
        inner = f"{key}.{field}"
        if field == "candidates":
            yield Change(Step.CHANGED, inner, _text(before), _text(after), refused="the model ranks the same type")
        elif field == "day_level":
            gone = [action for action in before if action not in after]
            why = f"{gone[0]!r} has taken effect at the end of its day, and must go on to" if gone else ""
            yield Change(Step.CHANGED, inner, _text(before), _text(after), refused=why)
        else:
            refused = "" if field in ("column", "admit", "aliases") else _MEANT
            yield Change(Step.CHANGED, inner, _text(before), _text(after), refused=refused)


def _of_the_rest(old: EventSchema, new: EventSchema) -> Iterator[Change]:
    """What merges, what is dropped; and what decides no token: tables beside the log, targets, split, names."""
    yield from _differing(
        {
            f"merge.{field}": (getattr(old.merge, field), getattr(new.merge, field))
            for field in type(old.merge).model_fields
        },
        refused="a corpus merges events by one rule; keep it, or tokenize the whole log into another corpus",
    )
    yield from _differing({"drop": (old.drop, new.drop)})
    yield from _of_users(old.users, new.users)
    free = [key for key in DECIDES_NO_TOKEN if key not in ("revision", "items")]
    yield from _differing({key: (_at(old, key), _at(new, key)) for key in free}, raises=False)
    yield from _of_items(old, new)


def _of_items(old: EventSchema, new: EventSchema) -> Iterator[Change]:
    """What is known of items decides no token, but for their ages: those of items that are known already stay."""
    tables = [schema.items and schema.items.model_copy(update={"released": None}) for schema in (old, new)]
    yield from _differing({"items": (tables[0], tables[1])}, raises=False)
    before, after = (schema.items and schema.items.released for schema in (old, new))
    if before != after:
        aged = ClockFacet.AGE in new.clock_facets
        note = (
            "items that have a code keep the age they have; it holds for those that get one from now on" if aged else ""
        )
        yield Change(Step.CHANGED, "items.released", _text(before), _text(after), raises=aged, note=note)


def _at(schema: EventSchema, key: str) -> object:
    """What stands at a key; nothing where its section is left out."""
    found: object = schema
    for name in key.split("."):
        found = getattr(found, name, None)
    return found


def _of_users(old: UsersRule | None, new: UsersRule | None) -> Iterator[Change]:
    """Attributes of users: each goes on as what it was, or goes."""
    before, after = _attributes(old), _attributes(new)
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name, ""), after.get(name, "")
        if not was or not now:
            note = "" if was else f"no user has a value of it {_NOT_FITTED}"
            yield Change(Step.RETIRED if was else Step.ADDED, f"users.{name}", was, now, note=note)
        elif was != now:
            why = f"a {was} can't become a {now}; write it into another column"
            yield Change(Step.CHANGED, f"users.{name}", was, now, refused=why)
    if old and new and old.id != new.id:
        yield Change(Step.CHANGED, "users.id", old.id, new.id, raises=False)


def _attributes(rule: UsersRule | None) -> dict[str, str]:
    if rule is None:
        return {}
    return dict.fromkeys(rule.categories, "category") | dict.fromkeys(rule.numbers, "number")


def _differing(pairs: Mapping[str, tuple[object, object]], raises: bool = True, refused: str = "") -> Iterator[Change]:
    for key, (before, after) in pairs.items():
        if before != after:
            yield Change(Step.CHANGED, key, _text(before), _text(after), raises, refused)


def _differences(old: AnyRule, new: AnyRule) -> dict[str, tuple[Any, Any]]:
    before, after = _in_effect(old), _in_effect(new)
    return {field: (value, after[field]) for field, value in before.items() if value != after[field]}


def _in_effect(rule: AnyRule) -> dict[str, Any]:
    """What a rule says by field, defaults that depend on the kind filled in."""
    if rule is None:
        return {}
    found = {field: getattr(rule, field) for field in type(rule).model_fields if field not in ("was", "kind")}
    if isinstance(rule, FacetRule):
        found |= {"admit": rule.admitted_from, "buckets": rule.hashed_to}
    return found


def _kind(facet: _Declared) -> str:
    """What codes of a facet mean, in words: two facets of one kind may follow one another."""
    match facet.section:
        case "action":
            return "action"
        case "entities":
            return "entity"
        case "time.facets":
            return "facet of time"
        case section:
            assert isinstance(facet.rule, FacetRule)
            return f"{facet.rule.kind} of {'the context' if section == 'context' else 'the outcome'}"


def _text(value: Any) -> str:
    """A value as a table shows it."""
    match value:
        case None:
            return ""
        case tuple():
            return ", ".join(map(str, value))
        case dict():
            return ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
        case str() | int() | float():
            return str(value)
        case _ if hasattr(value, "model_dump"):
            return _text(value.model_dump(mode="json", exclude_defaults=True))
        case _:
            return str(value)
