"""One codec per kind of facet: ids that have no code of their own by two hashes, numbers by quantile, times by rule."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tokenization.arrays import Codes, Floats
from tokenization.codes.counting import Tally
from tokenization.codes.vocabulary import ABSENT, FIRST, UNKNOWN, Vocabulary
from tokenization.events import clock
from tokenization.events.events import Bags
from tokenization.ids import Ids
from tokenization.schema.rules import ClockFacet

POWERS = 32
"""A span of time goes by powers of two: code 2 is less than 2 s, code 2 + b is 2^b s and more."""
DISTANCES = FIRST + 2 * POWERS
"""Codes of a timestamp: spans before the event, then spans after it."""
CLOCK_SIZES = {
    ClockFacet.HOUR: FIRST + 24,
    ClockFacet.WEEKDAY: FIRST + 7,
    ClockFacet.MONTH: FIRST + 12,
    ClockFacet.GAP: FIRST + POWERS,
    ClockFacet.TENURE: FIRST + POWERS,
    ClockFacet.AGE: FIRST + POWERS,
}


@dataclass(frozen=True)
class NumberCodec:
    """Numbers by quantile: code 2 lies below the first edge, and bin i holds edge[i-1] <= number < edge[i]."""

    edges: tuple[float, ...]

    @classmethod
    def fit(cls, tally: Tally, bins: int = 32) -> NumberCodec:
        """At most `bins` bins, as equally full as they can be.

        A number that alone would fill a bin (the zero of most discounts) gets one of its own, so that the
        others are not lumped together with it.
        """
        distinct, counts = tally.values, tally.counts
        often = np.flatnonzero(counts * bins > counts.sum())
        alone = often[np.argsort(-counts[often], kind="stable")[: bins // 4]]
        others = np.delete(np.arange(len(distinct)), alone)
        filled = np.cumsum(counts[others])
        between = bins - 2 * len(alone)  # each number with a bin of its own takes two edges
        wanted = filled[-1:].sum() * np.arange(1, between) // between
        cuts = others[np.searchsorted(filled, wanted, side="right")] if len(others) else others
        edges = np.unique(np.concatenate([alone, alone + 1, cuts]))
        return cls(tuple(distinct[edges[(edges > 0) & (edges < len(distinct))]].tolist()))

    @property
    def size(self) -> int:
        """Number of codes."""
        return FIRST + len(self.edges) + 1

    def encode(self, values: Floats) -> Codes:
        """[n] numbers, NaN = absent → [n] codes."""
        codes = (self._edges.searchsorted(values, side="right") + FIRST).astype(np.int32)
        codes[np.isnan(values)] = ABSENT
        return codes

    @cached_property
    def _edges(self) -> Floats:
        return np.array(self.edges, np.float64)


def clock_codes(
    facets: Sequence[ClockFacet], zone: str, times: Floats, previous: Floats, first: Floats
) -> dict[str, Codes]:
    """What times say by themselves; all but the age of items, which is no matter of the clock.

    Args:
        zone: IANA name of the log's zone, for hour, weekday and month.
        times: [n] seconds since 1970 UTC; NaN = not told. previous, first: [n] the user's last earlier group and the
            first of all; NaN where there is none.

    Returns:
        [n] codes by name.
    """
    untold = np.isnan(times)
    local = clock.local_parts(times, zone, {ClockFacet.HOUR, ClockFacet.WEEKDAY, ClockFacet.MONTH}.intersection(facets))
    found = {name: np.where(untold, ABSENT, part + FIRST).astype(np.int32) for name, part in local.items()}
    if ClockFacet.GAP in facets:
        found[ClockFacet.GAP.value] = span_codes(times - previous)
    if ClockFacet.TENURE in facets:
        found[ClockFacet.TENURE.value] = span_codes(times - first)
    return found


def span_codes(spans: Floats) -> Codes:
    """[n] seconds, NaN = absent → [n] codes by powers of two; what is below zero counts as zero."""
    codes = np.log2(np.fmin(np.fmax(spans, 1.0), 2.0 ** (POWERS - 1))).astype(np.int32)  # fmax: NaN counts as 1
    codes += FIRST
    codes[np.isnan(spans)] = ABSENT
    return codes


def distance_codes(spans: Floats) -> Codes:
    """[n] seconds since a stamp, below zero where it lies ahead, NaN = absent → [n] codes."""
    codes = span_codes(np.abs(spans))
    return np.where(spans < 0, codes + POWERS, codes).astype(np.int32)


def hash_codes(column: Ids, known: Codes, vocabulary: Vocabulary, buckets: int) -> tuple[Codes, Codes]:
    """Two buckets [n] of each id that was not admitted when the vocabulary was fitted; the others have none.

    Two hashes, since two ids that share one bucket hardly ever share both (Tito Svenstrup et al., arXiv:1709.03933).

    Args:
        known: [n] codes of the ids by the vocabulary.
    """
    fitted = FIRST + int(np.count_nonzero(vocabulary.counts))
    rare = (known == UNKNOWN) | (known >= fitted)
    rows = np.flatnonzero(rare & ~column.missing)
    used, of_row = np.unique(column.index[rows], return_inverse=True)
    pairs = np.zeros((2, len(used)), np.int32)
    for place, key in enumerate(column.values.take(used).to_pylist()):
        digest = hashlib.blake2b(str(key).encode(), digest_size=16).digest()
        pairs[0, place] = FIRST + int.from_bytes(digest[:8], "little") % buckets
        pairs[1, place] = FIRST + int.from_bytes(digest[8:], "little") % buckets
    found = np.full((2, len(known)), ABSENT, np.int32)
    found[:, rows] = pairs[:, of_row]
    return found[0], found[1]


def word_codes(bags: Bags, vocabulary: Vocabulary, most: int) -> list[Codes]:
    """The first `most` words of each text, in their order: so many times [n] codes."""
    return _columns(bags, vocabulary.encode_ids(bags.members), most)


def set_codes(bags: Bags, vocabulary: Vocabulary, most: int) -> list[Codes]:
    """The distinct members of each set, those seen first in the log first, `most` of them: so many times [n] codes."""
    sizes = np.diff(bags.offsets)
    bag = np.repeat(np.arange(len(sizes)), sizes)
    # Distinct by the ids themselves: two unknown members stay two, and are in their places when they get codes.
    given = ~bags.members.missing
    held = np.unique(np.stack([bag, bags.members.index], axis=1)[given], axis=0)
    codes = vocabulary.encode_ids(Ids(bags.members.values, held[:, 1]))
    order = np.lexsort((np.where(codes == UNKNOWN, np.iinfo(np.int32).max, codes), held[:, 0]))
    counts = np.bincount(held[:, 0], minlength=len(sizes))
    return _columns(Bags(bags.index, np.append(0, np.cumsum(counts)), bags.members), codes[order], most)


def _columns(bags: Bags, codes: Codes, most: int) -> list[Codes]:
    sizes = np.append(np.diff(bags.offsets), 0)
    starts = np.append(bags.offsets[:-1], 0)
    padded = np.append(codes, np.int32(ABSENT))
    found = []
    for place in range(most):
        at = np.where(sizes > place, starts + place, len(codes))
        found.append(padded[at][bags.index])
    return found
