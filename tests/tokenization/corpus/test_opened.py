"""What a corpus keeps for what comes next: open tokens, the events they are made of, keys of event ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenization.corpus.test_corpus_parts import History, table
from tokenization.corpus.corpus import append_corpus, compact, write_corpus
from tokenization.corpus.opened import (
    KEY,
    Onward,
    known_keys,
    newest_part,
    read_keys,
    read_open,
    write_keys,
    write_open,
)
from tokenization.corpus.parts import OPEN
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(schema: EventSchema, log: pa.Table, items: pa.Table) -> Tokenizer:
    return Tokenizer.fit(schema, log, items)


opening = st.lists(
    st.dictionaries(
        st.sampled_from(["ann", "bob", "cem"]),
        st.tuples(st.lists(st.integers(0, 99), min_size=1, max_size=5), st.integers(0, 5)),
        min_size=1,
    ),
    min_size=1,
    max_size=5,
)


@given(opening)
@settings(max_examples=25)
def test_tokens_that_were_open_are_those_of_the_users_next_row(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, parts: list[dict[str, tuple[list[int], int]]]
) -> None:
    """Each row, and how many tokens at its end are open."""
    folder = tmp_path_factory.mktemp("open") / "corpus"
    expected: History = {}
    opened: dict[str, int] = {}
    for number, part in enumerate(parts):
        for user, (tokens, still) in part.items():
            before = expected.get(user, [])
            expected[user] = before[: len(before) - opened.get(user, 0)] + tokens
            opened[user] = min(still, len(tokens))
        sizes = pa.array([min(still, len(tokens)) for tokens, still in part.values()], pa.int32())
        tokens = table({user: tokens for user, (tokens, _) in part.items()}).append_column(OPEN, sizes)
        onward = Onward([pa.table({"user": list(part), "time": [float(number)] * len(part)})])
        if number:
            corpus = append_corpus(folder, [tokens], tokenizer, {}, onward=onward)
        else:
            corpus = write_corpus(folder, [tokens], tokenizer, {}, onward=onward)
    newest = {user: float(number) for number, part in enumerate(parts) for user in part}
    for packed in (False, True):
        read = compact(folder) if packed else corpus
        assert read.tokens().equals(table(dict(sorted(expected.items()))))
        assert pa.concat_tables(read.scan(batch_users=1)).equals(read.tokens())
        assert read.users(read.user_ids, ["group"])["group"].to_pylist() == [
            expected[user] for user in sorted(expected)
        ]
        assert read.ends(read.user_ids)["open"].to_pylist() == [opened[user] for user in sorted(opened)]
        events = read.open_events(read.user_ids)
        assert dict(zip(events["user"].to_pylist(), events["time"].to_pylist(), strict=True)) == newest


def test_the_rows_of_some_users_are_read_from_the_row_groups_that_hold_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenization.corpus.opened._ROWS", 2)
    users = ["ann", "ann", "ann", "bob", "cem", "cem"]
    kept = pa.table({"user": users, "time": [float(row) for row in range(6)]})
    assert write_open(tmp_path / "open" / "0.parquet", [kept.slice(0, 0), kept.slice(0, 4), kept.slice(4)])
    found = read_open(tmp_path / "open" / "0.parquet", pa.array(["cem", "ann", "eve"]))
    assert found["time"].to_pylist() == [0.0, 1.0, 2.0, 4.0, 5.0]
    assert not write_open(tmp_path / "open" / "1.parquet", [kept.slice(0, 0)])
    assert not (tmp_path / "open" / "1.parquet").exists()


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9), max_size=3), st.integers(-5, 5))
def test_keys_that_were_written_are_known_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, keys: list[list[int]], other: int
) -> None:
    path = tmp_path_factory.mktemp("keys") / "keys" / "0.parquet"
    flat = [key for some in keys for key in some]
    assert write_keys(path, [pa.table({KEY: pa.array(some, pa.int64())}) for some in keys]) == bool(flat)
    if flat:
        asked = np.unique(np.array([*flat[::2], other], np.int64))
        assert known_keys(path, asked).tolist() == [key in flat for key in asked.tolist()]
        assert known_keys(path, asked[:0]).tolist() == []
        assert sorted(key for part in read_keys([path]) for key in part[KEY].to_pylist()) == sorted(flat)


def test_the_newest_part_of_a_user_is_the_last_that_has_one() -> None:
    of_parts = [np.array([0, 1, 3]), np.array([1]), np.array([3])]
    assert newest_part(np.arange(5), of_parts).tolist() == [0, 1, -1, 2, -1]
