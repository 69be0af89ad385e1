"""Declarations that nobody wrote: valid ones read back equal, and each mistake is one sentence with file, line, key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenization.strategies import Broken, declarations, mistakes
from tokenization.errors import SchemaError
from tokenization.schema.event_schema import EventSchema


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed") / "schema.yaml"


@given(values=declarations())
@settings(max_examples=50)
def test_a_valid_declaration_reads_back_equal_from_yaml_and_from_python(values: dict[str, Any], file: Path) -> None:
    file.write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), encoding="utf-8")
    schema = EventSchema.from_yaml(file)
    assert schema == EventSchema.from_dict(values)
    assert schema == EventSchema.from_dict(schema.to_dict())
    assert schema.user in schema.columns


@given(broken=mistakes())
@settings(max_examples=150)
def test_a_mistake_is_one_sentence_with_file_line_and_key(broken: Broken, file: Path) -> None:
    file.write_text(yaml.safe_dump(broken.values, allow_unicode=True, sort_keys=False), encoding="utf-8")
    with pytest.raises(SchemaError) as caught:
        EventSchema.from_yaml(file)
    said = str(caught.value)
    assert re.match(re.escape(str(file)) + r":\d+: ", said), said
    assert broken.key in said
    assert "\n" not in said
    assert "Traceback" not in said


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


_keys = st.sampled_from([field.alias or name for name, field in EventSchema.model_fields.items()])


@given(values=declarations(), key=_keys, junk=_json)
@settings(max_examples=100)
def test_whatever_stands_at_a_key_is_read_or_refused_with_the_file(
    values: dict[str, Any], key: str, junk: object, file: Path
) -> None:
    values[key] = junk
    file.write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), encoding="utf-8")
    said = _said(file)
    assert said is None or said.startswith(f"{file}:")


def _said(file: Path) -> str | None:
    try:
        EventSchema.from_yaml(file)
    except SchemaError as error:
        return str(error)
    return None


@given(text=st.text(max_size=80) | st.binary(max_size=80).map(lambda raw: raw.decode("latin-1")))
@settings(max_examples=100)
def test_any_text_is_read_or_refused_with_the_file(text: str, file: Path) -> None:
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(SchemaError, match=re.escape(str(file))):
        EventSchema.from_yaml(file)
