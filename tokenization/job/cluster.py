"""Parts of a log on a Ray cluster: Ray Data reads the files, brings each user's rows together, and works on the parts.

What the cluster has to share is what the log is read from: files on a disk that every machine sees, or behind URLs. The
corpus is written by the process that asks for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray
import ray.data

from tokenization.errors import UserfmError
from tokenization.events.cleaning import Cleaned
from tokenization.ids import Ids
from tokenization.job.partition import Borders, count_users, find_borders, route, sum_counts
from tokenization.job.saying import Said
from tokenization.job.steps import Job, Survey
from tokenization.sources.formats import Known
from tokenization.sources.tables import Scan
from tokenization.tokenizer.fitting import Observed
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.tokenizer import Tokenizer

R = TypeVar("R")


@contextmanager
def session(address: str | None = None) -> Iterator[None]:
    """A Ray session that ends with the block, unless it was there before.

    Args:
        address: of the cluster; None is the one that RAY_ADDRESS names, or one on this machine.
    """
    if ray.is_initialized():
        yield
        return
    # Ray starts workers at niceness 15: on one machine anything else would starve the work.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Workers import this project from where the driver found it.
    paths = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address=address,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def quietly() -> Iterator[None]:
    """Ray Data without bars and lines of its own, its results in order.

    Raises:
        UserfmError: what the work raised on a machine of the cluster.
    """
    context = ray.data.DataContext.get_current()
    options = context.execution_options
    before = context.enable_progress_bars, options.preserve_order, context.raise_original_map_exception
    context.enable_progress_bars, options.preserve_order, context.raise_original_map_exception = False, True, True
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:
        if (cause := _cause(error)) is not None:
            raise cause from error
        raise
    finally:
        context.enable_progress_bars, options.preserve_order, context.raise_original_map_exception = before
        logger.setLevel(level)


def _cause(error: BaseException | None) -> UserfmError | None:
    """The error of the work among those that Ray wraps around it."""
    while error is not None:
        if isinstance(error, UserfmError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


def looked_through(scan: Scan) -> Scan:
    """The same scan with the types and rows of each file known: every file is looked at where it is read."""
    told = ray.put(scan)

    def look(row: dict[str, Any]) -> dict[str, Any]:
        scan: Scan = ray.get(told)
        part = scan.parts[row["file"]]
        types = scan.look(part)
        return {"file": row["file"], "types": pa.schema(types.items()).serialize().to_pybytes(), "rows": part.rows}

    found = sorted(_files(scan).map(look).take_all(), key=lambda row: row["file"])
    known = []
    for part, row in zip(scan.parts, found, strict=True):
        schema = pa.ipc.read_schema(pa.py_buffer(row["types"]))
        known.append(Known(part, {field.name: field.type for field in schema}, row["rows"]))
    return replace(scan, parts=tuple(known))


def _files(scan: Scan) -> ray.data.Dataset:
    numbers = [{"file": number} for number in range(len(scan.parts))]
    return ray.data.from_items(numbers, override_num_blocks=len(numbers))


def lay_out(scan: Scan, job: Job, part_rows: int) -> ClusterParts:
    """The log in parts of whole users, in the memory of the cluster, and on its disks where that is too small.

    Args:
        scan: of which `looked_through` knows the types.
    """
    user = job.schema.user
    counts = _files(scan).map_batches(_counting(scan, user), **_ONE)
    borders = find_borders(*sum_counts(counts.iter_batches(batch_size=None, batch_format="pyarrow")), part_rows)
    routed = _files(scan).map_batches(_routing(scan, user, borders), **_ONE)
    whole = routed.groupby("part", num_partitions=borders.parts).map_groups(_joined, batch_format="pyarrow")
    return ClusterParts(job, whole.sort("part").materialize())


_ONE: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
"""A row of a dataset is a file of the log or a part of it: one at a time is plenty."""


def _counting(scan: Scan, user: str) -> Callable[[pa.Table], Iterator[pa.Table]]:
    told = ray.put(scan)

    def count(batch: pa.Table) -> Iterator[pa.Table]:
        for table in ray.get(told).batches([user], batch["file"][0].as_py()):
            yield count_users(Ids.of(table.column(user), user))

    return count


def _routing(scan: Scan, user: str, borders: Borders) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """Rows of a file by part, each some rows at once, which nothing on the way looks into or cuts in two. A shuffle
    keeps no order, so they have their place in the log beside them."""
    told = ray.put((scan, borders))

    def send(batch: pa.Table) -> Iterator[pa.Table]:
        scan, borders = ray.get(told)
        file = batch["file"][0].as_py()
        for number, tables in enumerate(route(scan.batches(None, file), user, borders)):
            yield _packed([(part, (file << 32) + number, table) for part, table in tables])

    return send


def _packed(rows: list[tuple[int, int, pa.Table]]) -> pa.Table:
    parts, places, tables = zip(*rows, strict=True)
    return pa.table({"part": parts, "place": places, "rows": pa.array(map(_bytes, tables), pa.large_binary())})


def _joined(group: pa.Table) -> pa.Table:
    """All rows of one part in the order of the log."""
    group = group.sort_by("place")
    return _packed([(group["part"][0].as_py(), 0, pa.concat_tables([_table(rows) for rows in group["rows"]]))])


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _table(packed: pa.Scalar) -> pa.Table:
    with pa.ipc.open_stream(packed.as_buffer()) as stream:
        return stream.read_all()


@dataclass(frozen=True, eq=False)
class ClusterParts:
    """Parts in the order of users; what is found of each comes here, part by part."""

    job: Job
    parts: ray.data.Dataset

    def survey(self) -> Iterator[Survey]:
        """See `Job.survey`."""
        return self._each(_survey, None)

    def observe(self, split: Split) -> Iterator[Observed]:
        """See `Job.observe`."""
        return self._each(_observe, split)

    def transform(self, tokenizer: Tokenizer) -> Iterator[Said]:
        """See `Job.transform`."""
        return self._each(_transform, tokenizer)

    def _each(self, work: Callable[[Job, Cleaned, Any], R], given: object) -> Iterator[R]:
        told = ray.put((self.job, given))

        def run(batch: pa.Table) -> dict[str, Any]:
            job, given = ray.get(told)
            found = np.empty(1, object)
            found[0] = work(job, job.clean(_table(batch["rows"][0])), given)
            return {"found": found}

        return (row["found"] for row in self.parts.map_batches(run, **_ONE).iter_rows())


def _survey(job: Job, part: Cleaned, given: None) -> Survey:
    return job.survey(part)


def _observe(job: Job, part: Cleaned, split: Split) -> Observed:
    return job.observe(part.events, split)


def _transform(job: Job, part: Cleaned, tokenizer: Tokenizer) -> Said:
    return job.transform(part.events, tokenizer)
