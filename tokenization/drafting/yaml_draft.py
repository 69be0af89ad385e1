"""A draft as the YAML file that a user goes on to edit, with the reason beside each key."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import yaml

from tokenization.drafting.inference import Draft
from tokenization.drafting.placing import Placed
from tokenization.schema.rules import Kind

_WIDTH = 100
_HEAD = """\
# Editors complete and check this file once `userfm schema json --out {editor}` wrote what the next line names.
# yaml-language-server: $schema={editor}
#
# Drafted from {source}: {rows:,} rows of it were looked at. Names are hints, values decided; comments say why.
# Read it once: what leaks if it is wrong are `context` (must be known before the item is) and `split`.
# Then: userfm schema check FILE, and userfm tokenize FILE EVENTS --out corpus
"""
EDITOR = "userfm.schema.json"
_ANYBODYS = frozenset({"", "events", "event", "log", "logs", "data", "interactions", "part-0", "train"})


def written(draft: Draft, source: str, unread: Mapping[str, int] = MappingProxyType({})) -> str:
    """The whole file. source: the path that was looked at. unread: why rows can't be read, and how many for each."""
    lines = [
        _HEAD.format(editor=EDITOR, source=_one_line(source.rsplit("/", 1)[-1]), rows=draft.rows),
        *(f"# {count:,} rows can't be read, and go to quarantine: {_one_line(why)}" for why, count in unread.items()),
        "schema: 1",
        f"name: {_scalar(_name(source))}",
        "revision: 1  # raise it when a facet is added, renamed (`was`) or retired; `userfm schema diff` says when",
        "",
        *_entry("", "user", _scalar(draft.user.column), draft.user.why),
        *_clock(draft),
        *_action(draft),
        *(_entry("", "group", _scalar(draft.group.column), draft.group.why) if draft.group else ()),
        *_entry_of_row(draft),
        "",
        "entities:  # what events are about; a row has at most one of them",
        *_entities(draft),
        *_facets(draft, "context", "known when a recommendation is asked for, whatever the item"),
        *_facets(draft, "outcome", "known only afterwards, or through the item"),
        *_left_out(draft),
        "",
        *_tables(draft),
        *_merging(draft),
        *_learned(draft),
    ]
    return "\n".join(lines) + "\n"


def _name(source: str) -> str:
    """What the log is called: as its file, or where that could be anybody's, as its folder."""
    *folders, file = (part for part in re.split(r"[/\\]+", source) if part)
    stem = file.split(".")[0]
    return folders[-1] if stem.lower() in _ANYBODYS and folders else stem or "log"


def _clock(draft: Draft) -> Iterator[str]:
    clock = draft.clock
    if draft.positions:
        yield from _entry("", "position", _scalar(clock.column), clock.why)
        return
    first, last = (datetime.fromtimestamp(moment, UTC).date() for moment in draft.span)
    about = f"{clock.why}, from {first} to {last}. Stamps without a zone are UTC; set `zone: America/New_York` or so"
    unit = {"unit": clock.unit} if clock.unit not in ("", "s") else {}
    yield from _entry("", "time", _flow(column=clock.column, **unit), about)


def _action(draft: Draft) -> Iterator[str]:
    if draft.action is None:
        return
    if draft.day_level:
        why = f"{draft.action.why}. Those of day_level have no time of day; they take effect at the end of their day"
        days = ", ".join(map(_scalar, draft.day_level))
        yield from _entry("", "action", f"{{column: {_scalar(draft.action.column)}, day_level: [{days}]}}", why)
    else:
        yield from _entry("", "action", _flow(column=draft.action.column), draft.action.why)


def _entry_of_row(draft: Draft) -> Iterator[str]:
    if draft.event_id:
        yield from _entry("", "event_id", _scalar(draft.event_id.column), draft.event_id.why)


