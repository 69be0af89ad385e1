from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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

from tokenization.corpus.corpus import Corpus, append_corpus, write_corpus
from tokenization.errors import CorpusError, SourceError
from tokenization.events.cleaning import clean
from tokenization.events.stored import from_table, joined
from tokenization.job.appending import append, settle_late
from tokenization.job.pipeline import tokenize
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import Late
from tokenization.sources.files import digest
from tokenization.tokenizer.fingerprint import sizes_of
from tokenization.tokenizer.growing import grow
from tokenization.tokenizer.tokenizer import Tokenizer

Declare = Callable[..., EventSchema]
HOUR, DAY = 3600, 86_400
START = 1_709_251_200  # 2024-03-01, so that ten days later the clocks of New York go forward

visits = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cem", "dan"]),
        st.integers(0, 20 * 24),  # hours since the start
        st.lists(
            st.tuples(st.sampled_from(["tea", "milk", "soap", "rope", "wax"]), st.integers(1, 9)),
            min_size=1,
            max_size=4,
        ),
        st.sampled_from([None, None, "c1", "c2"]),  # a coupon redeemed that day
    ),
    min_size=1,
    max_size=25,
)


def log_of(found: list[Any]) -> pa.Table:
    """Baskets, each at one time, some with a coupon known to the day."""
    rows = []
    for number, (user, hours, lines, coupon) in enumerate(found):
        at = pa.scalar(START + hours * HOUR).cast(pa.timestamp("s"))
        stamp = pc.strftime(at, format="%Y-%m-%dT%H:%M:%S").as_py()
        for sku, quantity in lines:
            row = {"at": stamp, "what": "buy", "basket": number, "sku": sku, "store": f"s{hours % 7}"}
            rows.append({**row, "user": user, "quantity": float(quantity), "coupon": None, "shelf": f"{hours % 5}"})
        if coupon:
            rows.append({"user": user, "at": stamp[:10], "what": "redeem", "coupon": coupon})
    names = ("user", "at", "what", "basket", "sku", "coupon", "store", "quantity", "shelf")
    kinds = {"basket": pa.int64(), "quantity": pa.float64()}
    return pa.table({name: pa.array([row.get(name) for row in rows], kinds.get(name, pa.string())) for name in names})


def grown_schema(declare: Declare, **changes: object) -> EventSchema:
    """The shop's, with every facet of the clock, fitted on everything."""
    facets = ["hour", "weekday", "month", "gap", "tenure", "age"]
    time = {"column": "at", "zone": "America/New_York", "facets": facets}
    return declare(**{"time": time, "split": {"time": "2030-01-01"}, "items": None, **changes})


@given(found=visits, day=st.integers(0, 20))
@settings(max_examples=40)
def test_a_log_cut_at_any_day_gives_the_tokens_of_the_whole_log(
    declare: Declare, tmp_path_factory: pytest.TempPathFactory, found: list[Any], day: int
) -> None:
    schema, log = grown_schema(declare), log_of(found)
    events = clean(log, schema).events
    before = pa.array(events.groups.time[events.groups.of_event] < START + day * DAY + 5 * HOUR)
    one, two = log.filter(before), log.filter(pc.invert(before))
    if not one.num_rows or not two.num_rows:
        return
    tokenizer = Tokenizer.fit(schema, one)
    corpus = write_corpus(tmp_path_factory.mktemp("cut") / "corpus", [tokenizer.transform(one)], tokenizer, {})
    later = clean(two, schema).events
    grown = grow(tokenizer, later)
    tokens = grown.transform(later, after=corpus.ends(later.users.rank()[0]))
    corpus = append_corpus(corpus.folder, [tokens], grown, {})
    assert corpus.tokens().equals(grown.transform(log))
    whole = Tokenizer.fit(schema, log)  # whose vocabularies are those that grew
    for name, vocabulary in whole.vocabularies.items():
        assert vocabulary.ids.cast(pa.string()).equals(grown.vocabularies[name].ids.cast(pa.string()))


