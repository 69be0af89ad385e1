"""What the values of a column look like, whatever it is called."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.arrays import Codes, Floats, Longs, Mask
from tokenization.events import clock
from tokenization.events.columns import numbers_of
from tokenization.ids import Ids, one_chunk

_NEARLY = 0.98
"""Share of the values of a column of text that must read as numbers, or as times, for it to be one of them."""
_YEARS = (1990, 2100)
_TICKS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_LEADING_ZERO = r"^[+-]?0\d"


class Shape(StrEnum):
    """What values are, as far as they tell by themselves."""

    EMPTY = "empty"
    FLAG = "flag"
    WHOLE = "whole numbers"
    FRACTIONAL = "numbers"
    STAMP = "times"
    WORDS = "text"
    VECTOR = "vectors"
    LIST = "lists"
    NESTED = "nested"


@dataclass(frozen=True, eq=False)
class Profile:
    """One column of n rows.

    given: [n] rows with a value. distinct: number of values. codes: [n] of each value a number from 0, -1 where there
    is none; empty of lists and what is nested. numbers: [n] of numbers, times as seconds since 1970 UTC where they say
    so themselves; empty of anything else. words: the mean number of words of a text. width: of vectors. odd: values of
    a column of numbers or times that are none.
    """

    name: str
    shape: Shape
    given: Mask
    distinct: int
    codes: Codes = field(default_factory=lambda: np.zeros(0, np.int32))
    numbers: Floats = field(default_factory=lambda: np.zeros(0))
    words: float = 0.0
    width: int = 0
    odd: int = 0

    @property
    def rows(self) -> int:
        """n."""
        return len(self.given)

    @property
    def share(self) -> float:
        """Of the rows, those with a value."""
        return float(self.given.mean()) if self.rows else 0.0

    @property
    def named(self) -> bool:
        """Whether the values can be names of something: ids, or categories."""
        return self.shape in (Shape.WHOLE, Shape.WORDS, Shape.FLAG)

    @property
    def unit(self) -> str | None:
        """What numbers would count since 1970, if they were times of our days; None where they can't be."""
        known = self.numbers[np.isfinite(self.numbers)]
        if self.shape not in (Shape.WHOLE, Shape.FRACTIONAL) or len(known) == 0:
            return None
        first, last = (np.datetime64(f"{year}-01-01", "s").astype(np.int64) for year in _YEARS)
        for unit, ticks in _TICKS.items():
            if known.min() >= first * ticks and known.max() < last * ticks:
                return unit
        return None

    def seconds(self) -> Floats:
        """[n] of times, seconds since 1970 UTC."""
        return self.numbers if self.shape is Shape.STAMP else self.numbers / _TICKS[self.unit or "s"]


def profile(name: str, column: pa.ChunkedArray) -> Profile:
    """Look at the values of one column."""
    values = one_chunk(column)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    given = pc.is_valid(values).to_numpy(zero_copy_only=False)
    kind = values.type
    if not given.any():
        return Profile(name, Shape.EMPTY, given, 0)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _of_lists(name, values, given)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return Profile(name, Shape.NESTED, given, 0)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _of_stamps(name, values, given)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _of_numbers(name, values, given)
    if pa.types.is_boolean(kind):
        ids = Ids.of(values, name)
        return Profile(name, Shape.FLAG, given, len(ids.values), ids.index)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _of_text(name, values.cast(pa.string()), given)
    return Profile(name, Shape.NESTED, given, 0)


def runs_of(codes: Codes) -> int:
    """So many times a value begins anew; as many as there are values, where equal ones stand together."""
    return 1 + int(np.count_nonzero(np.diff(codes))) if len(codes) else 0


def determined(codes: Codes, by: Codes) -> float:
    """Of the values of `by` that stand in two rows or more, the share with one value of `codes` alone; NaN for none.

    Rows without either are left out.
    """
    both = (codes >= 0) & (by >= 0)
    if not both.any():
        return float("nan")
    width = np.int64(codes.max() + 1)
    pairs = np.unique(by[both].astype(np.int64) * width + codes[both])
    values = np.bincount(pairs // width)
    often = np.bincount(by[both], minlength=len(values)) > 1
    return float((values[often] == 1).mean()) if often.any() else float("nan")


def joint(first: Codes, second: Codes) -> Codes:
    """[n] a number for each pair of values; -1 where either is missing."""
    both = (first >= 0) & (second >= 0)
    keys = first[both].astype(np.int64) * (int(second.max(initial=0)) + 1) + second[both]
    out = np.full(len(first), -1, np.int32)
    out[both] = np.unique(keys, return_inverse=True)[1]
    return out


def codes_of(numbers: Floats) -> Codes:
    """[n] numbers as codes; NaN becomes -1."""
    out = np.full(len(numbers), -1, np.int32)
    known = np.isfinite(numbers)
    out[known] = np.unique(numbers[known], return_inverse=True)[1]
    return out


def _of_lists(name: str, values: pa.Array, given: Mask) -> Profile:
    inner = values.type.value_type
    sizes: Longs = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.unique(sizes[given])
    numeric = pa.types.is_floating(inner) or (pa.types.is_integer(inner) and pa.types.is_fixed_size_list(values.type))
    if numeric and len(lengths) == 1 and lengths[0] > 1:
        return Profile(name, Shape.VECTOR, given, 0, width=int(lengths[0]))
    if pa.types.is_nested(inner):
        return Profile(name, Shape.NESTED, given, 0)
    return Profile(name, Shape.LIST, given, len(pc.unique(pc.list_flatten(values))))


def _of_stamps(name: str, values: pa.Array, given: Mask) -> Profile:
    seconds = clock.instants(values, "s", "UTC", np.zeros(len(values), np.bool_))
    codes = codes_of(seconds)
    odd = int(np.count_nonzero(given & np.isnan(seconds)))
    return Profile(name, Shape.STAMP, given, int(codes.max(initial=-1)) + 1, codes, seconds, odd=odd)


def _of_numbers(name: str, values: pa.Array, given: Mask) -> Profile:
    numbers = numbers_of(values)
    given = given & ~np.isnan(numbers)
    finite = numbers[np.isfinite(numbers)]
    if not given.any():
        return Profile(name, Shape.EMPTY, given, 0)
    whole = bool((finite == np.trunc(finite)).all()) and len(finite) > 0
    codes = Ids.of(values, name).index if pa.types.is_integer(values.type) else codes_of(numbers)
    shape = Shape.WHOLE if whole else Shape.FRACTIONAL
    odd = int(np.count_nonzero(given & ~np.isfinite(numbers)))
    return Profile(name, shape, given, int(codes.max(initial=-1)) + 1, codes, numbers, odd=odd)


def _of_text(name: str, values: pa.Array, given: Mask) -> Profile:
    numbers = numbers_of(values)
    read = np.isfinite(numbers) & given
    zeros = pc.any(pc.match_substring_regex(values, _LEADING_ZERO)).as_py()
    if read.sum() >= _NEARLY * given.sum() and not zeros:
        found = _of_numbers(name, pa.array(numbers), read)
        odd = int(np.count_nonzero(given & ~read))
        return Profile(name, found.shape, given, found.distinct, found.codes, found.numbers, odd=odd)
    stamps = _of_stamps(name, values, given)
    if given.sum() - stamps.odd >= _NEARLY * given.sum() and not zeros | read.any():
        return stamps
    ids = Ids.of(values, name)
    words = pc.mean(pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(ids.values)))).as_py()
    return Profile(name, Shape.WORDS, given, len(ids.values), ids.index, words=float(words or 0.0))
