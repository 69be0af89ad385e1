"""The job of a day, or an hour: new events in, behind what the corpus has; what is there is not read or written again.

Tokens come out as if the whole log had been tokenized at once by a tokenizer that knew the new ids: groups are counted
on, gaps and spans since the first event reach back. Two things can't: an event does not merge with one of an earlier
day, and one that comes late obeys `time.late` of the schema.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tokenization.corpus.corpus import Corpus, append_corpus, compact
from tokenization.errors import CorpusError, SourceError
from tokenization.events.cleaning import Cleaned, clean, quarantine
from tokenization.ids import Ids, as_type
from tokenization.job.late import late, put_off
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.evolution import deciding
from tokenization.schema.rules import Late
from tokenization.sources.files import digest, stamp
from tokenization.sources.tables import read_events, read_items
from tokenization.tokenizer.growing import grow
from tokenization.tokenizer.tokens import sums

Progress = Callable[[str, int, int], None]


def append(
    schema_path: str | Path,
    events_path: str | Path,
    out: str | Path,
    progress: Progress = lambda stage, done, total: None,
    *,
    items_path: str | Path | None = None,
    users_path: str | Path | None = None,
    strict: bool = False,
) -> Corpus:
    """Read the events that came since, and add their tokens to a corpus.

    The tokenizer of the corpus makes them, grown by the ids that it meets here for the first time. Under a later
    revision of the schema the corpus is brought under it first, which writes it once as one part.

    Args:
        events_path: a path or a URL, of new events only; they are worked on in memory. The same input is appended once:
            a second time the corpus is returned as it is.
        out: folder of the corpus.
        items_path: table of the candidates, of which those that the corpus does not have yet are added.
        users_path: table of what is known of the users; None where there is none.
        strict: whether rows that make no sense, or are late and to be quarantined, end the job.

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
    raw = read_events(events_path, schema)
    progress("read", 1, 1)
    progress("check", 0, raw.num_rows)
    if schema.revision > corpus.tokenizer.schema.revision:
        corpus = compact(out, schema)
    _check_schema(corpus, schema)
    # Which rows are events is said by the declaration of today, what becomes of them by that of the corpus.
    schema = corpus.tokenizer.schema.model_copy(update={"event_id": schema.event_id, "time": schema.time})
    cleaned = _with_users_of(corpus, clean(raw, schema))
    ends = corpus.ends(cleaned.events.users.rank()[0])
    cleaned = settle_late(raw, cleaned, ends, schema)
    reasons = Counter(cleaned.quarantined["reason"].to_pylist())
    if strict and reasons:
        reason, count = reasons.most_common(1)[0]
        raise SourceError(f"{sum(reasons.values())} rows of {events_path} make no sense, {count} of them: {reason}")
    progress("check", raw.num_rows, raw.num_rows)
    progress("tokenize", 0, len(cleaned.events))
    items = None if items_path is None else read_items(items_path, schema)
    tokenizer = grow(corpus.tokenizer, cleaned.events, items)
    tokens = tokenizer.transform(cleaned.events, users_path, after=ends)
    progress("tokenize", len(cleaned.events), len(cleaned.events))
    known = pc.sum(pc.is_in(tokens["user_id"], value_set=ends["user_id"].combine_chunks())).as_py() or 0
    told = _added(corpus.summary, schema, raw.num_rows, tokens, cleaned, reasons)
    told["users"] += tokens.num_rows - known
    told["items"] = len(tokenizer.items.ids)
    told["seconds"] = time.perf_counter() - start
    told["events_per_second"] = raw.num_rows / told["seconds"]
    progress("write", 0, tokens.num_rows)
    corpus = append_corpus(out, [tokens], tokenizer, told, cleaned.quarantined, source)
    progress("write", tokens.num_rows, tokens.num_rows)
    return corpus


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


def settle_late(table: pa.Table, cleaned: Cleaned, after: pa.Table, schema: EventSchema) -> Cleaned:
    """What `clean` found in `table`, with late events as the schema says: among the quarantined rows, or put off.

    Args:
        after: how far the users had come, as `Corpus.ends` tells.
    """
    is_late = late(cleaned.events, after)
    if not is_late.any():
        return cleaned
    if schema.time is not None and schema.time.late is Late.NOW:
        return Cleaned(put_off(cleaned.events, after), cleaned.quarantined, cleaned.dropped, cleaned.rows)
    reason = f"{schema.clock} is not after the user's newest event"
    rows = cleaned.rows[is_late]
    refused = quarantine(table, schema, rows, [reason] * len(rows))
    return Cleaned(
        cleaned.events.take(~is_late),
        pa.concat_tables([cleaned.quarantined, refused], promote_options="default"),
        cleaned.dropped,
        cleaned.rows[~is_late],
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


def _added(
    before: Mapping[str, Any], schema: EventSchema, rows: int, tokens: pa.Table, cleaned: Cleaned, reasons: Counter[str]
) -> dict[str, Any]:
    """The summary with the figures of this append on top."""
    count = pc.sum(pc.list_value_length(tokens["events"])).as_py() or 0
    dropped = Counter(before.get("dropped_by", {})) + Counter(cleaned.dropped)
    return {
        **before,
        "events": before["events"] + rows,
        "tokens": before["tokens"] + count,
        "merged": before["merged"] + len(cleaned.events) - count,
        "kept": sums(tokens, schema, before.get("kept", {})),
        "quarantined": dict(Counter(before["quarantined"]) + reasons),
        "dropped": before["dropped"] + sum(cleaned.dropped.values()),
        "dropped_by": dict(dropped),
    }
