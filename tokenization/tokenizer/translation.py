"""Tokens and tokenizers of one revision of a log, read as those of another.

Forwards, old corpora are read under a new declaration: renamed facets move, added ones are absent, retired ones go.
Backwards, old models read new corpora: their own facets by name, absent where they were retired, and codes that were
given after they were trained as unknown, the ages of items that they had not met as absent. A code means the same in
both, or there is no translation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Codes, Longs, Mask
from tokenization.codes.codecs import NumberCodec
from tokenization.codes.counting import Seen
from tokenization.codes.users import UserCodecs
from tokenization.codes.vocabulary import ABSENT, FIRST, UNKNOWN, Vocabulary
from tokenization.errors import SchemaError
from tokenization.ids import Ids, as_type, one_chunk
from tokenization.items.semantic_ids import ResidualKMeans
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.evolution import origins, refuse_unless_compatible
from tokenization.schema.rules import ClockFacet, FacetRule, Kind
from tokenization.tokenizer.facets import LASTED
from tokenization.tokenizer.lasting import may_last
from tokenization.tokenizer.tokenizer import Tokenizer

Aliases = Mapping[str, str]


@dataclass(frozen=True)
class Column:
    """Where a column of the wanted tokens comes from.

    source: the column of the given tokens, None where they have nothing of it. codes: [size] the wanted code of each
    given one; whatever lies beyond is unknown. None where the column holds no codes, or they stay as they are. items:
    of what is derived from an item, the given column of items; it is absent where the code of these is not one of the
    first [V] that are marked in known.
    """

    source: str | None
    codes: Codes | None = None
    items: str | None = None
    known: Mask | None = None


@dataclass(frozen=True)
class Translation:
    """How token tables of one tokenizer become those of another. columns: by name of the wanted column, in order."""

    columns: Mapping[str, Column]

    def sources(self, wanted: Sequence[str] | None = None) -> list[str]:
        """The columns of the given table that are needed for these of the wanted one; for all, where none is named."""
        columns = [self.columns[name] for name in (self.columns if wanted is None else wanted)]
        # A column of nothing takes its shape from the times.
        needed = [told.source or "time" for told in columns] + [told.items for told in columns if told.items]
        return list(dict.fromkeys(needed))

    def apply(self, tokens: pa.Table, wanted: Sequence[str] | None = None) -> pa.Table:
        """Rows of the given tokens [u] as rows of the wanted ones [u]; of the columns named, where some are."""
        # What was written before groups told how long they last has no column of it: they were instants.
        there = [name for name in self.columns if name != LASTED or name in tokens.column_names]
        names = list(there if wanted is None else wanted)
        return pa.table({name: _translated(tokens, name, self.columns[name]) for name in names})


def under(tokenizer: Tokenizer, schema: EventSchema) -> Tokenizer:
    """The tokenizer as a later revision of its schema has it.

    Codes stay: vocabularies and bins of renamed facets move with them, a value with a new spelling keeps its code.
    Added facets know nothing yet, and retired ones are gone.

    Raises:
        SchemaError: `schema` is no later revision of the tokenizer's, see `evolution.changes`.
    """
    refuse_unless_compatible(tokenizer.schema, schema)
    origin = origins(tokenizer.schema, schema)
    kept = [(name, was) for name, was in origin.items() if was is not None]
    vocabularies = {name: tokenizer.vocabularies[was] for name, was in kept if was in tokenizer.vocabularies}
    numbers = {name: tokenizer.numbers[was] for name, was in kept if was in tokenizer.numbers}
    for name in (name for name, was in origin.items() if was is None):
        kind = schema.facets[name].kind if name in schema.facets else None
        if kind in (Kind.NUMBER, Kind.DURATION):
            numbers[name] = NumberCodec(())
        elif kind not in (Kind.TIMESTAMP, Kind.VECTOR) and name not in schema.clock_facets:
            vocabularies[name] = _EMPTY
    for name, aliases in _aliases(schema).items():
        vocabularies[name] = _respelt(vocabularies[name], aliases)
    return replace(
        tokenizer,
        schema=schema,
        vocabularies=vocabularies,
        numbers=numbers,
        centroids={name: tokenizer.centroids[was] for name, was in kept if was in tokenizer.centroids},
        users=_declared_attributes(tokenizer.users, schema),
    )


def translation(given: Tokenizer, wanted: Tokenizer) -> Translation:
    """How tokens that `given` made become tokens of `wanted`: two revisions of one log, in either order.

    Raises:
        SchemaError: a facet's codes mean one thing in one of them and another in the other; it is named.
    """
    forwards = given.schema.revision <= wanted.schema.revision
    older, newer = (given, wanted) if forwards else (wanted, given)
    brought = under(older, newer.schema)
    origin = origins(older.schema, newer.schema)
    _refuse_other_codes([name for name, was in origin.items() if was is not None], brought, newer)
    names = dict(origin) if forwards else {was: name for name, was in origin.items() if was is not None}
    names["actions"] = "actions"
    moves = _moves(given, wanted) if forwards else {}
    sizes = {facet.name: facet.size for facet in given.facets}
    columns = {
        name: Column(name) for name in ("user_id", "time", "group", *((LASTED,) if may_last(given.schema) else ()))
    }
    for facet in wanted.facets:
        base, dot, part = facet.name.partition(".")
        source = names.get(base)
        moved = None if part.startswith("hash.") else moves.get(base)
        columns[facet.name] = _column(None if source is None else source + dot + part, sizes, facet.size, moved)
    if (age := ClockFacet.AGE.value) in columns:
        columns[age] = _of_known_items(columns[age], given, wanted)
    for name in _valued(wanted.schema):
        source = names.get(name)
        columns[f"{name}.value"] = Column(None if source is None else f"{source}.value")
    columns["events"] = Column("events")
    attributes = {f"user.{name}": size for name, size in given.users.sizes.items()}
    for name, size in wanted.users.sizes.items():
        source = f"user.{name}"
        columns[source] = _column(source if source in attributes else None, attributes, size)
    return Translation(columns)


_EMPTY = Vocabulary(pa.array([], pa.string()), np.zeros(0, np.int64), np.zeros(0))


def _declared_attributes(users: UserCodecs, schema: EventSchema) -> UserCodecs:
    """Codecs of the attributes of users that are still declared."""
    rule = schema.users
    if rule is None:
        return UserCodecs({}, {})
    return UserCodecs(
        {name: vocabulary for name, vocabulary in users.vocabularies.items() if name in rule.categories},
        {name: codec for name, codec in users.numbers.items() if name in rule.numbers},
    )


def _valued(schema: EventSchema) -> list[str]:
    """Facets whose numbers stand in the tokens beside their codes, in the order of the columns."""
    kinds = (Kind.NUMBER, Kind.DURATION, Kind.TIMESTAMP)
    timestamps = [name for name, rule in schema.facets.items() if rule.kind is Kind.TIMESTAMP]
    return [name for name, rule in schema.facets.items() if rule.kind in kinds[:2]] + timestamps


def _aliases(schema: EventSchema) -> dict[str, Aliases]:
    found: dict[str, Aliases] = {"action": schema.action.aliases} if schema.action else {}
    found |= {name: rule.aliases for name, rule in schema.facets.items() if isinstance(rule, FacetRule)}
    return {name: aliases for name, aliases in found.items() if aliases}


def _respelt(vocabulary: Vocabulary, aliases: Aliases) -> Vocabulary:
    """A value that is spelt otherwise from now on keeps its code, unless the new spelling has one already. Two
    spellings of one value wait together."""
    ids = vocabulary.ids.cast(pa.string()).to_pylist()
    known = set(ids)
    for place, value in enumerate(ids):
        now = aliases.get(value)
        if now is not None and now not in known:
            ids[place] = now
            known.add(now)
    spelt = pa.array(ids, pa.string())
    kept = as_type(spelt, vocabulary.ids.type)
    coded = replace(vocabulary, ids=spelt if kept.null_count else kept, waiting=Seen.nothing())
    waiting = vocabulary.waiting
    respelt = Ids.of(waiting.ids, "id").renamed(aliases).decode()
    return coded.meet(Seen.joined(respelt, waiting.counts, waiting.first))


def _moves(given: Tokenizer, wanted: Tokenizer) -> dict[str, Codes]:
    """By facet, the code each of its codes becomes, where two spellings that both had one are one value now."""
    found = {}
    origin = origins(given.schema, wanted.schema)
    for name, aliases in _aliases(wanted.schema).items():
        was = origin.get(name)
        if was is None or was not in given.vocabularies:
            continue
        ids = given.vocabularies[was].ids.cast(pa.string())
        place = {value: code for code, value in enumerate(wanted.vocabularies[name].ids.cast(pa.string()).to_pylist())}
        now = [place.get(aliases.get(value, value), number) for number, value in enumerate(ids.to_pylist())]
        found[name] = np.concatenate([[ABSENT, UNKNOWN], np.array(now, np.int64) + FIRST]).astype(np.int32)
    return found | ({"actions": found["action"]} if "action" in found else {})


def _column(source: str | None, held: Mapping[str, int], size: int, moves: Codes | None = None) -> Column:
    """A column of `size` codes; those that the given tokenizer has beyond them are unknown.

    Args:
        held: number of codes of each given column. moves: [held] what each of them becomes, where they change.
    """
    if source is None or (moves is None and held[source] <= size):
        return Column(source)
    codes = np.arange(held[source], dtype=np.int32) if moves is None else moves
    return Column(source, np.where(codes < size, codes, UNKNOWN).astype(np.int32))


def _of_known_items(ages: Column, given: Tokenizer, wanted: Tokenizer) -> Column:
    """The ages of items that the wanted tokenizer can tell the age of; of those met later it knows nothing."""
    theirs, known = (np.isfinite(tokenizer.items.first_seen) for tokenizer in (given, wanted))
    if ages.source is None or np.isin(np.flatnonzero(theirs), np.flatnonzero(known)).all():
        return ages
    return replace(ages, items=given.schema.candidates, known=known)


_MEND = "tokenize both with the first one's tokenizer"


def _refuse_other_codes(kept: list[str], brought: Tokenizer, newer: Tokenizer) -> None:
    """Of the facets that both have, by their name in the newer, every code means the same."""
    for name in kept:
        if brought.numbers.get(name) != newer.numbers.get(name):
            raise SchemaError(f"{name!r} has other bins in the two; {_MEND}")
        if name in brought.vocabularies:
            _refuse_other_ids(name, brought.vocabularies[name], newer.vocabularies[name])
        if _arrays(brought.centroids.get(name)) != _arrays(newer.centroids.get(name)):
            raise SchemaError(f"{name!r} has other centroids in the two; {_MEND}")
    if (brought.pairs and brought.pairs.merges) != (newer.pairs and newer.pairs.merges):
        raise SchemaError(f"merge.pairs: other pairs were learned in the two; {_MEND}")
    for name, vocabulary in brought.users.vocabularies.items():
        if name in newer.users.vocabularies:
            _refuse_other_ids(f"user.{name}", vocabulary, newer.users.vocabularies[name])
    for name, codec in brought.users.numbers.items():
        if newer.users.numbers.get(name, codec) != codec:
            raise SchemaError(f"'user.{name}' has other bins in the two; {_MEND}")


def _refuse_other_ids(name: str, old: Vocabulary, new: Vocabulary) -> None:
    both = min(len(old), len(new))
    first, second = (vocabulary.ids.slice(0, both).cast(pa.string()) for vocabulary in (old, new))
    if not first.equals(second):
        place = int(np.argmin(pc.equal(first, second).to_numpy(zero_copy_only=False)))
        raise SchemaError(f"{name!r} has other codes in the two, the first of them {place + FIRST}; {_MEND}")


def _arrays(centroids: ResidualKMeans | None) -> dict[str, bytes] | None:
    return None if centroids is None else {name: array.tobytes() for name, array in centroids.to_arrays().items()}


def _translated(tokens: pa.Table, name: str, column: Column) -> pa.ChunkedArray:
    if column.source is None and name.startswith("user."):
        return pa.chunked_array([pa.array(np.zeros(tokens.num_rows, np.int32))])
    if column.source is None:
        chunks = [_nothing(chunk, name) for chunk in tokens.column("time").chunks]
        return pa.chunked_array(chunks, pa.list_(pa.float64() if name.endswith(".value") else pa.int32()))
    found = tokens.column(column.source)
    if column.items is not None and column.known is not None:
        return _of_known(found, tokens.column(column.items), column.known)
    if column.codes is None:
        return found
    return pa.chunked_array([_recoded(chunk, column.codes) for chunk in found.chunks], found.type)


def _known(values: Codes, codes: Codes) -> pa.Array:
    return pa.array(np.append(codes, np.int32(UNKNOWN))[np.minimum(values, len(codes))].astype(np.int32))


def _of_known(found: pa.ChunkedArray, items: pa.ChunkedArray, known: Mask) -> pa.ChunkedArray:
    """Lists of codes, absent beside items that are not known."""
    column, item = one_chunk(found), one_chunk(items).flatten().to_numpy()
    kept = np.append(known, False)[np.minimum(item, len(known))]
    codes = np.where(kept, column.flatten().to_numpy(), ABSENT).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(_offsets(column), pa.int32()), pa.array(codes))
    return pa.chunked_array([lists], found.type)


def _nothing(times: pa.ListArray, name: str) -> pa.ListArray:
    """As long a list for every user as that of times: of code 0, or of no number."""
    offsets = _offsets(times)
    count = int(offsets[-1])
    values = pa.nulls(count, pa.float64()) if name.endswith(".value") else pa.array(np.zeros(count, np.int32))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _recoded(column: pa.Array, codes: Codes) -> pa.Array:
    """A column of lists of codes, or of codes."""
    if not pa.types.is_list(column.type):
        return _known(column.to_numpy(), codes)
    values = _known(column.flatten().to_numpy(), codes)
    return pa.ListArray.from_arrays(pa.array(_offsets(column), pa.int32()), values)


def _offsets(lists: pa.ListArray) -> Longs:
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return np.asarray(offsets - offsets[0])
