"""Same events, same tokens, however a log is cut into appends: what is open is said again together with what comes."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenization.logs import BEGIN, ITEMS, USERS, Row, crowded, dense, magazine, minutes, rows, table_of, whole
from tokenization.corpus.corpus import Corpus, Format, append_corpus, compact, write_corpus
from tokenization.corpus.opened import KEY, Onward
from tokenization.corpus.rows import ends_of, join
from tokenization.errors import CorpusError
from tokenization.events.cleaning import clean
from tokenization.events.stored import from_table, joined
from tokenization.job.appending import append
from tokenization.job.saying import Said, say
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer
from tokenization.tokenizer.tokens import sums

PAIRS = {"pairs": {"number": 8, "within": "30m", "by": "section"}}
MERGES = [None, {"same_item_in_group": True}, {"same_item_within": "30m"}, PAIRS, {"same_item_within": "10m", **PAIRS}]
PAUSES = [None, "1m", "2m", "3h"]
KNOWN: dict[str, Any] = {
    "entities": {"article": {"candidates": True, "admit": 1}, "author": {}},
    "context": {**magazine().to_dict()["context"], "campaign": {"kind": "id", "admit": 1}},
    "split": {"time": "2030-01-01"},
}
"""Whatever is in the log is known, so that no code depends on when it came."""


def declared(**changes: Any) -> EventSchema:
    return magazine(**{**KNOWN, **changes})


def fitted(schema: EventSchema, log: list[Row]) -> Tokenizer:
    return Tokenizer.fit(schema, clean(table_of(log, schema), schema).events, ITEMS, users=USERS)


def begun(folder: Path, tokenizer: Tokenizer, log: list[Row], format: Format = "parquet") -> Corpus:
    """A corpus of a log, with the figures that the job would tell."""
    found = clean(table_of(log, tokenizer.schema), tokenizer.schema)
    said = say(tokenizer, found.events, USERS)
    tokens = pc.sum(pc.list_value_length(said.tokens["events"])).as_py() or 0
    summary = {
        "events": len(log),
        "tokens": tokens,
        "merged": len(found.events) - tokens,
        "kept": sums(said.tokens, tokenizer.schema, {}),
        "quarantined": dict(Counter(found.quarantined["reason"].to_pylist())),
        "dropped": sum(found.dropped.values()),
        "dropped_by": dict(found.dropped),
        "users": said.tokens.num_rows,
    }
    onward = Onward([said.open], [pa.table({KEY: found.keys.values})])
    return write_corpus(folder, [said.tokens], tokenizer, summary, format, found.quarantined, onward)


def appended(corpus: Corpus, log: list[Row], name: str, **more: Any) -> Corpus:
    """The corpus with a log appended by the job, which reads files."""
    schema, files = corpus.tokenizer.schema, corpus.folder.parent
    (files / "schema.yaml").write_text(yaml.safe_dump(schema.to_dict(), sort_keys=False))
    pq.write_table(USERS, files / "users.parquet")
    pq.write_table(table_of(log, schema), files / f"{name}.parquet")
    users = files / "users.parquet"
    return append(files / "schema.yaml", files / f"{name}.parquet", corpus.folder, users_path=users, **more)


def figures(corpus: Corpus) -> dict[str, Any]:
    names = ("events", "tokens", "merged", "kept", "quarantined", "dropped", "users")
    return {name: corpus.summary[name] for name in names}


@st.composite
def cut(draw: st.DrawFn, logs: st.SearchStrategy[list[Row]]) -> list[list[Row]]:
    """A log in chunks: each reader's events are cut anywhere in the order of time, those at one time in any order."""
    log = whole(draw(logs), magazine())
    chunks: list[list[Row]] = [[] for _ in range(draw(st.integers(1, 4)))]
    for who in sorted({row["reader"] for row in log}):
        mine = sorted((row for row in log if row["reader"] == who), key=lambda row: row["at"])
        places = st.integers(0, len(chunks) - 1)
        for row, place in zip(
            mine, sorted(draw(st.lists(places, min_size=len(mine), max_size=len(mine)))), strict=True
        ):
            chunks[place].append(row)
    return [chunk for chunk in chunks if chunk]


