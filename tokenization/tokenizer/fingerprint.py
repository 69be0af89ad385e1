"""What a tokenizer is known by: hashes of everything that decides tokens, as far as its vocabularies are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tokenization.codes.vocabulary import FIRST, Vocabulary
from tokenization.items.semantic_ids import ResidualKMeans
from tokenization.schema.evolution import deciding
from tokenization.schema.rules import ClockFacet
from tokenization.tokenizer.facets import FacetKind
from tokenization.tokenizer.tokenizer_files import FORMAT

if TYPE_CHECKING:
    from tokenization.tokenizer.tokenizer import Tokenizer


def sizes_of(tokenizer: Tokenizer) -> dict[str, int]:
    """Numbers of codes of all vocabularies, as `prefix_fingerprint` takes them."""
    of_users = {f"user.{name}": vocabulary.size for name, vocabulary in tokenizer.users.vocabularies.items()}
    return {name: vocabulary.size for name, vocabulary in _vocabularies(tokenizer).items()} | of_users


def prefix_fingerprint(tokenizer: Tokenizer, sizes: Mapping[str, int]) -> str:
    """See `Tokenizer.prefix_fingerprint`."""
    told = {
        "format": FORMAT,
        "rules": deciding(tokenizer.schema),
        "facets": [facet.name for facet in tokenizer.facets],
        "numbers": {name: codec.edges for name, codec in tokenizer.numbers.items()},
        **({"pairs": tokenizer.pairs.merges} if tokenizer.pairs else {}),
        **_told_of_items(tokenizer, sizes),
        **({"centroids": {n: _hash(c) for n, c in tokenizer.centroids.items()}} if tokenizer.centroids else {}),
        "vocabularies": {n: v.prefix_hash(sizes.get(n, FIRST) - FIRST) for n, v in _vocabularies(tokenizer).items()},
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def state(tokenizer: Tokenizer) -> str:
    """See `Tokenizer.state`."""
    waiting = {name: v.waiting_hash for name, v in tokenizer.vocabularies.items() if len(v.waiting)}
    told = {"fingerprint": tokenizer.fingerprint, "waiting": waiting}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _told_of_items(tokenizer: Tokenizer, sizes: Mapping[str, int]) -> dict[str, object]:
    """What else decides tokens, where the schema asks for it: ages of items, classes of pairs, users, rare ids."""
    schema, table = tokenizer.schema, tokenizer.items
    items = max(sizes.get(schema.candidates, FIRST), FIRST)
    told: dict[str, object] = {}
    if ClockFacet.AGE in schema.clock_facets:
        told["ages"] = hashlib.sha256(table.first_seen[:items].tobytes()).hexdigest()
    by = schema.merge.pairs and schema.merge.pairs.by
    if by and by in table.categories:
        told["classes"] = hashlib.sha256(table.categories[by][:items].astype("<i4").tobytes()).hexdigest()
    hashed = [facet.table.removesuffix(".hash") for facet in tokenizer.facets if facet.kind is FacetKind.HASH]
    if hashed:
        told["admitted"] = {name: int(np.count_nonzero(tokenizer.vocabularies[name].counts)) for name in hashed}
    if tokenizer.users.sizes:
        known = tokenizer.users.vocabularies
        categories = {n: v.prefix_hash(sizes.get(f"user.{n}", FIRST) - FIRST) for n, v in known.items()}
        told["users"] = {**categories, **{name: codec.edges for name, codec in tokenizer.users.numbers.items()}}
    return told


def _vocabularies(tokenizer: Tokenizer) -> dict[str, Vocabulary]:
    of_items = {f"item.{name}": vocabulary for name, vocabulary in tokenizer.items.vocabularies.items()}
    return {**tokenizer.vocabularies, **of_items}


def _hash(centroids: ResidualKMeans) -> str:
    digest = hashlib.sha256()
    for name, array in centroids.to_arrays().items():
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
