"""A tokenizer on disk: tokenizer.json, and vocabularies, those who wait for a code, item table, centroids as Arrow
files. None of it is code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenization.codes.codecs import NumberCodec
from tokenization.codes.users import UserCodecs
from tokenization.codes.vocabulary import Vocabulary
from tokenization.errors import VocabularyError
from tokenization.items.array_files import load_arrays, save_arrays
from tokenization.items.content import ItemTable
from tokenization.items.semantic_ids import ResidualKMeans
from tokenization.merging.pairs import PairTable
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.split import Split

if TYPE_CHECKING:
    from tokenization.tokenizer.tokenizer import Tokenizer

FORMAT = 2
_NEEDED = frozenset({"fingerprint", "schema", "split", "numbers", "vocabularies"})


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write everything into a folder, which is made if absent."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, vocabulary in tokenizer.vocabularies.items():
        if name != tokenizer.schema.candidates:
            vocabulary.save(folder / f"vocabulary.{name}.arrow")
    waiting = sorted(name for name, vocabulary in tokenizer.vocabularies.items() if len(vocabulary.waiting))
    for name in waiting:
        tokenizer.vocabularies[name].save_waiting(folder / f"waiting.{name}.arrow")
    for name, vocabulary in tokenizer.users.vocabularies.items():
        vocabulary.save(folder / f"user.{name}.arrow")
    for name, centroids in tokenizer.centroids.items():
        save_arrays(centroids.to_arrays(), folder / f"centroids.{name}.arrow")
    tokenizer.items.save(folder)
    told = {
        "format": FORMAT,
        "fingerprint": tokenizer.fingerprint,
        "state": tokenizer.state,
        "schema": tokenizer.schema.to_dict(),
        "split": asdict(tokenizer.split),
        "numbers": {name: codec.edges for name, codec in tokenizer.numbers.items()},
        "vocabularies": sorted(tokenizer.vocabularies),
        "waiting": waiting,
        "pairs": tokenizer.pairs.merges if tokenizer.pairs else None,
        "centroids": sorted(tokenizer.centroids),
        "users": {
            "vocabularies": list(tokenizer.users.vocabularies),
            "numbers": {name: codec.edges for name, codec in tokenizer.users.numbers.items()},
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> tuple[dict[str, Any], str, str | None]:
    """What the constructor of `Tokenizer` takes, and the fingerprint and the state that the result must have, the state
    None where an earlier userfm told none.

    Raises:
        VocabularyError: a file is missing or damaged, or was written by a newer version.
    """
    told = _told(folder)
    schema = EventSchema.from_dict(told["schema"])
    items = ItemTable.load(folder)
    vocabularies = {
        name: items.ids if name == schema.candidates else Vocabulary.load(folder / f"vocabulary.{name}.arrow")
        for name in told["vocabularies"]
    }
    for name in told.get("waiting", ()):
        vocabularies[name] = vocabularies[name].with_waiting(folder / f"waiting.{name}.arrow")
    items = replace(items, ids=vocabularies[schema.candidates])
    users = told.get("users", {"vocabularies": [], "numbers": {}})
    parts = {
        "schema": schema,
        "split": Split(**told["split"]),
        "vocabularies": vocabularies,
        "numbers": _codecs(told["numbers"]),
        "items": items,
        "pairs": _pairs(told.get("pairs")),
        "centroids": {n: _centroids(folder / f"centroids.{n}.arrow") for n in told.get("centroids", ())},
        "users": UserCodecs(
            {name: Vocabulary.load(folder / f"user.{name}.arrow") for name in users["vocabularies"]},
            _codecs(users["numbers"]),
        ),
    }
    return parts, told["fingerprint"], told.get("state")


def _told(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VocabularyError(f"{folder} holds no tokenizer: {error}") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, dict) else None
        raise VocabularyError(
            f"{folder} has tokenizer format {found}, this userfm reads {FORMAT}; tokenize the log again"
        )
    if missing := _NEEDED - told.keys():
        raise VocabularyError(f"{folder} is damaged: its tokenizer.json has no {min(missing)}")
    return told


def _codecs(edges: Mapping[str, list[float]]) -> dict[str, NumberCodec]:
    return {name: NumberCodec(tuple(found)) for name, found in edges.items()}


def _pairs(merges: list[Any] | None) -> PairTable | None:
    return None if merges is None else PairTable(tuple((name, tuple(run), action) for name, run, action in merges))


def _centroids(path: Path) -> ResidualKMeans:
    arrays = load_arrays(path)
    try:
        return ResidualKMeans.from_arrays(arrays)
    except VocabularyError as error:
        raise VocabularyError(f"{path} holds no centroids: {error}") from error