@cache
def fitted_on_each_article(changes: str) -> Tokenizer:
    """changes: of the schema, as JSON."""
    each = [{"at": at, "article": f"a{1 + at % 3}", "what": what} for at, what in enumerate(["open", "read"] * 12)]
    return fitted(declared(**json.loads(changes)), minutes(*each))


def as_one(rows: list[pa.Table]) -> pa.Table:
    """Rows of one user in parts that follow one another, as a corpus reads them."""
    return join(rows, [np.zeros(1, np.int64)] * len(rows))


def check_any_cut(folder: Path, schema: EventSchema, chunks: list[list[Row]], part_rows: int) -> Corpus:
    """Append chunk after chunk and compare with the corpus of the whole."""
    log = [row for chunk in chunks for row in chunk]
    tokenizer = fitted(schema, log)
    expected = begun(folder / "whole", tokenizer, log)
    corpus = begun(folder / "corpus", tokenizer, chunks[0])
    for number, chunk in enumerate(chunks[1:]):
        corpus = appended(corpus, chunk, f"{number}", part_rows=part_rows)
    assert corpus.tokens().equals(expected.tokens())
    assert figures(corpus) == figures(expected)
    assert corpus.tokenizer.fingerprint == tokenizer.fingerprint
    everybody = corpus.user_ids
    assert corpus.ends(everybody).equals(expected.ends(everybody))
    assert corpus.users(everybody.slice(1)).equals(expected.tokens().slice(1))
    assert pa.concat_tables(corpus.scan(batch_users=1)).equals(expected.tokens())
    packed = compact(corpus.folder)
    assert packed.tokens().equals(expected.tokens())
    assert packed.ends(everybody).equals(expected.ends(everybody))
    assert told(packed.open_events(everybody)) == told(expected.open_events(everybody))
    return packed


def told(events: pa.Table) -> list[str]:
    return sorted(map(repr, events.to_pylist()))


moments = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.integers(0, 6),
            "visit": st.sampled_from([None, 1, 2]),
            "article": st.sampled_from(["a1", "a1", "a2", None]),
            "what": st.sampled_from(["open", "open", "read"]),
        }
    ),
    min_size=2,
    max_size=10,
)


@given(
    merge=st.sampled_from(MERGES),
    pause=st.sampled_from(PAUSES),
    found=moments,
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
@settings(max_examples=100)
def test_what_is_open_and_what_comes_make_the_tokens_of_both(
    merge: dict[str, Any] | None, pause: str | None, found: list[Row], cuts: list[int]
) -> None:
    """One reader in few minutes, without files: whatever a cut may part is parted somewhere."""
    log = minutes(*sorted(found, key=lambda row: row["at"]))
    tokenizer = fitted_on_each_article(json.dumps({"merge": merge, "group_within": pause}))
    schema = tokenizer.schema
    expected = say(tokenizer, clean(table_of(log, schema), schema).events)
    said: Said | None = None
    rows: list[pa.Table] = []
    for begin, end in itertools.pairwise(sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})):
        events = clean(table_of(log[begin:end], schema), schema).events
        if said is None:
            said = say(tokenizer, events)
        else:
            after = ends_of(as_one(rows))
            said = say(tokenizer, joined(from_table(said.open, schema, pa.string()), events), None, after)
        rows.append(said.tokens)
    assert as_one(rows).equals(expected.tokens)
    assert said is not None
    assert told(said.open) == told(expected.open)


@given(
    merge=st.sampled_from(MERGES),
    pause=st.sampled_from(PAUSES),
    chunks=st.one_of(cut(crowded), cut(dense), cut(rows)),
    part_rows=st.sampled_from([1, 10**6]),
)
@settings(max_examples=20)
def test_a_log_appended_in_any_chunks_is_the_corpus_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    merge: dict[str, Any] | None,
    pause: str | None,
    chunks: list[list[Row]],
    part_rows: int,
) -> None:
    check_any_cut(tmp_path_factory.mktemp("cut"), declared(merge=merge, group_within=pause), chunks, part_rows)


