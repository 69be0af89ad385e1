"""Tokens and tokenizers of one revision of a log, read as those of another.

Forwards, old corpora are read under a new declaration: renamed facets move, added ones are absent, retired ones go.
Backwards, old models read new corpora: their own facets by name, absent where they were retired, and codes that were
given after they were trained as unknown. A code means the same in both, or there is no translation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Codes, Longs
from tokenization.errors import SchemaError
from tokenization.evolution import origins, refuse_unless_compatible
from tokenization.facets import NumberCodec
from tokenization.ids import as_type
from tokenization.rules import FacetRule, Kind
from tokenization.schema import EventSchema
from tokenization.tokenizer import Tokenizer
from tokenization.vocabulary import ABSENT, FIRST, UNKNOWN, Vocabulary

Aliases = Mapping[str, str]


@dataclass(frozen=True)
class Column:
    """Where a column of the wanted tokens comes from.

    source: the column of the given tokens, None where they have nothing of it. codes: [size] the wanted code of each
    given one; whatever lies beyond is unknown. None where the column holds no codes, or they stay as they are.
    """

    source: str | None
    codes: Codes | None = None


@dataclass(frozen=True)
class Translation:
    """How token tables of one tokenizer become those of another. columns: by name of the wanted column, in order."""

    columns: Mapping[str, Column]

    def sources(self, wanted: list[str] | None = None) -> list[str]:
        """The columns of the given table that are needed for these of the wanted one; for all, where none is named."""
        found = [self.columns[name].source for name in (wanted or self.columns)]
        # A column of nothing takes its shape from the times.
        needed = found if None not in found else [*found, "time"]
        return list(dict.fromkeys(name for name in needed if name is not None))

    def apply(self, tokens: pa.Table, wanted: list[str] | None = None) -> pa.Table:
        """Rows of the given tokens [u] as rows of the wanted ones [u]; of the columns named, where some are."""
        names = wanted or list(self.columns)
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
        if kind is Kind.NUMBER:
            numbers[name] = NumberCodec(())
        elif name not in schema.clock_facets:
            vocabularies[name] = _EMPTY
    for name, aliases in _aliases(schema).items():
        vocabularies[name] = _respelt(vocabularies[name], aliases)
    return replace(tokenizer, schema=schema, vocabularies=vocabularies, numbers=numbers)


def translation(given: Tokenizer, wanted: Tokenizer) -> Translation:
    """How tokens that `given` made become tokens of `wanted`: two revisions of one log, in either order.

    Raises:
        SchemaError: a facet's codes mean one thing in one of them and another in the other; it is named.
    """
    forwards = given.schema.revision <= wanted.schema.revision
    older, newer = (given, wanted) if forwards else (wanted, given)
    brought = under(older, newer.schema)
    origin = origins(older.schema, newer.schema)
    for name, was in origin.items():
        if was is not None:
            _refuse_other_codes(name, brought, newer)
    names = origin if forwards else {was: name for name, was in origin.items() if was is not None}
    moves = _moves(given, wanted) if forwards else {}
    columns = {name: Column(name) for name in ("user_id", "time", "group")}
    for facet in wanted.facets:
        base, dot, part = facet.name.partition(".")
        source = names.get(base)
        codes = None if source is None else _codes(given, source, facet.size, moves.get(base))
        columns[facet.name] = Column(None if source is None else source + dot + part, codes)
    for name in wanted.numbers:
        source = names.get(name)
        columns[f"{name}.value"] = Column(None if source is None else f"{source}.value")
    return Translation({**columns, "events": Column("events")})


_EMPTY = Vocabulary(pa.array([], pa.string()), np.zeros(0, np.int64), np.zeros(0))


def _aliases(schema: EventSchema) -> dict[str, Aliases]:
    found: dict[str, Aliases] = {"action": schema.action.aliases} if schema.action else {}
    found |= {name: rule.aliases for name, rule in schema.facets.items() if isinstance(rule, FacetRule)}
    return {name: aliases for name, aliases in found.items() if aliases}


def _respelt(vocabulary: Vocabulary, aliases: Aliases) -> Vocabulary:
    """A value that is spelt otherwise from now on keeps its code, unless the new spelling has one already."""
    ids = vocabulary.ids.cast(pa.string()).to_pylist()
    known = set(ids)
    for place, value in enumerate(ids):
        now = aliases.get(value)
        if now is not None and now not in known:
            ids[place] = now
            known.add(now)
    spelt = pa.array(ids, pa.string())
    kept = as_type(spelt, vocabulary.ids.type)
    return replace(vocabulary, ids=spelt if kept.null_count else kept)


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
    return found


def _codes(given: Tokenizer, source: str, size: int, moves: Codes | None) -> Codes | None:
    """[given codes] → wanted codes; those that the wanted tokenizer has not given are unknown."""
    held = next((facet.size for facet in given.facets if facet.name.partition(".")[0] == source), 0)
    codes = np.arange(held, dtype=np.int32) if moves is None else moves
    if moves is None and held <= size:
        return None
    return np.where(codes < size, codes, UNKNOWN).astype(np.int32)


def _refuse_other_codes(name: str, brought: Tokenizer, newer: Tokenizer) -> None:
    old, new = brought.numbers.get(name), newer.numbers.get(name)
    if old != new:
        raise SchemaError(f"{name!r} has other bins in the two; tokenize both with the first one's tokenizer")
    if name not in brought.vocabularies or name not in newer.vocabularies:
        return
    first, second = (tokenizer.vocabularies[name].ids.cast(pa.string()) for tokenizer in (brought, newer))
    both = min(len(first), len(second))
    if not first.slice(0, both).equals(second.slice(0, both)):
        place = int(np.argmin(pc.equal(first.slice(0, both), second.slice(0, both)).to_numpy(zero_copy_only=False)))
        raise SchemaError(
            f"{name!r} has other codes in the two, the first of them {place + FIRST}; "
            "tokenize both with the first one's tokenizer"
        )


def _translated(tokens: pa.Table, name: str, column: Column) -> pa.ChunkedArray:
    if column.source is None:
        chunks = [_nothing(chunk, name) for chunk in tokens.column("time").chunks]
        return pa.chunked_array(chunks, pa.list_(pa.float32() if name.endswith(".value") else pa.int32()))
    found = tokens.column(column.source)
    if column.codes is None:
        return found
    return pa.chunked_array([_recoded(chunk, column.codes) for chunk in found.chunks], found.type)


def _nothing(times: pa.ListArray, name: str) -> pa.ListArray:
    """As long a list for every user as that of times: of code 0, or of no number."""
    offsets = _offsets(times)
    count = int(offsets[-1])
    values = pa.nulls(count, pa.float32()) if name.endswith(".value") else pa.array(np.zeros(count, np.int32))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _recoded(lists: pa.ListArray, codes: Codes) -> pa.ListArray:
    values = lists.flatten().to_numpy(zero_copy_only=False)
    known = np.append(codes, np.int32(UNKNOWN))
    recoded = known[np.minimum(values, len(codes))].astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(_offsets(lists), pa.int32()), pa.array(recoded))


def _offsets(lists: pa.ListArray) -> Longs:
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return np.asarray(offsets - offsets[0])
