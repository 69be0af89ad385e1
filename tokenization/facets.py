"""One code per token and facet: 0 absent, 1 unknown, 2.. a value. Ids by vocabulary, numbers by quantile,
time by rule."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tokenization import clock
from tokenization.arrays import Codes, Floats
from tokenization.vocabulary import ABSENT, FIRST


class Role(StrEnum):
    """What a facet tells, and so when it is known: context at the request, the others only afterwards."""

    ACTION = "action"
    ENTITY = "entity"
    CONTEXT = "context"
    OUTCOME = "outcome"


class FacetKind(StrEnum):
    """How a facet's values become codes."""

    ID = "id"
    CATEGORY = "category"
    NUMBER = "number"
    HOUR = "hour"
    WEEKDAY = "weekday"
    GAP = "gap"


@dataclass(frozen=True)
class Facet:
    """One column of codes that the model reads; `size` counts its codes with 0 and 1."""

    name: str
    kind: FacetKind
    role: Role
    size: int


@dataclass(frozen=True)
class NumberCodec:
    """Numbers by quantile: code 2 lies below the first edge, and bin i holds edge[i-1] <= number < edge[i]."""

    edges: tuple[float, ...]

    @classmethod
    def fit(cls, values: Floats, bins: int = 32) -> NumberCodec:
        """At most `bins` bins, as equally full as they can be; NaN is left out.

        A number that alone would fill a bin (the zero of most discounts) gets one of its own, so that the
        others are not lumped together with it.
        """
        distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
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
        codes = np.searchsorted(np.asarray(self.edges), values, side="right") + FIRST
        return np.where(np.isnan(values), ABSENT, codes).astype(np.int32)


@dataclass(frozen=True)
class ClockCodec:
    """What a request's time says by itself: local hour and weekday, and the gap since the user's last group."""

    zone: str

    HOURS = FIRST + 24
    WEEKDAYS = FIRST + 7
    GAPS = FIRST + 32

    def encode(self, times: Floats, previous: Floats) -> tuple[Codes, Codes, Codes]:
        """Hour, weekday and gap codes.

        Args:
            times: [n] seconds since 1970 UTC; NaN = not told.
            previous: [n] the user's last earlier group; NaN where there is none.

        Returns:
            Three times [n] codes. Gaps go by powers of two: code 2 is less than 2 s, code 2 + b is 2^b s and
            more.
        """
        untold = np.isnan(times)
        hour, weekday = clock.hour_and_weekday(times, self.zone)
        gap = times - previous
        power = np.floor(np.log2(np.clip(np.nan_to_num(gap), 1.0, 2.0**31))).astype(np.int32)
        return (
            np.where(untold, ABSENT, hour + FIRST).astype(np.int32),
            np.where(untold, ABSENT, weekday + FIRST).astype(np.int32),
            np.where(np.isnan(gap), ABSENT, power + FIRST).astype(np.int32),
        )
