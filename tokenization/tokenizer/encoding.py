"""Events → columns of codes and numbers, and the events that become one token → tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tokenization.arrays import Codes, Floats, Integers, Longs, Mask, Vectors
from tokenization.codes.codecs import hash_codes, set_codes, word_codes
from tokenization.codes.vocabulary import ABSENT, FIRST, Vocabulary
from tokenization.errors import SourceError
from tokenization.events.events import Events
from tokenization.ids import Ids
from tokenization.items.semantic_ids import ResidualKMeans
from tokenization.merging.merging import Merged, Merging, in_order, merge
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import FacetRule, Kind
from tokenization.tokenizer.facets import ACTIONS, columns_of, hashes_of


def encode(
    schema: EventSchema,
    vocabularies: Mapping[str, Vocabulary],
    centroids: Mapping[str, ResidualKMeans],
    events: Events,
) -> dict[str, Codes]:
    """[n] codes by column of everything that is no number and no time."""
    codes: dict[str, Codes] = {}
    if schema.action:
        codes["action"] = vocabularies["action"].encode_ids(events.ids["action"])
    for name, entity in schema.entities.items():
        codes |= _id_codes(name, events.ids[name], vocabularies[name], entity.buckets)
    for name, rule in schema.facets.items():
        codes |= encode_facet(name, rule, events, vocabularies, centroids)
    if schema.merge.pairs:
        nothing = np.full(len(events), ABSENT, np.int32)
        codes |= {name: nothing if place else codes["action"] for place, name in enumerate(ACTIONS)}
    return codes


def encode_facet(
    name: str,
    rule: FacetRule,
    events: Events,
    vocabularies: Mapping[str, Vocabulary],
    centroids: Mapping[str, ResidualKMeans],
) -> dict[str, Codes]:
    """[n] codes by column of one facet; none of a number or a timestamp."""
    match rule.kind:
        case Kind.CATEGORY | Kind.ID:
            return _id_codes(name, events.ids[name], vocabularies[name], rule.hashed_to)
        case Kind.TEXT:
            columns = word_codes(events.bags[name], vocabularies[name], rule.most)
        case Kind.SET:
            columns = set_codes(events.bags[name], vocabularies[name], rule.most)
        case Kind.VECTOR:
            columns = _vector_codes(name, events.vectors[name], centroids.get(name), rule.levels)
        case Kind.NUMBER | Kind.DURATION | Kind.TIMESTAMP:
            columns = []
    return dict(zip(columns_of(name, rule), columns, strict=True)) if columns else {}


def _id_codes(name: str, column: Ids, vocabulary: Vocabulary, buckets: int) -> dict[str, Codes]:
    codes = {name: vocabulary.encode_ids(column)}
    if buckets:
        hashes = hash_codes(column, codes[name], vocabulary, buckets)
        codes |= zip(hashes_of(name, buckets), hashes, strict=True)
    return codes


def _vector_codes(name: str, vectors: Vectors, centroids: ResidualKMeans | None, levels: int) -> list[Codes]:
    """The nearest centroid of each level: so many times [n] codes; absent where a vector is, or where none was seen."""
    given = np.isfinite(vectors).all(axis=1) & (vectors.shape[1] > 0)
    found = np.full((levels, len(vectors)), ABSENT, np.int32)
    if centroids is not None and given.any():
        if vectors.shape[1] != centroids.width:
            lengths = f"{vectors.shape[1]}, where training had {centroids.width}"
            raise SourceError(f"{name!r} holds vectors of length {lengths}; give those of the same encoder")
        found[:, given] = centroids.encode(vectors[given]).T + FIRST
    return list(found)


def distances(events: Events, times: Floats) -> dict[str, Floats]:
    """[n] seconds from each stamp to the event; below zero where it lies ahead."""
    return {name: times - stamps for name, stamps in events.stamps.items()}


def place_of(schema: EventSchema, events: Events, of_event: Longs, codes: Mapping[str, Codes]) -> list[Integers]:
    """Keys [n] of the canonical order: group, entity type, entity, action; without codes, group and entity type."""
    kind = np.zeros(len(events), np.int32)
    for number, name in enumerate(schema.entities, start=1):
        kind[~events.ids[name].missing] = number
    if not codes:
        return [of_event, kind]
    entity = np.zeros(len(events), np.int32)
    for name in schema.entities:
        entity += codes[name]
    return [of_event, kind, entity, *([codes["action"]] if schema.action else [])]


def merge_events(
    schema: EventSchema,
    events: Events,
    place: Sequence[Integers],
    joined: Mask | None,
    codes: Mapping[str, Codes],
    numbers: Mapping[str, Floats],
    merging: Merging,
) -> Merged:
    """Tokens in the order of `place`; arguments as for `merge_keys`."""
    keys = merge_keys(schema, events, place, joined)
    return in_order(place, codes, numbers) if keys is None else merge(keys, codes, numbers, merging)


def merge_keys(
    schema: EventSchema, events: Events, place: Sequence[Integers], joined: Mask | None
) -> list[Integers] | None:
    """Keys [n] that agree where events become one token, in the order of `place`; None where none do.

    What merges is decided by the ids themselves rather than by their codes, so that two unknown products stay two.

    Args:
        joined: [n] events of groups that are one token whatever they hold; None where there are none.
    """
    lines = schema.merge.same_item_in_group
    if not lines and (joined is None or not joined.any()):
        return None
    row = np.arange(len(events))
    itself = row.copy()  # an event about nothing is like no other
    for name in schema.entities:
        given = ~events.ids[name].missing
        itself[given] = events.ids[name].index[given]
    action = events.ids["action"].index.astype(np.int64) + 1 if schema.action else np.zeros(len(events), np.int64)
    if joined is None:
        return [*place, itself, action]
    # Of a joined group all is one token, so nothing but the group tells its events apart.
    first, *rest = place
    keys = [first, *(np.where(joined, 0, key) for key in (*rest, itself, action))]
    return keys if lines else [*keys, np.where(joined, 0, row)]
