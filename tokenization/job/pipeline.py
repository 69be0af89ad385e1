"""The job: an event table and an items table in, a corpus out.

A log that fits into memory is worked on there. A larger one is first sent to parts on disk, and every step goes through
the parts. The corpus is the same.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from tokenization.corpus.corpus import FORMAT as CORPUS
from tokenization.corpus.corpus import Corpus, Format, write_corpus
from tokenization.corpus.declared import declared
from tokenization.corpus.opened import Onward
from tokenization.errors import CorpusError, SourceError
from tokenization.items.content import TextVectors
from tokenization.job.layout import Log, Progress, Where, on_this_machine
from tokenization.job.partition import PART_ROWS
from tokenization.job.steps import Job
from tokenization.job.surveying import Found, refuse, surveyed, told
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.files import stamp, stamps
from tokenization.sources.tables import items_rule, read_items, read_users, users_rule
from tokenization.tokenizer.split import resolve
from tokenization.tokenizer.tokenizer import Tokenizer
from tokenization.tokenizer.tokenizer_files import FORMAT as TOKENIZER
from tokenization.tokenizer.tokens import sums

T = TypeVar("T")


def tokenize(
    schema_path: str | Path,
    events_path: str | Path,
    items_path: str | Path | None,
    out: str | Path,
    format: Format = "parquet",
    progress: Progress = lambda stage, done, total: None,
    *,
    users_path: str | Path | None = None,
    strict: bool = False,
    part_rows: int = PART_ROWS,
    where: Where = on_this_machine,
) -> Corpus:
    """Read a log, fit its tokenizer on what lies before the split, and write a corpus.

    Args:
        events_path: of the log; like those of items and users, a path or a URL, of a file or a folder.
        items_path: table of the candidates; None where there is none.
        out: folder of the corpus. A corpus that is there is replaced; but where it was made of these same files by
            this same declaration, it is returned as it is. One of a later revision is left alone.
        users_path: table of what is known of the users; None where there is none.
        strict: whether rows that make no sense end the job, instead of being set aside.
        part_rows: rows that are worked on at a time. A log of more than twice as many is cut into parts, on disk
            beside `out`; the corpus is the same whatever this is.
        where: the parts lie and are worked on: `on_this_machine` or `on_ray`.

    Returns:
        The corpus. Its `summary` says: events (rows read), tokens, merged (events that went into a token with
        others, less that token), kept (sums of numbers over all tokens, which are those of the events), quarantined
        (rows by reason), dropped (rows that the schema drops), dropped_by (these by what it says), users, items
        (candidates), seconds, events_per_second.

    Raises:
        SchemaError, SourceError, CorpusError: one sentence about what to mend.
    """
    start = time.perf_counter()
    inputs = _Inputs.of(schema_path, events_path, items_path, users_path)
    _refuse_earlier(Path(out), inputs.schema)
    if (made := _already_made(Path(out), inputs.digest, format)) is not None:
        refuse(made.summary["quarantined"] if strict else {}, made.summary["events"])
        progress("up to date", 1, 1)
        return made
    progress("read", 0, 1)
    schema = inputs.schema
    items = None if items_path is None else read_items(items_path, schema)
    users = None if users_path is None else read_users(users_path, users_rule(schema))
    job = Job(schema, time.time(), items, users)
    with _reading_texts(job) as texts, where(job, events_path, Path(out), part_rows, progress) as log:
        found = surveyed(log, progress)
        if found.reasons.total() == log.rows:
            said = told(found.reasons)
            raise SourceError(f"none of the {log.rows:,} rows makes sense: {said}; mend the log, or its declaration")
        refuse(found.reasons if strict else {}, log.rows)
        tokenizer = _fitted(log, job, found, texts, progress)
        # A corpus writes its summary when it has written the last of its tokens, and that one completes the summary.
        summary: dict[str, Any] = {"inputs": inputs.digest, "log": inputs.log}
        tables = _transformed(log, tokenizer, found, summary, start, progress)
        onward = Onward(log.open.tables(), log.keys.tables())
        corpus = write_corpus(out, tables, tokenizer, summary, format, log.refused.table(), onward)
    progress("write", summary["users"], summary["users"])
    return corpus


@dataclass(frozen=True)
class _Inputs:
    """What a corpus is made of. digest: changes whenever the declaration or a file does, as far as names, sizes and
    dates tell. log: the same of the events alone."""

    schema: EventSchema
    digest: str
    log: str

    @classmethod
    def of(cls, schema: str | Path, events: str | Path, items: str | Path | None, users: str | Path | None) -> _Inputs:
        declared = EventSchema.from_yaml(schema)
        made_of: list[object] = [CORPUS, TOKENIZER, declared.to_dict()]
        made_of += [[str(source), stamps(source)] for source in (events, items, users) if source is not None]
        return cls(declared, hashlib.sha256(json.dumps(made_of).encode()).hexdigest(), stamp(events))


@dataclass(eq=False)
class _Texts:
    """Texts of items on their way to vectors; done, total: how far."""

    coming: Future[TextVectors] | None = None
    done: int = 0
    total: int = 0

    def told(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def wait(self, progress: Progress) -> TextVectors | None:
        """What came of them."""
        if self.coming is None:
            return None
        while not wait([self.coming], 0.1).done:
            progress("item texts", self.done, self.total)
        progress("item texts", self.total, self.total)
        return self.coming.result()


@contextmanager
def _reading_texts(job: Job) -> Iterator[_Texts]:
    """Item texts become vectors while the log is read: they need nothing of it."""
    texts = _Texts()
    with ThreadPoolExecutor(1) as thread:
        if job.items is not None:
            texts.coming = thread.submit(TextVectors.read, job.items, items_rule(job.schema), texts.told)
        yield texts


def _fitted(log: Log, job: Job, found: Found, texts: _Texts, progress: Progress) -> Tokenizer:
    progress("fit", 0, 1)
    split = job.split or resolve(job.schema.split, found.moments)
    observed = found.observed or reduce(or_, log.parts.observe(split))
    tokenizer = Tokenizer.of(job.schema, split, observed, job.items, None, job.users, texts.wait(progress))
    progress("fit", 1, 1)
    return tokenizer


def _transformed(
    log: Log, tokenizer: Tokenizer, found: Found, summary: dict[str, Any], start: float, progress: Progress
) -> Iterator[pa.Table]:
    """The tokens part by part, and after the last one the summary."""
    events = found.events(log.rows)
    done = tokens = users = 0
    kept: dict[str, float] = {}
    progress("tokenize", 0, events)
    for said in log.parts.transform(tokenizer):
        table = said.tokens
        yield table
        log.open.add(said.open)
        users += table.num_rows
        kept = sums(table, tokenizer.schema, kept)
        tokens += pc.sum(pc.list_value_length(table["events"])).as_py() or 0
        done += pc.sum(pc.list_flatten(table["events"])).as_py() or 0
        progress("tokenize", done, events)
    progress("write", 0, users)
    seconds = time.perf_counter() - start
    summary |= {
        "events": log.rows,
        "tokens": tokens,
        "merged": events - tokens,
        "kept": {name: round(total, 6) for name, total in kept.items()},  # adding floats is not associative
        "quarantined": dict(found.reasons),
        "dropped": found.dropped.total(),
        "dropped_by": dict(found.dropped),
        "users": users,
        "items": len(tokenizer.items.ids),
        "seconds": seconds,
        "events_per_second": log.rows / seconds,
    }


def _refuse_earlier(out: Path, schema: EventSchema) -> None:
    """A corpus was brought under a later revision (`userfm schema apply`), which this declaration would undo."""
    if not (out / "corpus.json").exists():
        return
    there = declared(out)
    if there.name == schema.name and there.revision > schema.revision:
        raise CorpusError(
            f"{out} is of revision {there.revision} of {schema.name!r}, and the declaration given of revision "
            f"{schema.revision}; give the later one, or another folder"
        )


def _already_made(out: Path, inputs: str, format: Format) -> Corpus | None:
    if not (out / "corpus.json").exists():
        return None
    corpus = Corpus.open(out)
    return corpus if corpus.format == format and corpus.summary.get("inputs") == inputs else None
