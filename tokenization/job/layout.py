"""A log laid out in parts of whole users: in memory, on disk, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tokenization.errors import SourceError
from tokenization.ids import Ids
from tokenization.job.partition import count_users, find_borders, part_rows_of, route, sum_counts
from tokenization.job.spilling import Rows, scratch, spill
from tokenization.job.steps import Job, Parts, PartsOnDisk, WholeLog, Work, ahead
from tokenization.sources.tables import Scan, scan_events

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) whenever something is done."""


@dataclass(frozen=True, eq=False)
class Log:
    """A log that lies ready in parts. rows: of all parts. refused: a place for those that make no sense. open: one for
    the events of groups that are open when all is read. keys: one for those of event ids."""

    parts: Parts
    rows: int
    refused: Rows
    open: Rows
    keys: Rows


Where = Callable[[Job, str | Path, Path, int, Progress], AbstractContextManager[Log]]
"""Lays the log at a path out in parts of so many rows, for as long as the block lasts: (job, events, out, rows,
progress)."""


@contextmanager
def on_this_machine(job: Work, events: str | Path, out: Path, part_rows: int, progress: Progress) -> Iterator[Log]:
    """The log in one part, in memory, or in several on disk."""
    scan = scan_events(events, job.schema)
    _check_rows(scan)
    part_rows = part_rows_of(scan.batches(), part_rows)
    if scan.rows <= 2 * part_rows:
        table = scan.read()
        progress("read", 1, 1)
        progress("check", 0, scan.rows)
        whole = WholeLog(job, job.clean(table))
        del table
        yield Log(whole, scan.rows, Rows(None), Rows(None), Rows(None))
        return
    with scratch(out) as folder:
        user = job.schema.user
        columns = _counted(scan.batches([user]), len, "users", scan.rows, progress)
        counts = sum_counts(count_users(Ids.of(batch.column(user), user)) for batch in columns)
        borders = find_borders(*counts, part_rows)
        routed = ahead(route(scan.batches(), user, borders))
        counted = _counted(routed, lambda tables: sum(len(t) for _, t in tables), "read", scan.rows, progress)
        paths = spill(counted, borders.parts, scan.schema, folder)
        aside = (Rows(folder / f"{what}.arrows") for what in ("refused", "open", "keys"))
        yield Log(PartsOnDisk(job, paths), scan.rows, *aside)


@contextmanager
def on_ray(job: Job, events: str | Path, out: Path, part_rows: int, progress: Progress) -> Iterator[Log]:
    """The log in the memory of a Ray cluster, which reads it and works on its parts; this process writes the corpus.

    It is the cluster that RAY_ADDRESS names, or one that is started on this machine for as long as it takes. Every
    machine of it must be able to read the log. Needs the package `ray`.
    """
    from tokenization.job import cluster

    with cluster.session(), cluster.quietly(), scratch(out) as folder:
        scan = cluster.looked_through(scan_events(events, job.schema))
        _check_rows(scan)
        parts = cluster.lay_out(scan, job, part_rows)
        progress("read", scan.rows, scan.rows)
        yield Log(parts, scan.rows, Rows(None), Rows(folder / "open.arrows"), Rows(folder / "keys.arrows"))


def _check_rows(scan: Scan) -> None:
    if scan.rows == 0:
        raise SourceError(f"{scan.where} has no rows; give a table with at least one event")


def _counted(items: Iterable[T], size: Callable[[T], int], stage: str, rows: int, progress: Progress) -> Iterator[T]:
    """The same items, telling of how many rows they were."""
    done = 0
    for item in items:
        yield item
        done += size(item)
        progress(stage, done, rows)
