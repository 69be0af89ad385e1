"""The declaration that something was made by."""

from __future__ import annotations

import json
from pathlib import Path

from tokenization.corpus.manifest import Manifest
from tokenization.errors import SchemaError
from tokenization.schema.event_schema import EventSchema


def declared(path: str | Path) -> EventSchema:
    """The declaration in a YAML file, or that of the tokenizer in a folder: of a corpus, a run, a model.

    Raises:
        SchemaError: there is none, or it can't be read.
        CorpusError: a folder is a corpus of a newer version.
    """
    path = Path(path)
    if not path.is_dir():
        return EventSchema.from_yaml(path)
    of_corpus = [Manifest.read(path).tokenizer] if (path / "corpus.json").exists() else []
    for inner in (*of_corpus, "", "tokenizer", "model/tokenizer"):
        file = path / inner / "tokenizer.json"
        if not file.exists():
            continue
        try:
            return EventSchema.from_dict(json.loads(file.read_text(encoding="utf-8"))["schema"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SchemaError(f"{file} can't be read: {error}; copy the folder again") from error
    raise SchemaError(f"{path} holds no tokenizer; give a YAML file, or the folder of a corpus, a run or a model")
