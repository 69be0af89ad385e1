"""The job of a day, or an hour: new events in, behind what the corpus has; what is there is not read or written again.

Tokens come out as if the whole log had been tokenized at once by a tokenizer that knew the new ids: groups are counted
on, gaps and spans since the first event reach back, and the last groups of each user, of which more may come, are
tokenized again together with what comes. What comes too late even for that obeys `time.late` of the schema.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.corpus.corpus import Corpus, append_corpus, compact
from tokenization.corpus.opened import Onward
from tokenization.errors import CorpusError, SourceError
from tokenization.events.cleaning import Cleaned, Keys, clean, quarantine
from tokenization.events.events import Events
from tokenization.events.stored import from_table, joined
from tokenization.ids import Ids, as_type
from tokenization.job.late import late, put_off
from tokenization.job.layout import Log, Progress, on_this_machine
from tokenization.job.partition import PART_ROWS
from tokenization.job.saying import Again, Said, say
from tokenization.job.steps import NO_MOMENTS, Survey
from tokenization.job.surveying import Found, refuse, surveyed
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.evolution import deciding
from tokenization.schema.rules import Late
from tokenization.sources.files import digest, stamp
from tokenization.sources.tables import read_items, read_users, users_rule
from tokenization.tokenizer.fitting import Observed
from tokenization.tokenizer.growing import grow_by, meet
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.tokenizer import Tokenizer
from tokenization.tokenizer.tokens import sums


def append(
    schema_path: str | Path,
    events_path: str | Path,
    out: str | Path,
    progress: Progress = lambda stage, done, total: None,
    *,
    items_path: str | Path | None = None,
    users_path: str | Path | None = None,
    strict: bool = False,
    part_rows: int = PART_ROWS,
) -> Corpus:
    """Read the events that came since, and add their tokens to a corpus.

    The tokenizer of the corpus makes them, grown by the ids that it meets here for the first time. Under a later
    revision of the schema the corpus is brought under it first, which writes it once as one part.

    Args:
        events_path: a path or a URL, of new events only. The same input is appended once: a second time the corpus is
            returned as it is.
        out: folder of the corpus.
        items_path: table of the candidates, of which those that the corpus does not have yet are added.
        users_path: table of what is known of the users; None where there is none.
        strict: whether rows that make no sense, or are late and to be quarantined, end the job.
        part_rows: rows that are worked on at a time; more than twice as many are cut into parts on disk beside `out`.

    Returns:
        The corpus, with a `summary` of all its events; seconds and events_per_second are of this append.

    Raises:
        SchemaError, SourceError, CorpusError: one sentence about what to mend.
    """
    start = time.perf_counter()
    corpus, schema = Corpus.open(out), EventSchema.from_yaml(schema_path)
    source = digest(events_path)
    if source in corpus.manifest.appended or corpus.summary.get("log") == stamp(events_path):
        progress("already appended", 1, 1)
        return corpus
    progress("read", 0, 1)
    if schema.revision > corpus.tokenizer.schema.revision:
        corpus = compact(out, schema)
    _check_schema(corpus, schema)
    # Which rows are events is said by the declaration of today, what becomes of them by that of the corpus.
    schema = corpus.tokenizer.schema.model_copy(update={"event_id": schema.event_id, "time": schema.time})
    users = None if users_path is None else read_users(users_path, users_rule(schema))
    job = Appending(corpus, schema, time.time(), users)
    with on_this_machine(job, events_path, Path(out), part_rows, progress) as log:
        found = surveyed(log, progress)
        refuse(found.reasons if strict else {}, log.rows)
        assert found.observed is not None
        items = None if items_path is None else read_items(items_path, schema)
        tokenizer = grow_by(corpus.tokenizer, found.observed, items)
        told: dict[str, Any] = {**corpus.summary, "items": len(tokenizer.items.ids)}
        tables = _transformed(log, tokenizer, found, told, start, progress)
        refused, onward = log.refused.table(), Onward(log.open.tables(), log.keys.tables())
        corpus = append_corpus(out, tables, tokenizer, told, refused, source, onward, corpus.manifest)
    progress("write", told["users"], told["users"])
    return corpus


@dataclass(frozen=True, eq=False)
class Appending:
    """What is done with each part of the new events. now: seconds since 1970 UTC, the same for all. users: as
    declared."""

    corpus: Corpus
    schema: EventSchema
    now: float
    users: pa.Table | None

    def clean(self, table: pa.Table) -> Cleaned:
        """The rows of a part as events, with late ones as the schema says."""
        cleaned = _with_users_of(self.corpus, clean(table, self.schema, self.now, self.corpus.has_keys))
        users = cleaned.events.users.rank()[0]
        if not len(users):
            return cleaned
        after = self.corpus.ends(users)
        if not late(cleaned.events, after).any():  # nor is any when more is known of the open groups
            return cleaned
        return settle_late(table, cleaned, after, self.schema, self._open(users))

    def survey(self, part: Cleaned) -> Survey:
        """What became of a part's rows, and what they teach a tokenizer that grows."""
        met = meet(self.schema, part.events)
        return Survey(len(part.events), part.quarantined, part.dropped, part.keys.values, NO_MOMENTS, met)

    def observe(self, events: Events, split: Split) -> Observed:
        """What a part teaches; nothing is fitted here."""
        return meet(self.schema, events)

    def transform(self, events: Events, tokenizer: Tokenizer) -> Said:
        """The tokens of a part's users from the first open group of each on, and what of them is open now."""
        users = events.users.rank()[0]
        if not len(users):
            return say(tokenizer, events, self.users)
        after = self.corpus.ends(users)
        opened = self._open(users)
        said = say(tokenizer, joined(opened, events), self.users, after)
        kept = {name: float(np.nansum(opened.numbers[name])) for name in sums(said.tokens.slice(0, 0), self.schema, {})}
        tokens = pc.sum(after["open"], min_count=0).as_py()
        return replace(said, again=Again(after.num_rows, tokens, len(opened), kept))

    def _open(self, users: pa.Array) -> Events:
        return from_table(self.corpus.open_events(users), self.schema, users.type)