def _entities(draft: Draft) -> Iterator[str]:
    column = {} if draft.item.column == draft.item_name else {"column": draft.item.column}
    why = f"{draft.item.why}. These are recommended"
    yield from _entry("  ", _scalar(draft.item_name), _flow(**column, candidates="true"), why)
    for name, pick in draft.others.items():
        column = {} if pick.column == name else {"column": pick.column}
        yield from _entry("  ", _scalar(name), _flow(**column), pick.why)


def _facets(draft: Draft, section: str, about: str) -> Iterator[str]:
    yield ""
    facets = [facet for facet in draft.facets if facet.section == section]
    if not facets:
        yield f"# {section}:  # {about}; no column seems to be"
        return
    yield f"{section}:  # {about}"
    for facet in facets:
        yield from _entry("  ", _scalar(facet.name), _rule(facet), facet.why)


def _rule(facet: Placed) -> str:
    assert facet.kind is not None
    column = {} if facet.column == facet.name else {"column": facet.column}
    return _flow(**column, kind=str(facet.kind), **facet.keys)


def _left_out(draft: Draft) -> Iterator[str]:
    if draft.left_out:
        yield ""
        yield "# Not read:"
        for column, why in draft.left_out.items():
            yield from _comment("", f"- {_one_line(column)}: {why}")


def _tables(draft: Draft) -> Iterator[str]:
    yield from (
        "# items:                     # a table with a row an item: userfm tokenize ... --items items.parquet",
        f"#   id: {_one_line(_scalar(draft.item.column))}",
        "#   categories: []           # columns with one of a few values: department, genre, brand",
        "#   text: []                 # columns whose words say what an item is: title, description",
        "#   vectors: []              # columns of content vectors, of images or sounds",
        *(
            []
            if draft.positions
            else ["#   released: COLUMN         # since when an item exists; its age counts from it"]
        ),
        "# users:                     # a table with a row a user",
        f"#   id: {_one_line(_scalar(draft.user.column))}",
        "#   categories: []",
        "#   numbers: []",
        "",
    )


def _merging(draft: Draft) -> Iterator[str]:
    yield "# merge:                     # which events become one token; numbers are summed unless `combine` says other"
    said = f"{draft.repeated:.1%} of the rows repeat the item of another row of their group"
    yield f"#   same_item_in_group: true # {said}"
    if not draft.positions:
        yield "#   same_item_within: 30m    # adjacent events of one item"
    yield ""


def _learned(draft: Draft) -> Iterator[str]:
    yield "targets:  # what the model learns to predict, with weights"
    yield f"  {_scalar(draft.item_name)}: 1.0"
    if draft.action:
        yield "  # action: 0.1"
    for facet in draft.facets:
        if facet.section == "outcome" and facet.kind in (Kind.NUMBER, Kind.DURATION):
            yield f"  # {_one_line(facet.name)}: 0.1"
    yield ""
    if draft.positions:
        yield "split: {last_items: 1}  # the last of every user is for testing, the one before for choosing settings"
    else:
        yield "split: {fraction: 0.9}  # fitted on the first nine tenths of the events; or give `time: 2024-03-20`"


def _entry(indent: str, key: str, value: str, why: str) -> list[str]:
    return [*_comment(indent, why), f"{indent}{key}: {value}"]


def _comment(indent: str, text: str) -> list[str]:
    said = _one_line(text)
    lead = f"{indent}# "
    return textwrap.wrap(
        said[:1].upper() + said[1:], _WIDTH, initial_indent=lead, subsequent_indent=lead, break_long_words=False
    )


def _one_line(text: str) -> str:
    """Names of columns come from others; none may end a comment."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _flow(**keys: str) -> str:
    inner = ", ".join(f"{key}: {value if value == 'true' else _scalar(value)}" for key, value in keys.items())
    return f"{{{inner}}}"


def _scalar(text: str) -> str:
    """A text as YAML holds it, inside of braces too: quoted where it would be read as something else."""
    return yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=10**6).strip()[1:-1]