@given(found=visits, cuts=st.lists(st.integers(0, 20), max_size=4), rule=st.sampled_from(["quarantine", "now"]))
@settings(max_examples=30)
def test_however_late_events_are_none_is_lost_and_time_goes_on(
    declare: Declare,
    tmp_path_factory: pytest.TempPathFactory,
    found: list[Any],
    cuts: list[int],
    rule: str,
) -> None:
    schema = grown_schema(declare, time={"column": "at", "late": rule})
    pieces = np.array_split(np.random.default_rng(len(found)).permutation(len(found)), len(cuts) + 1)
    logs = [log_of([found[visit] for visit in piece]) for piece in pieces if len(piece)]
    tokenizer = Tokenizer.fit(schema, logs[0])
    folder = tmp_path_factory.mktemp("late") / "corpus"
    corpus = write_corpus(folder, [tokenizer.transform(logs[0])], tokenizer, {})
    refused = 0
    for log in logs[1:]:
        cleaned = clean(log, schema)
        ends = corpus.ends(cleaned.events.users.rank()[0])
        opened = from_table(corpus.open_events(ends["user_id"].combine_chunks()), schema, pa.string())
        settled = settle_late(log, cleaned, ends, schema, opened)
        refused += settled.quarantined.num_rows
        tokens = tokenizer.transform(settled.events, after=ends)
        corpus = append_corpus(folder, [tokens], tokenizer, {}, settled.quarantined)
    kept = pc.sum(pc.list_flatten(corpus.tokens()["events"])).as_py()
    assert kept + refused == sum(log.num_rows for log in logs)
    assert refused == corpus.quarantine.num_rows
    assert rule == "quarantine" or refused == 0
    for row in corpus.tokens(["time", "group"]).to_pylist():
        ordinals, moments = np.unique(np.array([row["group"], row["time"]]), axis=1)
        assert ordinals.tolist() == list(range(len(ordinals)))
        assert (np.diff(moments) > 0).all()
        assert row["group"] == sorted(row["group"])


@pytest.fixture
def files(tmp_path: Path, log: pa.Table) -> Path:
    """A declaration, the shop's log until March 10th, and what came after."""
    declaration = {
        "schema": 1,
        "name": "shop",
        "user": "user",
        "time": {"column": "at", "zone": "America/New_York"},
        "action": {"column": "what", "day_level": ["redeem"]},
        "group": "basket",
        "entities": {"product": {"column": "sku", "candidates": True}, "coupon": {"column": "coupon"}},
        "context": {"store": {"kind": "category"}},
        "outcome": {"quantity": {"kind": "number"}},
        "merge": {"same_item_in_group": True},
        "split": {"time": "2024-03-20"},
    }
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(declaration))
    later = pa.array([at > "2024-03-10" for at in log["at"].to_pylist()])
    pq.write_table(log.filter(pc.invert(later)), tmp_path / "one.parquet")
    pq.write_table(log.filter(later), tmp_path / "two.parquet")
    tokenize(tmp_path / "schema.yaml", tmp_path / "one.parquet", None, tmp_path / "corpus")
    return tmp_path


def test_the_job_appends_a_day_and_counts_it(files: Path, log: pa.Table) -> None:
    one = Corpus.open(files / "corpus")
    corpus = append(files / "schema.yaml", files / "two.parquet", files / "corpus")
    assert corpus.tokens().equals(corpus.tokenizer.transform(log))
    whole = tokenize(files / "schema.yaml", _written(files / "log.parquet", log), None, files / "whole")
    same = ("events", "tokens", "merged", "quarantined", "dropped", "users")
    assert {name: corpus.summary[name] for name in same} == {name: whole.summary[name] for name in same}
    assert corpus.summary["items"] == len(corpus.tokenizer.items.ids) > one.summary["items"]
    known = len(one.tokenizer.items.ids)
    assert corpus.tokenizer.items.ids.ids.slice(known).to_pylist() == ["bread", "cocoa", "rope", "wax"]
    assert corpus.tokenizer.items.vectors.shape[0] == len(corpus.tokenizer.items)


def test_the_same_input_is_appended_once_whatever_it_is_called(files: Path) -> None:
    first = append(files / "schema.yaml", files / "two.parquet", files / "corpus")
    (files / "two.parquet").rename(files / "again.parquet")
    said: list[str] = []
    again = append(
        files / "schema.yaml", files / "again.parquet", files / "corpus", lambda stage, done, total: said.append(stage)
    )
    assert said == ["already appended"]
    assert again.manifest == first.manifest
    assert again.tokens().equals(first.tokens())


