from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tokenization.corpus import Format
from tokenization.errors import SourceError
from tokenization.pipeline import tokenize
from tokenization.schema import EventSchema
from tokenization.tokenizer import Tokenizer


@pytest.fixture
def files(schema: EventSchema, log: pa.Table, items: pa.Table, tmp_path: Path) -> Path:
    """A folder with schema.yaml, events.parquet (of which one row has no user) and items.parquet."""
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(schema.to_dict(), sort_keys=False))
    nobody = log.slice(0, 1).set_column(0, "user", pa.array([None], pa.string()))
    pq.write_table(pa.concat_tables([log, nobody]), tmp_path / "events.parquet")
    pq.write_table(items, tmp_path / "items.parquet")
    return tmp_path


@pytest.mark.parametrize("format", ["parquet", "lance"])
def test_files_become_a_corpus_with_a_summary_of_what_was_done(
    format: Format, files: Path, schema: EventSchema, log: pa.Table, items: pa.Table
) -> None:
    out = files / "corpus"
    corpus = tokenize(files / "schema.yaml", files / "events.parquet", files / "items.parquet", out, format)
    tokenizer = Tokenizer.fit(schema, log, items)
    assert corpus.tokenizer.fingerprint == tokenizer.fingerprint
    assert corpus.tokens().equals(tokenizer.transform(log))
    assert corpus.quarantine["reason"].to_pylist() == ["user is missing"]
    figures = {key: corpus.summary[key] for key in ("events", "tokens", "merged", "dropped", "users", "items")}
    assert figures == {"events": 13, "tokens": 11, "merged": 1, "dropped": 0, "users": 3, "items": 6}
    assert corpus.summary["quarantined"] == {"user is missing": 1}
    assert corpus.summary["events_per_second"] == pytest.approx(13 / corpus.summary["seconds"])


def test_every_event_is_accounted_for(files: Path) -> None:
    summary = tokenize(files / "schema.yaml", files / "events.parquet", None, files / "corpus").summary
    counted = summary["tokens"] + summary["merged"] + sum(summary["quarantined"].values()) + summary["dropped"]
    assert counted == summary["events"]


def test_progress_begins_at_nothing_and_ends_with_all(files: Path) -> None:
    told: list[tuple[str, int, int]] = []
    arguments = (files / "schema.yaml", files / "events.parquet", files / "items.parquet", files / "corpus")
    tokenize(*arguments, progress=lambda stage, done, total: told.append((stage, done, total)))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["read", "check", "fit", "item texts", "tokenize", "write"]
    for stage in stages:
        last = [(done, total) for name, done, total in told if name == stage][-1]
        assert last[0] == last[1], stage


def test_a_rerun_over_the_same_files_has_nothing_to_do(files: Path) -> None:
    arguments = (files / "schema.yaml", files / "events.parquet", files / "items.parquet", files / "corpus")
    first = tokenize(*arguments)
    told: list[str] = []
    again = tokenize(*arguments, progress=lambda stage, done, total: told.append(stage))
    assert told == ["up to date"]
    assert again.summary == first.summary


@pytest.mark.parametrize("name", ["events.parquet", "items.parquet", "schema.yaml"])
def test_a_rerun_over_changed_files_makes_a_new_corpus(files: Path, name: str) -> None:
    arguments = (files / "schema.yaml", files / "events.parquet", files / "items.parquet", files / "corpus")
    tokenize(*arguments)
    if name == "schema.yaml":
        text = (files / name).read_text()
        (files / name).write_text(text.replace("name: shop", "name: other"))
    else:
        os.utime(files / name, (1, 1))
    told: list[str] = []
    tokenize(*arguments, progress=lambda stage, done, total: told.append(stage))
    assert "write" in told


def test_files_that_are_not_there_are_named(files: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing.parquet doesn't exist"):
        tokenize(files / "schema.yaml", files / "nothing.parquet", None, files / "corpus")
    assert not (files / "corpus").exists()