@given(chunks=cut(crowded), ids=st.lists(st.none() | st.integers(1, 12), min_size=27, max_size=27))
@settings(max_examples=10)
def test_an_event_that_comes_again_in_any_later_chunk_is_quarantined_as_in_the_whole(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[list[Row]], ids: list[int | None]
) -> None:
    """Dropped events too: they are known by their ids as the others are."""
    each = iter(ids)
    for row in (row for chunk in chunks for row in chunk):
        row["row"] = next(each)
    schema = declared(event_id="row", drop={"action": ["share"]})
    corpus = check_any_cut(tmp_path_factory.mktemp("again"), schema, chunks, 10**6)
    log = [row for chunk in chunks for row in chunk]
    assert set(corpus.quarantine["reason"].to_pylist()) <= {"row is there twice"}
    assert corpus.quarantine.num_rows == clean(table_of(log, schema), schema).quarantined.num_rows
    assert corpus.has_keys(clean(table_of(log, schema), schema).keys.values).all()


def test_what_is_open_is_the_newest_group_and_declared_ones_until_their_pause_is_over() -> None:
    schema = declared(merge={"same_item_within": "5m"}, group_within="12m")
    log = minutes(
        {"at": 0, "article": "a1"},
        {"at": 10, "article": "a1", "visit": 1},
        {"at": 11, "article": "a2", "visit": 1},
        {"at": 20, "article": "a3"},
        {"at": 22, "article": "a3"},
        {"at": 40, "article": "a1"},
    )
    tokenizer = fitted(schema, log)

    def opened(rows: int) -> tuple[int, list[float]]:
        said = say(tokenizer, clean(table_of(log[:rows], schema), schema).events)
        moments = [(time - BEGIN.timestamp()) / 60 for time in said.open["time"].to_pylist()]
        return said.tokens["open.tokens"][0].as_py(), moments

    assert opened(1) == (1, [0])
    assert opened(2) == (1, [10])
    assert opened(3) == (2, [10, 11])
    assert opened(4) == (3, [10, 11, 20])  # of visit 1 there may be more
    assert opened(5) == (3, [10, 11, 20, 22])  # two of them merged, unless there is more at 22
    assert opened(6) == (1, [40])


def test_a_group_that_goes_on_passes_those_that_came_in_between(tmp_path: Path) -> None:
    log = minutes(
        {"at": 0, "article": "a2"}, {"at": 1, "article": "a1", "visit": 1}, {"at": 2, "article": "a4", "visit": 2}
    )
    more = minutes({"at": 2, "article": "a3", "visit": 1}, {"at": 3, "article": "a3", "visit": 2})
    for number, chunks in enumerate([[log, more], [log[:2], log[2:], more[:1], more[1:]]]):
        (tmp_path / f"{number}").mkdir()
        corpus = check_any_cut(tmp_path / f"{number}", declared(merge={"same_item_within": "5m"}), chunks, 10**6)
        assert corpus.tokens()["group"].to_pylist() == [[0, 1, 1, 2, 2]]


def test_late_is_what_would_come_before_what_is_closed(tmp_path: Path) -> None:
    schema = declared(event_id="row")
    log = minutes({"at": 0, "article": "a1", "row": 1}, {"at": 10, "article": "a2", "visit": 1, "row": 2})
    corpus = begun(tmp_path / "corpus", fitted(schema, log), log)
    later = minutes(
        {"at": 0, "article": "a3", "row": 3},
        {"at": 5, "article": "a1", "row": 4},
        {"at": 10, "article": "a2", "row": 2},
        {"at": 9, "article": "a3", "visit": 1, "row": 5},
    )
    corpus = appended(corpus, later, "later")
    refused = {row["row"]: row["reason"] for row in corpus.quarantine.to_pylist()}
    assert refused == {"3": "at is not after the user's last closed group", "2": "row is there twice"}
    assert [(time - BEGIN.timestamp()) / 60 for time in corpus.tokens()["time"][0].as_py()] == [0, 5, 10, 10]
    assert corpus.tokens()["group"].to_pylist() == [[0, 1, 2, 2]]
    # What was quarantined as late may be sent again with another rule: it never was an event of the corpus.
    assert corpus.has_keys(clean(table_of(later, schema), schema).keys.values).tolist() == [False, True, True, True]


