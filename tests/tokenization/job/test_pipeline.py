from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenization.sources.test_tables import WRITERS
from tokenization.corpus.corpus import Format
from tokenization.corpus.opened import KEY, read_keys
from tokenization.errors import SourceError, UserfmError
from tokenization.job.pipeline import tokenize
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer

Declare = Callable[..., EventSchema]


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


KIOSK = {
    "schema": 1,
    "name": "kiosk",
    "user": "who",
    "time": {"column": "at"},
    "action": {"column": "what", "day_level": ["redeem"]},
    "group": "visit",
    "event_id": "id",
    "entities": {"product": {"column": "sku", "candidates": True}, "coupon": {"column": "coupon"}},
    "context": {"store": {"kind": "category"}},
    "outcome": {"quantity": {"kind": "number"}},
    "merge": {"same_item_in_group": True},
}
SPLITS = [
    {"fraction": 0.7},
    {"time": "1970-01-15"},
    {"time": "1970-01-15", "validation": "1970-01-08"},
    {"last_items": 1},
]


@st.composite
def logs(draw: st.DrawFn) -> pa.Table:
    """Some users with some visits; here and there a row that makes no sense."""
    rows = []
    for who in draw(st.lists(st.sampled_from(["ann", "Bob", "çem", "7", "07", "10", None]), min_size=1, max_size=7)):
        for visit in range(draw(st.integers(1, 5))):
            at = draw(st.sampled_from([*range(0, 30 * 86_400, 86_400), None, "soon"]))
            rows += [
                {
                    "who": who,
                    "at": None if at is None else str(at),
                    "id": draw(st.none() | st.integers(1, 30).map(str)),
                    "what": draw(st.sampled_from(["buy", "view", "redeem"])),
                    "visit": draw(st.sampled_from([f"{who}-{visit}", None])),
                    "sku": sku,
                    "coupon": draw(st.sampled_from([None, None, None, "c1", "c2"])),
                    "store": draw(st.sampled_from(["s1", "s2", None])),
                    "quantity": draw(st.sampled_from([0.1, 0.2, 0.3, 1.0, 7.0, None, float("inf")])),
                }
                for sku in draw(st.lists(st.integers(1, 5) | st.none(), min_size=1, max_size=4))
            ]
    return pa.Table.from_pylist(rows, pa.schema([(n, _TYPES.get(n, pa.string())) for n in rows[0]]))


_TYPES = {"sku": pa.int64(), "quantity": pa.float64()}


@settings(max_examples=20)
@given(logs(), st.sampled_from(SPLITS), st.integers(1, 9), st.randoms(use_true_random=False))
def test_a_corpus_is_the_same_to_the_byte_however_the_log_is_cut_into_parts(
    log: pa.Table, split: dict[str, object], part_rows: int, random: Random
) -> None:
    shuffled = log.take(random.sample(range(log.num_rows), log.num_rows))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "schema.yaml").write_text(yaml.safe_dump({**KIOSK, "split": split}))
        pq.write_table(shuffled, folder / "events.parquet", row_group_size=5)
        found = [_tokenized(folder, name, rows) for name, rows in (("whole", 10**6), ("parts", part_rows))]
        assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
    assert found[0] == found[1]


def _tokenized(folder: Path, name: str, part_rows: int) -> object:
    """What a corpus says, or the sentence that there is none."""
    try:
        corpus = tokenize(folder / "schema.yaml", folder / "events.parquet", None, folder / name, part_rows=part_rows)
    except UserfmError as error:
        return str(error)
    refused = sorted(map(repr, corpus.quarantine.to_pylist()))
    summary = {key: value for key, value in corpus.summary.items() if not key.endswith(("seconds", "second"))}
    users = corpus.user_ids
    keys = sorted(
        key
        for table in read_keys(folder / name / path for path in corpus.manifest.keys)
        for key in table[KEY].to_pylist()
    )
    onward = corpus.ends(users).to_pylist(), sorted(map(repr, corpus.open_events(users).to_pylist())), keys
    return corpus.tokenizer.fingerprint, corpus.tokens().to_pylist(), corpus.tokens().schema, refused, summary, onward


