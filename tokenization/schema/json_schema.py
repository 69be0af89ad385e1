"""The declaration's JSON Schema, by which an editor completes keys, explains them and underlines what is wrong.

It knows keys, types and values. What keys say together (exactly one entity has `candidates`, a target is a facet) only
`EventSchema` knows, so `userfm schema check` has the last word.
"""

from __future__ import annotations

import json
from typing import Any

from tokenization.schema.event_schema import RESERVED, EventSchema

# Draft 7 is what editors' YAML servers read whole: https://github.com/redhat-developer/yaml-language-server
DRAFT = "http://json-schema.org/draft-07/schema#"
_FILLED = {"EntityRule": "column", "FacetRule": "column", "ItemsRule": "id", "UsersRule": "id"}
"""Keys that the model needs and a file may leave out, since `EventSchema` fills them in."""
_NAME = r"^[^\s\d.:/][^\s.:/]*$"
"""Looser than what a facet may be called: the classes of Unicode are not the same in every editor."""


def json_schema() -> dict[str, Any]:
    """The schema as JSON-serialisable values, the same for every run."""
    made = EventSchema.model_json_schema(by_alias=True)
    for rule, key in _FILLED.items():
        made["$defs"][rule]["required"] = [name for name in made["$defs"][rule]["required"] if name != key]
    for section in ("entities", "context", "outcome"):
        made["properties"][section]["propertyNames"] = {"pattern": _NAME, "not": {"enum": sorted(RESERVED)}}
    about = {
        "$schema": DRAFT,
        "title": "A userfm event schema",
        "description": "What the columns of an event log mean, and what is to be learned from it.",
    }
    return {**about, **_plain({key: value for key, value in made.items() if key not in about})}


def text() -> str:
    """The schema as the file `docs/schema.json` has it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _plain(node: Any) -> Any:
    """Without the titles that pydantic makes of names, and with descriptions on one line."""
    if isinstance(node, list):
        return [_plain(part) for part in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    return {
        key: " ".join(value.split()) if key == "description" and isinstance(value, str) else _plain(value)
        for key, value in kept.items()
    }