def test_an_event_sent_again_counts_once_where_late_ones_take_effect_now(tmp_path: Path) -> None:
    clock = {**magazine().to_dict()["time"], "late": "now"}
    schema = declared(event_id="row", time=clock)
    log = minutes(*({"at": 10 * at, "article": "a1", "row": f"r{at}"} for at in range(4)))
    corpus = begun(tmp_path / "corpus", fitted(schema, log), log)
    corpus = appended(corpus, [*log[:2], *minutes({"at": 15, "article": "a2", "row": "r9"})], "again")
    assert corpus.quarantine["reason"].to_pylist() == ["row is there twice"] * 2
    assert corpus.summary["tokens"] == 5
    assert corpus.tokens()["group"].to_pylist() == [[0, 1, 2, 3, 3]]


@pytest.mark.parametrize("format", ["parquet", "lance"])
def test_a_later_revision_keeps_what_is_open(format: Format, tmp_path: Path) -> None:
    log = minutes({"at": 0, "article": "a1"}, {"at": 9, "article": "a2", "visit": 1, "device": "desk", "seconds": 500})
    corpus = begun(tmp_path / "corpus", fitted(declared(), log), log, format)
    context = {**declared().to_dict()["context"], "screen": {"kind": "category", "was": "device", "column": "device"}}
    context["screen"]["aliases"] = {"desk": "big"}
    context.pop("device")
    corpus = compact(corpus.folder, declared(revision=2, context=context))
    corpus = appended(
        corpus, minutes({"at": 12, "article": "a3", "visit": 1, "device": "big", "seconds": 250}), "later"
    )
    assert corpus.tokens()["group"].to_pylist() == [[0, 1, 1]]
    codes = corpus.tokenizer.vocabularies["screen"]
    assert codes.decode(corpus.tokens()["screen"].combine_chunks().flatten().to_numpy()).to_pylist()[1:] == ["big"] * 2
    assert corpus.summary["kept"] == {"seconds": 0.75}


@pytest.mark.parametrize("format", ["parquet", "lance"])
def test_a_corpus_of_the_second_format_is_appended_to_as_it_was(format: Format, tmp_path: Path) -> None:
    schema = declared()
    log = minutes({"at": 0, "article": "a1"}, {"at": 9, "article": "a2", "visit": 1})
    tokenizer = fitted(schema, log)
    whole = begun(tmp_path / "new", tokenizer, log, format)
    folder = tmp_path / "corpus"
    bare = whole.tokens()
    write_corpus(folder, [bare], tokenizer, whole.summary, format)
    manifest = json.loads((folder / "corpus.json").read_text())
    del manifest["open"], manifest["keys"]
    (folder / "corpus.json").write_text(json.dumps({**manifest, "format": 2}))
    corpus = Corpus.open(folder)
    assert corpus.tokens().equals(bare)
    assert corpus.ends(corpus.user_ids).to_pylist()[0]["groups"] == 2
    assert corpus.open_events(corpus.user_ids).num_rows == 0
    more = minutes({"at": 9, "article": "a3"}, {"at": 20, "article": "a3", "visit": 1})
    corpus = appended(corpus, more, "more")
    assert corpus.quarantine["reason"].to_pylist() == ["at is not after the user's last closed group"]
    assert corpus.tokens()["group"].to_pylist() == [[0, 1, 2]]  # what was newest is closed
    corpus = appended(corpus, minutes({"at": 21, "article": "a1", "visit": 1}), "last")
    assert corpus.tokens()["group"].to_pylist() == [[0, 1, 2, 2]]  # and what is newest now is open
    assert json.loads((folder / "corpus.json").read_text())["format"] == 3


def test_tokens_made_behind_an_older_corpus_are_refused(tmp_path: Path) -> None:
    log = minutes({"at": 0, "article": "a1"}, {"at": 9, "article": "a2"})
    tokenizer = fitted(declared(), log)
    before = begun(tmp_path / "corpus", tokenizer, log[:1])
    after = appended(before, log[1:], "one")
    with pytest.raises(CorpusError, match="was changed while these tokens were made; append again"):
        append_corpus(before.folder, [], tokenizer, {}, behind=before.manifest)
    assert Corpus.open(before.folder).manifest == after.manifest