def test_late_events_are_quarantined_as_they_were_written(files: Path, log: pa.Table) -> None:
    pq.write_table(pa.concat_tables([log.slice(1, 1), log.slice(5, 2)]), files / "mixed.parquet")
    corpus = append(files / "schema.yaml", files / "mixed.parquet", files / "corpus")
    assert corpus.summary["quarantined"] == {"at is not after the user's last closed group": 1}
    (refused,) = corpus.quarantine.to_pylist()
    assert (refused["user"], refused["at"], refused["sku"]) == ("ann", "2024-03-01T15:00:00", "milk")
    assert refused["quantity"] == "1"
    with pytest.raises(SourceError, match="make no sense: at is not after"):
        append(files / "schema.yaml", _written(files / "x.parquet", log.slice(1, 1)), files / "corpus", strict=True)


def test_a_day_of_late_events_alone_adds_no_part(files: Path, log: pa.Table) -> None:
    before = Corpus.open(files / "corpus")
    again = _written(files / "again.parquet", log.slice(0, 4))
    corpus = append(files / "schema.yaml", again, files / "corpus")
    assert len(corpus.parts) == 1
    assert corpus.tokens().equals(before.tokens())
    assert corpus.quarantine.num_rows == corpus.summary["events"] - before.summary["events"] == 4
    assert corpus.summary["users"] == before.summary["users"]


def test_late_events_take_effect_with_the_newest_where_the_schema_says_so(files: Path, log: pa.Table) -> None:
    schema = EventSchema.from_yaml(files / "schema.yaml")
    assert schema.time is not None
    schema = schema.model_copy(update={"time": schema.time.model_copy(update={"late": Late.NOW})})
    corpus = Corpus.open(files / "corpus")
    both = pa.concat_tables([log.slice(1, 1), log.slice(5, 1), log.slice(7, 1)])  # ann late and new, bob at once
    cleaned = clean(both, schema)
    ends = corpus.ends(pa.array(["ann", "bob"]))
    opened = from_table(corpus.open_events(ends["user_id"].combine_chunks()), schema, pa.string())
    assert opened.users.decode().to_pylist() == ["ann", "bob"]
    settled = settle_late(both, cleaned, ends, schema, opened)
    assert settled.events.times.tolist() == [cleaned.events.times[1], cleaned.events.times[1], opened.times[1]]
    tokens = replace(corpus.tokenizer, schema=schema).transform(joined(opened, settled.events), after=ends)
    assert tokens["group"].to_pylist() == [[2, 3, 3], [0]]


def test_another_declaration_is_refused_by_the_key_that_differs(files: Path) -> None:
    told = yaml.safe_load((files / "schema.yaml").read_text())
    (files / "other.yaml").write_text(yaml.safe_dump({**told, "outcome": {"quantity": {"kind": "category"}}}))
    with pytest.raises(CorpusError, match="made by another declaration: 'outcome' differs; append with the one"):
        append(files / "other.yaml", files / "two.parquet", files / "corpus")
    (files / "weights.yaml").write_text(yaml.safe_dump({**told, "targets": {"product": 1.0, "quantity": 0.5}}))
    assert len(append(files / "weights.yaml", files / "two.parquet", files / "corpus").parts) == 2


def test_what_becomes_of_late_and_repeated_rows_is_said_by_the_declaration_of_the_day(
    files: Path, log: pa.Table
) -> None:
    told = yaml.safe_load((files / "schema.yaml").read_text())
    (files / "late.yaml").write_text(yaml.safe_dump({**told, "time": {**told["time"], "late": "now"}}))
    corpus = append(files / "late.yaml", _written(files / "late.parquet", log.slice(1, 1)), files / "corpus")
    assert corpus.summary["quarantined"] == {}
    (files / "rows.yaml").write_text(yaml.safe_dump({**told, "event_id": "row"}))
    twice = pa.concat_tables([log.slice(5, 1)] * 2).append_column("row", pa.array([1, 1]))
    corpus = append(files / "rows.yaml", _written(files / "rows.parquet", twice), files / "corpus")
    assert corpus.summary["quarantined"] == {"row is there twice": 1}


def test_what_can_not_be_read_is_named(files: Path) -> None:
    with pytest.raises(SourceError, match="doesn't exist; give a file"):
        append(files / "schema.yaml", files / "nowhere.parquet", files / "corpus")
    with pytest.raises(CorpusError, match="is no corpus"):
        append(files / "schema.yaml", files / "two.parquet", files / "nothing")


def test_a_folder_is_told_by_its_bytes(tmp_path: Path) -> None:
    for name, parts in (("a", ["x", "y"]), ("b", ["x", "y"]), ("c", ["x", "z"])):
        (tmp_path / name).mkdir()
        for number, part in enumerate(parts):
            (tmp_path / name / f"{number}.csv").write_text(part)
    assert digest(tmp_path / "a") == digest((tmp_path / "b").as_uri()) != digest(tmp_path / "c")


