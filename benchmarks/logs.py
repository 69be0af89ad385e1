"""The logs that quality is judged on, as corpora: the demo's, and research data where USERFM_DATA says."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from userfm import complete_journey

Progress = Callable[[str, int, int], None]


class Log(StrEnum):
    """A log by its name on the command line."""

    ML_1M = "ml-1m"  # MovieLens 1M: films in the order in which they were rated
    BEAUTY = "beauty"  # Amazon Beauty 2014, 5-core: products in the order in which they were reviewed
    JOURNEY = "complete_journey"  # a year of groceries, with times, stores and prices


TEXTS = {Log.ML_1M: ["title", "genres", "plot"], Log.BEAUTY: ["title", "keywords"]}
"""What is known of the items of logs that have an order and no time."""


def research_folder(log: Log) -> Path:
    """Where a research log lies. Raises SystemExit with a sentence where it does not."""
    home = os.environ.get("USERFM_DATA")
    if home is None or not (Path(home) / log / "events.parquet").exists():
        raise SystemExit(f"{log} is not here: set USERFM_DATA to the folder that holds {log}/events.parquet")
    return Path(home) / log


def corpus_of(log: Log, folder: Path, progress: Progress) -> Corpus:
    """The log's corpus, made in `folder` or found there. The last item of each user is for testing, the one before for
    validation; groceries are cut by time, as the demo cuts them."""
    out = folder / log
    if (out / "corpus.json").exists():
        return Corpus.open(out)
    folder.mkdir(parents=True, exist_ok=True)
    if log is Log.JOURNEY:
        events, items = complete_journey.prepare(folder / "journey", progress)
        return tokenize(complete_journey.schema_path(), events, items, out)
    source = research_folder(log)
    schema: dict[str, Any] = {
        "schema": 1,
        "name": str(log),
        "user": "user_id",
        "entities": {"item": {"column": "item_id", "candidates": True}},
        "position": "position",
        "split": {"last_items": 1},
        "items": {"id": "item_id", "text": TEXTS[log]},
    }
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(schema, sort_keys=False), encoding="utf-8")
    return tokenize(path, source / "events.parquet", _with_words(source / "items.parquet", TEXTS[log], out), out)


def _with_words(source: Path, texts: list[str], out: Path) -> Path:
    """The items with lists of words (genres) as one text."""
    items = pq.read_table(source)
    for name in texts:
        values = items[name].to_pylist()
        joined = [" ".join(value) if isinstance(value, list) else value for value in values]
        items = items.set_column(items.column_names.index(name), name, [joined])
    path = out.with_name(f"{out.name}-items.parquet")
    pq.write_table(items, path)
    return path