def _transformed(
    log: Log, tokenizer: Tokenizer, found: Found, summary: dict[str, Any], start: float, progress: Progress
) -> Iterator[pa.Table]:
    """The tokens part by part; with the last of them the summary, which is that of the corpus before, is complete."""
    done, sound = 0, found.events(log.rows)
    progress("tokenize", 0, sound)
    for said in log.parts.transform(tokenizer):
        yield said.tokens
        log.open.add(said.open)
        tokens = (pc.sum(pc.list_value_length(said.tokens["events"])).as_py() or 0) - said.again.tokens
        events = (pc.sum(pc.list_flatten(said.tokens["events"])).as_py() or 0) - said.again.events
        kept = sums(said.tokens, tokenizer.schema, summary.get("kept", {}))
        summary |= {
            "tokens": summary["tokens"] + tokens,
            "merged": summary["merged"] + events - tokens,
            "kept": {name: round(total - said.again.kept.get(name, 0.0), 6) for name, total in kept.items()},
            "users": summary["users"] + said.tokens.num_rows - said.again.users,
        }
        done += events
        progress("tokenize", done, sound)
    progress("write", 0, summary["users"])
    seconds = time.perf_counter() - start
    summary |= {
        "events": summary["events"] + log.rows,
        "quarantined": dict(Counter(summary["quarantined"]) + found.reasons),
        "dropped": summary["dropped"] + found.dropped.total(),
        "dropped_by": dict(Counter(summary.get("dropped_by", {})) + found.dropped),
        "seconds": seconds,
        "events_per_second": log.rows / seconds,
    }


def _with_users_of(corpus: Corpus, cleaned: Cleaned) -> Cleaned:
    """The same with users as the corpus has them, numbers or text.

    Raises:
        SourceError: a user is text, and those of the corpus are whole numbers.
    """
    users, kind = cleaned.events.users, corpus.user_ids.type
    if users.values.type == kind or not len(users.values):
        return cleaned
    values = as_type(users.values, kind)
    if values.null_count:
        raise SourceError(
            f"users of {corpus.folder} are whole numbers, and some that come now are text; tokenize the whole log again"
        )
    return replace(cleaned, events=replace(cleaned.events, users=Ids(values, users.index)))


def settle_late(table: pa.Table, cleaned: Cleaned, after: pa.Table, schema: EventSchema, opened: Events) -> Cleaned:
    """What `clean` found in `table`, with late events as the schema says: among the quarantined rows, or put off.

    Args:
        after: how far the users had come, as `Corpus.ends` tells. opened: the events of their open groups.
    """
    events = joined(opened, cleaned.events)
    is_late = late(events, after)[len(opened) :]
    if not is_late.any():
        return cleaned
    if schema.time is not None and schema.time.late is Late.NOW:
        return replace(cleaned, events=put_off(events, after).take(np.arange(len(opened), len(events))))
    reason = f"{schema.clock} is not after the user's last closed group"
    rows = cleaned.rows[is_late]
    refused = quarantine(table, schema, rows, [reason] * len(rows))
    kept = ~np.isin(cleaned.keys.rows, rows)
    return replace(
        cleaned,
        events=cleaned.events.take(~is_late),
        quarantined=pa.concat_tables([cleaned.quarantined, refused], promote_options="default"),
        rows=cleaned.rows[~is_late],
        keys=Keys(cleaned.keys.rows[kept], cleaned.keys.values[kept]),
    )


def _check_schema(corpus: Corpus, schema: EventSchema) -> None:
    """Tokens of a corpus are made by one declaration; what decides none of them may differ."""
    # Since when items exist stands in the table of items, and decides their ages.
    both = (corpus.tokenizer.schema, schema)
    told, given = ({**deciding(s), "items.released": s.released} for s in both)
    for key in dict.fromkeys([*told, *given]):
        if told.get(key) != given.get(key):
            raise CorpusError(
                f"{corpus.folder} was made by another declaration: {key!r} differs; "
                "append with the one it was made by, or raise `revision` (`userfm schema diff` says what may change)"
            )
