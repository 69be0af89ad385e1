"""Columns of any Arrow type as arrays: numbers, vectors, and the members of sets and texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Floats, Vectors
from tokenization.errors import SourceError
from tokenization.events.events import Bags
from tokenization.ids import Ids

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_BETWEEN_WORDS = r"[^\pL\pN]+"


def numbers_of(column: pa.Array) -> Floats:
    """[n] float64; NaN where there is none, and where what is there is no number."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return numbers_of(column.dictionary_decode())
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        sound = pc.match_substring_regex(text, _NUMBER)
        column = pc.if_else(sound, text, pa.scalar(None, pa.string()))
    try:
        floats = column.cast(pa.float64(), safe=False)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise SourceError(f"a column of {kind} can't be read as numbers; declare another kind or cast it") from None
    return np.asarray(pc.fill_null(floats, np.nan).to_numpy(zero_copy_only=False))


def vectors_of(column: pa.Array, name: str) -> Vectors:
    """[n, w] float32 of a column of lists; NaN where there is none, or one of another length than most.

    Raises:
        SourceError: the column holds no lists of numbers.
    """
    if pa.types.is_null(column.type):
        return np.zeros((len(column), 0), np.float32)
    lists = _lists(column, name, "vectors; declare it as a list of floats")
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    try:
        flat = pc.fill_null(pc.list_flatten(lists).cast(pa.float32(), safe=False), np.nan)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise SourceError(f"column {name!r} holds lists of {column.type.value_type}, which are no vectors") from None
    width = int(np.bincount(sizes[sizes > 0]).argmax()) if (sizes > 0).any() else 0
    out = np.full((len(column), width), np.nan, np.float32)
    starts = np.cumsum(sizes) - sizes
    rows = np.flatnonzero(sizes == width) if width else np.zeros(0, np.int64)
    out[rows] = flat.to_numpy(zero_copy_only=False)[starts[rows, None] + np.arange(width)]
    return out


def bags_of_lists(column: pa.Array, name: str) -> Bags:
    """The members of a column of lists; a list without members is none.

    Raises:
        SourceError: the column holds no lists, or lists of what can't be an id.
    """
    if pa.types.is_null(column.type):
        return Bags(np.full(len(column), -1, np.int32), np.zeros(1, np.int64), Ids.of(pa.array([], pa.string()), name))
    return _bags(_lists(column, name, "sets; declare it as a list, or the facet as a category"), name)


def bags_of_texts(column: pa.Array, name: str, most: int) -> Bags:
    """The first `most` words of each text, in lower case. A word is letters and digits with nothing between them."""
    if pa.types.is_null(column.type):
        return bags_of_lists(column, name)
    texts = Ids.of(column, name)
    lowered = pc.utf8_lower(texts.values.cast(pa.string()))
    spaced = pc.utf8_trim_whitespace(pc.replace_substring_regex(lowered, pattern=_BETWEEN_WORDS, replacement=" "))
    words = pc.list_slice(pc.utf8_split_whitespace(spaced), 0, most)
    none = pc.equal(spaced, "")
    bags = _bags(pc.if_else(none, pa.scalar(None, words.type), words), name)
    return Bags(np.append(bags.index, np.int32(-1))[texts.index], bags.offsets, bags.members)


def _bags(lists: pa.Array, name: str) -> Bags:
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    index = np.where(sizes > 0, np.arange(len(lists)), -1).astype(np.int32)
    return Bags(index, np.append(0, np.cumsum(sizes)), Ids.of(pc.list_flatten(lists), name))


def _lists(column: pa.Array, name: str, what: str) -> pa.Array:
    kind = column.type
    if pa.types.is_list(kind):
        return column
    if pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_list_view(kind):
        return column.cast(pa.list_(kind.value_type))
    raise SourceError(f"column {name!r} holds {kind}, not {what}")