def _written(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path)
    return path


def test_users_that_are_text_now_and_were_numbers_are_numbers_or_one_sentence(tmp_path: Path) -> None:
    schema = EventSchema.from_dict(
        {"schema": 1, "name": "s", "user": "u", "time": {"column": "t"}, "entities": {"p": {"candidates": True}}}
    )
    path = tmp_path / "schema.yaml"
    path.write_text(yaml.safe_dump(schema.to_dict()))
    day = pa.table({"u": [7, 7, 8, 8], "t": [0.0, 10.0, 20.0, 100.0], "p": ["a", "b", "a", "b"]})
    pq.write_table(day, tmp_path / "1.parquet")
    tokenize(path, tmp_path / "1.parquet", None, tmp_path / "corpus")
    assert append(path, tmp_path / "1.parquet", tmp_path / "corpus").summary["events"] == 4  # the base itself
    pq.write_table(pa.table({"u": ["7", "9"], "t": [200.0, 200.0], "p": ["a", "a"]}), tmp_path / "2.parquet")
    corpus = append(path, tmp_path / "2.parquet", tmp_path / "corpus")
    assert corpus.user_ids.to_pylist() == [7, 8, 9]
    pq.write_table(pa.table({"u": ["guest"], "t": [300.0], "p": ["a"]}), tmp_path / "3.parquet")
    with pytest.raises(SourceError, match="are whole numbers, and some that come now are text"):
        append(path, tmp_path / "3.parquet", tmp_path / "corpus")
    pq.write_table(pa.table({"u": [7], "t": [400.0], "p": [5]}), tmp_path / "4.parquet")
    assert append(path, tmp_path / "4.parquet", tmp_path / "corpus").summary["events"] == 7


def test_an_id_that_comes_once_a_day_is_admitted_when_it_came_often_enough(files: Path) -> None:
    declared = yaml.safe_load((files / "schema.yaml").read_text())
    declared["entities"]["product"]["admit"] = 3
    (files / "schema.yaml").write_text(yaml.safe_dump(declared))
    one = pq.read_table(files / "one.parquet")
    tokenize(files / "schema.yaml", files / "one.parquet", None, files / "slow")
    corpus = Corpus.open(files / "slow")
    before = corpus.tokenizer
    assert "kite" not in before.items.ids.ids.to_pylist()
    rows = one.slice(0, 1).set_column(one.column_names.index("sku"), "sku", pa.array(["kite"]))
    for day in range(1, 4):
        assert "kite" not in corpus.tokenizer.items.ids.ids.to_pylist()
        at, basket = pa.array([f"2024-03-2{day}T12:00:00"]), pa.array([900 + day])
        daily = rows.set_column(one.column_names.index("at"), "at", at)
        pq.write_table(daily.set_column(one.column_names.index("basket"), "basket", basket), files / "day.parquet")
        corpus = append(files / "schema.yaml", files / "day.parquet", files / "slow")
    assert corpus.tokenizer.items.ids.ids.to_pylist()[len(before.items.ids) :] == ["kite"]
    assert corpus.tokenizer.prefix_fingerprint(sizes_of(before)) == before.fingerprint
    codes = corpus.users(pa.array(["ann"]))["product"][0].as_py()
    # The baskets of the days before were open, so they were said again when the id had its code.
    assert codes[-3:] == [before.items.ids.size] * 3


def test_another_column_of_release_needs_a_revision_where_ages_are_read(files: Path) -> None:
    declared = yaml.safe_load((files / "schema.yaml").read_text())
    declared["items"] = {"released": "since"}
    (files / "schema.yaml").write_text(yaml.safe_dump(declared))
    append(files / "schema.yaml", files / "two.parquet", files / "corpus")  # nothing is read of it
    declared["time"]["facets"] = ["age"]
    (files / "schema.yaml").write_text(yaml.safe_dump(declared))
    items = pa.table({"sku": ["tea"], "since": ["2024-02-01"]})
    pq.write_table(items, files / "items.parquet")
    tokenize(files / "schema.yaml", files / "one.parquet", files / "items.parquet", files / "aged")
    declared["items"] = {"released": "until"}
    (files / "schema.yaml").write_text(yaml.safe_dump(declared))
    with pytest.raises(CorpusError, match=r"'items\.released' differs; append with the one it was made by, or raise"):
        append(files / "schema.yaml", files / "two.parquet", files / "aged")