@pytest.mark.parametrize("name", ["events.csv", "events.jsonl", "events.arrow", "events.lance"])
def test_parts_of_every_format_make_the_corpus_of_the_whole(name: str, files: Path, log: pa.Table) -> None:
    WRITERS[f"log{Path(name).suffix}"](log, files / name)
    corpora = [
        tokenize(files / "schema.yaml", files / name, files / "items.parquet", files / f"{rows}", part_rows=rows)
        for rows in (1, 1000)
    ]
    assert corpora[0].tokenizer.fingerprint == corpora[1].tokenizer.fingerprint
    assert corpora[0].tokens().equals(corpora[1].tokens())


def test_progress_in_parts_tells_of_every_stage(files: Path) -> None:
    told: list[tuple[str, int, int]] = []
    arguments = (files / "schema.yaml", files / "events.parquet", files / "items.parquet", files / "corpus")
    tokenize(*arguments, progress=lambda stage, done, total: told.append((stage, done, total)), part_rows=3)
    last = {stage: (done, total) for stage, done, total in told}
    assert list(last) == ["read", "users", "check", "fit", "item texts", "tokenize", "write"]
    assert last["read"] == last["users"] == last["check"] == (13, 13)
    assert last["tokenize"] == (12, 12)


def test_a_log_behind_a_url_becomes_a_corpus_and_is_known_again(files: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").put(str(files / "events.parquet"), "/shop/events.parquet")
    url = "memory://shop/events.parquet"
    first = tokenize(files / "schema.yaml", url, f"file://{files}/items.parquet", files / "corpus")
    assert first.summary["events"] == 13
    told: list[str] = []
    tokenize(
        files / "schema.yaml",
        url,
        f"file://{files}/items.parquet",
        files / "corpus",
        progress=lambda stage, done, total: told.append(stage),
    )
    assert told == ["up to date"]


def test_strictly_a_row_that_makes_no_sense_ends_the_job_and_nothing_is_written(files: Path) -> None:
    arguments = (files / "schema.yaml", files / "events.parquet", files / "items.parquet", files / "corpus")
    sentence = r"^1 of 13 rows make no sense: user is missing \(1\); mend the log, or leave out --strict"
    for part_rows in (3, 1000):
        with pytest.raises(SourceError, match=sentence):
            tokenize(*arguments, strict=True, part_rows=part_rows)
        assert not (files / "corpus").exists()
    tokenize(*arguments)
    with pytest.raises(SourceError, match=sentence):
        tokenize(*arguments, strict=True)


def test_an_error_in_the_middle_leaves_no_parts_behind(files: Path, declare: Declare) -> None:
    late = declare(split={"time": "1999-01-01", "validation": "1998-01-01"})
    (files / "schema.yaml").write_text(yaml.safe_dump(late.to_dict(), sort_keys=False))
    before = sorted(files.iterdir())
    with pytest.raises(SourceError, match="no event of 'shop' lies before the split"):
        tokenize(files / "schema.yaml", files / "events.parquet", None, files / "corpus", part_rows=3)
    assert sorted(files.iterdir()) == before


def test_what_is_known_of_users_is_in_the_corpus_however_the_log_is_cut(files: Path, declare: Declare) -> None:
    schema = declare(users={"categories": ["town"], "numbers": ["age"]})
    (files / "schema.yaml").write_text(yaml.safe_dump(schema.to_dict(), sort_keys=False))
    users = pa.table({"user": ["ann", "bob", "zoe"], "town": ["Kars", None, "Bonn"], "age": [30, 41, 52]})
    pq.write_table(users, files / "users.parquet")
    arguments = (files / "schema.yaml", files / "events.parquet", files / "items.parquet")
    corpora = [
        tokenize(*arguments, files / f"{rows}", part_rows=rows, users_path=files / "users.parquet")
        for rows in (1, 1000)
    ]
    assert "user.town" in corpora[0].tokens().column_names
    assert corpora[0].tokens().equals(corpora[1].tokens())
    assert corpora[0].tokenizer.fingerprint == corpora[1].tokenizer.fingerprint
