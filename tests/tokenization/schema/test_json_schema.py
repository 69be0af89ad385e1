"""What an editor is told agrees with what the schema accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from jsonschema import Draft7Validator

from tests.tokenization.strategies import Broken, declarations, mistakes
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.json_schema import json_schema, text

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "complete_journey" / "schema.yaml"


class _Core(yaml.SafeLoader):
    """YAML as editors read it: a date is text."""


_Core.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    Draft7Validator.check_schema(json_schema())
    return Draft7Validator(json_schema())


def test_the_committed_file_is_what_is_generated() -> None:
    said = "run: userfm schema json --out docs/schema.json"
    assert (ROOT / "docs" / "schema.json").read_text(encoding="utf-8") == text(), said


def test_the_example_says_where_its_json_schema_is_and_agrees_with_it(validator: Draft7Validator) -> None:
    first = EXAMPLE.read_text(encoding="utf-8").splitlines()[0]
    where = first.removeprefix("# yaml-language-server: $schema=")
    assert (EXAMPLE.parent / where).resolve() == ROOT / "docs" / "schema.json"
    assert list(validator.iter_errors(yaml.load(EXAMPLE.read_text(encoding="utf-8"), Loader=_Core))) == []


@given(values=declarations())
@settings(max_examples=50)
def test_whatever_is_valid_validates(values: dict[str, Any], validator: Draft7Validator) -> None:
    EventSchema.from_dict(values)
    assert [error.message for error in validator.iter_errors(values)] == []


@given(broken=mistakes().filter(lambda broken: broken.why in ("misspelt", "of the wrong type", "no kind")))
@settings(max_examples=50)
def test_a_misspelt_key_and_a_wrong_type_do_not(broken: Broken, validator: Draft7Validator) -> None:
    assert list(validator.iter_errors(broken.values))


def test_every_key_is_explained() -> None:
    made = json_schema()
    keys = [key for node in (made, *made["$defs"].values()) for key in node.get("properties", {}).items()]
    assert [name for name, told in keys if not told.get("description")] == []


def test_what_a_file_may_leave_out_is_not_required(validator: Draft7Validator) -> None:
    told = {"schema": 1, "name": "x", "user": "u", "position": "p", "entities": {"film": {"candidates": True}}}
    assert validator.is_valid(told)
    assert validator.is_valid({**told, "outcome": {"stars": {"kind": "number"}}, "items": {"text": ["title"]}})
    assert validator.is_valid({**told, "merge": {"same_item_within": "30m"}})
    assert not validator.is_valid({**told, "merge": {"same_item_within": "30 minutes"}})
    assert not validator.is_valid({**told, "outcome": {"stars": {"column": "stars"}}})
    assert json.loads(text()) == json_schema()
