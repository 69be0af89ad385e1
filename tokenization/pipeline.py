"""The job: an event table and an items table in, a corpus out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tokenization.cleaning import clean
from tokenization.corpus import FORMAT as CORPUS
from tokenization.corpus import Corpus, Format, write_corpus
from tokenization.schema import EventSchema
from tokenization.sources import read_events, read_items
from tokenization.tokenizer import Tokenizer
from tokenization.tokenizer_files import FORMAT as TOKENIZER

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) whenever something is done."""


def tokenize(
    schema_path: str | Path,
    events_path: str | Path,
    items_path: str | Path | None,
    out: str | Path,
    format: Format = "parquet",
    progress: Progress = lambda stage, done, total: None,
) -> Corpus:
    """Read a log, fit its tokenizer on what lies before the split, and write a corpus.

    Args:
        items_path: table of the candidates; None where there is none.
        out: folder of the corpus. A corpus that is there is replaced; but where it was made of these same files by
            this same declaration, it is returned as it is.

    Returns:
        The corpus. Its `summary` says: events (rows read), tokens, merged (events that went into a token with
        others, less that token), quarantined (rows by reason), dropped (rows left out for any other cause:
        none), users, items (candidates), seconds, events_per_second.

    Raises:
        SchemaError, SourceError, CorpusError: one sentence about what to mend.
    """
    start = time.perf_counter()
    schema = EventSchema.from_yaml(schema_path)
    inputs = _inputs(schema, [Path(p) for p in (events_path, items_path) if p is not None])
    if (made := _already_made(Path(out), inputs, format)) is not None:
        progress("up to date", 1, 1)
        return made
    progress("read", 0, 1)
    raw = read_events(Path(events_path), schema)
    items = None if items_path is None else read_items(Path(items_path), schema)
    progress("read", 1, 1)
    progress("check", 0, raw.num_rows)
    cleaned = clean(raw, schema)
    events, quarantined = cleaned.events, cleaned.quarantined
    progress("check", raw.num_rows, raw.num_rows)
    progress("fit", 0, 1)
    tokenizer = Tokenizer.fit(schema, events, items, lambda done, total: progress("item texts", done, total))
    progress("fit", 1, 1)
    progress("tokenize", 0, len(events))
    tokens = tokenizer.transform(events)
    progress("tokenize", len(events), len(events))
    summary = _summary(raw.num_rows, tokens, quarantined, tokenizer, time.perf_counter() - start)
    summary["inputs"] = inputs
    progress("write", 0, tokens.num_rows)
    corpus = write_corpus(out, [tokens], tokenizer, summary, format, quarantined)
    progress("write", tokens.num_rows, tokens.num_rows)
    return corpus


def _inputs(schema: EventSchema, paths: list[Path]) -> str:
    """Changes whenever the declaration or a file does, as far as names, sizes and dates tell."""
    told: list[object] = [CORPUS, TOKENIZER, schema.to_dict()]
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        told += [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.exists()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _already_made(out: Path, inputs: str, format: Format) -> Corpus | None:
    if not (out / "corpus.json").exists():
        return None
    corpus = Corpus.open(out)
    return corpus if corpus.format == format and corpus.summary.get("inputs") == inputs else None


def _summary(
    rows: int, tokens: pa.Table, quarantined: pa.Table, tokenizer: Tokenizer, seconds: float
) -> dict[str, Any]:
    count = pc.sum(pc.list_value_length(tokens["events"])).as_py() or 0
    reasons = pc.value_counts(quarantined["reason"].combine_chunks()).to_pylist()
    return {
        "events": rows,
        "tokens": count,
        "merged": rows - quarantined.num_rows - count,
        "quarantined": {entry["values"]: entry["counts"] for entry in reasons},
        "dropped": 0,
        "users": tokens.num_rows,
        "items": len(tokenizer.items.ids),
        "seconds": seconds,
        "events_per_second": rows / seconds,
    }
