"""What is done with each part of a log, wherever the part lies: surveyed, observed, turned into tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from tokenization import fitting
from tokenization.cleaning import Cleaned, clean
from tokenization.counting import Span
from tokenization.fitting import Observed
from tokenization.schema import EventSchema
from tokenization.split import Split, resolve
from tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Survey:
    """What became of a part's rows: sound events, the others as text with a column `reason`, those dropped by rule.

    span: of the part's groups, where the split depends on it. observed: what the part teaches, where the split does
    not depend on the other parts.
    """

    events: int
    quarantined: pa.Table
    dropped: Mapping[str, int]
    span: Span
    observed: Observed | None


@dataclass(frozen=True, eq=False)
class Job:
    """What every part has to know. now: seconds since 1970 UTC, the same for all. items, users: tables as declared."""

    schema: EventSchema
    now: float
    items: pa.Table | None
    users: pa.Table | None

    @property
    def split(self) -> Split | None:
        """The split, where it is the same whatever the log holds."""
        rule = self.schema.split
        told = rule.last_items is not None or rule.validation is not None
        return resolve(rule, Span(0.0, 0.0)) if told else None

    def clean(self, table: pa.Table) -> Cleaned:
        """The rows of a part as events."""
        return clean(table, self.schema, self.now)

    def survey(self, part: Cleaned) -> Survey:
        """Everything that is known of a part before the split."""
        span, observed = Span(), None
        if self.split is None:
            span = fitting.span(self.schema, part.events)
        else:
            observed = self.observe(part, self.split)
        return Survey(len(part.events), part.quarantined, part.dropped, span, observed)

    def observe(self, part: Cleaned, split: Split) -> Observed:
        """What a part teaches."""
        return fitting.observe(self.schema, split, part.events, self.items)

    def transform(self, part: Cleaned, tokenizer: Tokenizer) -> pa.Table:
        """The tokens of a part's users."""
        return tokenizer.transform(part.events, self.users)


class Parts(Protocol):
    """A log in parts of whole users, in the order of their ids; each method goes through all parts, in order."""

    def survey(self) -> Iterator[Survey]:
        """See `Job.survey`."""

    def observe(self, split: Split) -> Iterator[Observed]:
        """See `Job.observe`."""

    def transform(self, tokenizer: Tokenizer) -> Iterator[pa.Table]:
        """See `Job.transform`."""


@dataclass(frozen=True, eq=False)
class LocalParts:
    """Parts on this machine, each loaded when its turn comes."""

    job: Job
    loads: Sequence[Callable[[], Cleaned]]

    def survey(self) -> Iterator[Survey]:
        return (self.job.survey(part) for part in _ahead(self.loads))

    def observe(self, split: Split) -> Iterator[Observed]:
        return (self.job.observe(part, split) for part in _ahead(self.loads))

    def transform(self, tokenizer: Tokenizer) -> Iterator[pa.Table]:
        return (self.job.transform(part, tokenizer) for part in _ahead(self.loads))


def _ahead(loads: Sequence[Callable[[], Cleaned]]) -> Iterator[Cleaned]:
    """The parts, the next of them being loaded while one is worked on."""
    with ThreadPoolExecutor(1) as thread:
        coming = [thread.submit(load) for load in loads[:1]]
        for load in loads[1:]:
            coming.append(thread.submit(load))
            yield coming.pop(0).result()
        yield from (part.result() for part in coming)
