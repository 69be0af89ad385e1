from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokenization.corpus.declared import declared
from tokenization.errors import SchemaError
from tokenization.schema.event_schema import EventSchema


def test_a_declaration_is_found_in_a_file_and_in_folders(schema: EventSchema, tmp_path: Path) -> None:
    (tmp_path / "schema.yaml").write_text(json.dumps(schema.to_dict()))
    assert declared(tmp_path / "schema.yaml") == schema
    for inner in ("saved", "corpus/tokenizer", "run/model/tokenizer"):
        (tmp_path / inner).mkdir(parents=True)
        (tmp_path / inner / "tokenizer.json").write_text(json.dumps({"schema": schema.to_dict()}))
        assert declared(tmp_path / inner.split("/")[0]) == schema
    with pytest.raises(SchemaError, match="holds no tokenizer; give a YAML file, or the folder of a corpus"):
        declared(tmp_path)
    (tmp_path / "saved" / "tokenizer.json").write_text("{}")
    with pytest.raises(SchemaError, match="can't be read"):
        declared(tmp_path / "saved")
