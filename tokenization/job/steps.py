"""What is done with each part of a log, wherever the part lies: surveyed, observed, turned into tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa

from tokenization.arrays import Longs
from tokenization.codes.counting import Moments
from tokenization.events.cleaning import Cleaned, clean
from tokenization.events.events import Events
from tokenization.job.freezing import Frozen, freeze
from tokenization.job.saying import Said, say
from tokenization.job.spilling import load
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer import fitting
from tokenization.tokenizer.fitting import Observed
from tokenization.tokenizer.split import Split, resolve
from tokenization.tokenizer.tokenizer import Tokenizer

T = TypeVar("T")
R = TypeVar("R")
_PARTS, _WORTH_CUTTING = 4, 200_000
NO_MOMENTS, _ANY = Moments.of(np.zeros(0)), Moments.of(np.zeros(1))


@dataclass(frozen=True, eq=False)
class Survey:
    """What became of a part's rows: sound events, the others as text with a column `reason`, those dropped by rule.

    keys: of the event ids of the sound ones and those dropped, where the schema names an event id. moments: of the
    part's events, where the split depends on them. observed: what the part teaches, where the split does not depend on
    the other parts.
    """

    events: int
    quarantined: pa.Table
    dropped: Mapping[str, int]
    keys: Longs
    moments: Moments
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
        return resolve(rule, _ANY) if told else None

    def clean(self, table: pa.Table) -> Cleaned:
        """The rows of a part as events."""
        return clean(table, self.schema, self.now)

    def survey(self, part: Cleaned) -> Survey:
        """Everything that is known of a part before the split."""
        events, moments, observed = part.events, NO_MOMENTS, None
        if self.split is None:
            moments = fitting.moments(self.schema, events)
        else:
            observed = self.observe(events, self.split)
        return Survey(len(events), part.quarantined, part.dropped, part.keys.values, moments, observed)

    def observe(self, events: Events, split: Split) -> Observed:
        """What a part teaches."""
        return fitting.observe(self.schema, split, events, self.items)

    def transform(self, events: Events, tokenizer: Tokenizer) -> Said:
        """The tokens of a part's users, and what of them is open."""
        return say(tokenizer, events, self.users)


class Work(Protocol):
    """What is done with each part: `Job` makes a corpus, `appending.Appending` goes on with one."""

    @property
    def schema(self) -> EventSchema: ...

    def clean(self, table: pa.Table) -> Cleaned: ...

    def survey(self, part: Cleaned) -> Survey: ...

    def observe(self, events: Events, split: Split) -> Observed: ...

    def transform(self, events: Events, tokenizer: Tokenizer) -> Said: ...


class Parts(Protocol):
    """A log in parts of whole users, in the order of their ids. Each method goes through all parts, in order; the
    survey is the first."""

    def survey(self) -> Iterator[Survey]:
        """See `Job.survey`."""

    def observe(self, split: Split) -> Iterator[Observed]:
        """See `Job.observe`."""

    def transform(self, tokenizer: Tokenizer) -> Iterator[Said]:
        """See `Job.transform`."""


@dataclass(frozen=True, eq=False)
class WholeLog:
    """All rows in memory, in as many parts as keep two threads at work while a third one writes."""

    job: Work
    whole: Cleaned

    @cached_property
    def _parts(self) -> list[Events]:
        events = self.whole.events
        if len(events) < _WORTH_CUTTING:
            return [events]
        _, user = events.users.rank()
        before = np.cumsum(np.bincount(user)) - 1
        part_of_user = before * _PARTS // len(events)
        part_of_row = part_of_user[user]
        return list(in_order(lambda part: events.take(part_of_row == part), np.unique(part_of_user)))

    def survey(self) -> Iterator[Survey]:
        whole = self.whole
        nothing = replace(whole.keys, rows=whole.keys.rows[:0], values=whole.keys.values[:0])
        without = replace(whole, quarantined=whole.quarantined.slice(0, 0), dropped={}, keys=nothing)
        first, *others = self._parts  # the first tells of what is no event too
        parts = [replace(whole, events=first), *(replace(without, events=events) for events in others)]
        yield from in_order(self.job.survey, parts)

    def observe(self, split: Split) -> Iterator[Observed]:
        return in_order(lambda events: self.job.observe(events, split), self._parts)

    def transform(self, tokenizer: Tokenizer) -> Iterator[Said]:
        return in_order(lambda events: self.job.transform(events, tokenizer), self._parts)


@dataclass(frozen=True, eq=False)
class PartsOnDisk:
    """Files of rows, which the survey makes files of events; two are worked on at a time, and held in memory."""

    job: Work
    rows: Sequence[Path]
    events: list[Frozen] = field(default_factory=list)

    def survey(self) -> Iterator[Survey]:
        for survey, events in in_order(self._survey, self.rows):
            self.events.append(events)
            yield survey

    def _survey(self, path: Path) -> tuple[Survey, Frozen]:
        part = self.job.clean(load(path))
        path.unlink()
        return self.job.survey(part), freeze(part.events, path.with_suffix(".events"))

    def observe(self, split: Split) -> Iterator[Observed]:
        return in_order(lambda events: self.job.observe(events.thaw(), split), self.events)

    def transform(self, tokenizer: Tokenizer) -> Iterator[Said]:
        return in_order(lambda events: self.job.transform(events.thaw(), tokenizer), self.events)


def in_order(work: Callable[[T], R], items: Iterable[T], at_once: int = 2) -> Iterator[R]:
    """`map` in threads. No more results wait than threads, so memory holds as many parts, and the one in use."""
    coming: deque[Future[R]] = deque()
    with ThreadPoolExecutor(at_once) as threads:
        try:
            for item in items:
                coming.append(threads.submit(work, item))
                if len(coming) == at_once:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for waiting in coming:
                waiting.cancel()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next being made while one is used."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
