"""Old corpora under new declarations, and new corpora for old models: a code means the same, or there is a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tokenization.codes.vocabulary import UNKNOWN, Vocabulary
from tokenization.corpus.corpus import Corpus, Format, write_corpus
from tokenization.errors import SchemaError
from tokenization.events.cleaning import clean
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.growing import grow
from tokenization.tokenizer.tokenizer import Tokenizer
from tokenization.tokenizer.translation import translation, under

Declare = Callable[..., EventSchema]


@pytest.fixture(scope="module")
def old(schema: EventSchema, log: pa.Table, items: pa.Table) -> Tokenizer:
    return Tokenizer.fit(schema, log, items)


@pytest.fixture(scope="module")
def newer(declare: Declare) -> EventSchema:
    """A facet came, one has another name, one is gone; an action and a shelf are spelt otherwise."""
    return declare(
        revision=2,
        action={"column": "what", "day_level": ["redeem"], "aliases": {"buy": "purchase"}},
        context={"store": {"kind": "category"}, "till": {"kind": "category"}, "wait": {"kind": "number"}},
        outcome={"rack": {"kind": "category", "column": "shelf", "was": "shelf", "aliases": {"end": "top"}}},
        targets={"product": 1.0},
        retired=["quantity"],
    )


@pytest.fixture(scope="module")
def newer_log(log: pa.Table) -> pa.Table:
    rows = log.num_rows
    return log.append_column("till", pa.array(["left", "right"] * (rows // 2))).append_column(
        "wait", pa.array([float(row) for row in range(rows)])
    )


def lists(table: pa.Table, name: str) -> list[list[Any]]:
    found: list[list[Any]] = table[name].to_pylist()
    return found


def test_codes_stay_when_a_schema_is_revised(old: Tokenizer, newer: EventSchema) -> None:
    brought = under(old, newer)
    assert brought.schema == newer
    assert brought.split == old.split
    assert brought.items is old.items
    assert brought.vocabularies["product"] is old.items.ids
    assert brought.vocabularies["store"] is old.vocabularies["store"]
    assert len(brought.vocabularies["till"]) == 0
    assert "quantity" not in brought.numbers
    assert "purchase" in brought.vocabularies["action"].ids.to_pylist()
    place = old.vocabularies["action"].ids.to_pylist().index("buy")
    assert brought.vocabularies["action"].ids[place].as_py() == "purchase"
    racks, shelves = brought.vocabularies["rack"].ids.to_pylist(), old.vocabularies["shelf"].ids.to_pylist()
    assert racks == shelves  # both "end" and "top" had a code, so each keeps it


def test_a_revised_tokenizer_is_saved_and_gives_tokens(
    old: Tokenizer, newer: EventSchema, newer_log: pa.Table, tmp_path: Path
) -> None:
    brought = under(old, newer)
    brought.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == brought.fingerprint
    tokens = loaded.transform(newer_log)
    assert {code for row in lists(tokens, "till") for code in row} <= {0, UNKNOWN}
    assert tokens["store"].equals(old.transform(newer_log)["store"])


def test_old_tokens_read_under_the_new_schema_are_those_it_would_have_made(
    old: Tokenizer, newer: EventSchema, log: pa.Table, newer_log: pa.Table
) -> None:
    brought = under(old, newer)
    read = translation(old, brought).apply(old.transform(log))
    made = brought.transform(newer_log)
    assert read.schema == made.schema
    for name in set(made.column_names) - {"till", "wait", "wait.value"}:
        assert read[name].equals(made[name]), name
    assert {code for row in lists(read, "till") for code in row} == {0}
    assert pc.all(pc.is_null(read["wait.value"].combine_chunks().flatten())).as_py()
    top, end = (old.vocabularies["shelf"].encode(pa.array([value]))[0] for value in ("top", "end"))
    assert top != end
    assert end not in {code for row in lists(read, "rack") for code in row}


def test_new_tokens_read_by_an_old_tokenizer_are_those_it_would_have_made(
    old: Tokenizer, declare: Declare, log: pa.Table, newer_log: pa.Table, items: pa.Table
) -> None:
    schema = declare(
        revision=2,
        context={"store": {"kind": "category"}, "till": {"kind": "category"}},
        outcome={"amount": {"kind": "number", "column": "quantity", "was": "quantity"}},
        targets=None,
        retired=["shelf"],
    )
    new = Tokenizer.fit(schema, newer_log, items)
    read, made = translation(new, old).apply(new.transform(newer_log)), old.transform(log)
    assert read.schema == made.schema
    assert {code for row in lists(read, "shelf") for code in row} == {0}
    for name in set(made.column_names) - {"shelf"}:
        assert read[name].equals(made[name]), name


def test_a_facet_of_every_kind_is_renamed_added_and_retired(declare: Declare, log: pa.Table) -> None:
    rows = log.num_rows
    values: dict[str, list[Any]] = {
        "category": ["a", "b"] * (rows // 2),
        "id": [f"x{row % 5}" for row in range(rows)],
        "number": [float(row) for row in range(rows)],
        "duration": [float(row) for row in range(rows)],
        "timestamp": ["2024-02-01", "2024-03-02"] * (rows // 2),
        "text": ["green tea", "oat milk and honey"] * (rows // 2),
        "set": [["u", "v"], ["w"]] * (rows // 2),
        "vector": [[float(row), 1.0] for row in range(rows)],
    }
    for kind, column in values.items():
        log = log.append_column(kind, pa.array(column))
    before = {kind: {"kind": kind} for kind in values}
    after = {f"new_{kind}": {"kind": kind, "column": kind, "was": kind} for kind in values}
    pairs = {"merge": {"pairs": {"number": 2, "within": "1h"}}, "targets": None, "items": None}
    bare = Tokenizer.fit(declare(outcome={}, **pairs), log)
    first = Tokenizer.fit(declare(outcome=before, revision=2, **pairs), log)
    second = Tokenizer.fit(declare(outcome=after, revision=3, **pairs), log)
    third = Tokenizer.fit(declare(outcome={}, revision=4, retired=list(after), **pairs), log)
    tokenizers = (bare, first, second, third)
    tokens = [tokenizer.transform(log) for tokenizer in tokenizers]
    assert translation(first, second).apply(tokens[1]).equals(tokens[2])
    assert translation(second, first).apply(tokens[2]).equals(tokens[1])
    assert under(first, second.schema).fingerprint == second.fingerprint
    for given, wanted in ((bare, first), (third, second)):
        expected = wanted.transform(log)
        read = translation(given, wanted).apply(given.transform(log))
        assert read.schema == expected.schema
        for name in read.column_names:
            if name in tokens[0].column_names:
                assert read[name].equals(expected[name]), name
            elif name.endswith(".value"):
                assert pc.all(pc.is_null(read[name].combine_chunks().flatten())).as_py()
            else:
                assert not np.any(read[name].combine_chunks().flatten().to_numpy()), name
    assert translation(first, bare).apply(tokens[1]).equals(tokens[0])
    assert translation(second, third).apply(tokens[2]).equals(tokens[3])
    grown = under(bare, first.schema).transform(log)
    assert grown.schema == tokens[1].schema


def test_attributes_of_users_come_and_go(declare: Declare, log: pa.Table) -> None:
    people = pa.table({"user": ["ann", "bob"], "town": ["Rome", "Oslo"], "age": [30.0, 60.0]})
    old_schema = declare(users={"categories": ["town"]}, items=None)
    new_schema = declare(revision=2, users={"categories": ["town"], "numbers": ["age"]}, items=None)
    old = Tokenizer.fit(old_schema, log, users=people)
    new = Tokenizer.fit(new_schema, log, users=people)
    before, after = old.transform(log, people), new.transform(log, people)
    read = translation(old, new).apply(before)
    assert read.schema == after.schema
    assert read["user.town"].equals(after["user.town"])
    assert read["user.age"].to_pylist() == [0, 0, 0]
    assert translation(new, old).apply(after).equals(before)
    other = declare(revision=2, users={"numbers": ["town"]}, items=None)
    with pytest.raises(SchemaError, match=r"users\.town: a category can't become a number; write it into another"):
        under(old, other)


def test_ids_that_joined_later_are_unknown_to_who_came_before(old: Tokenizer, log: pa.Table) -> None:
    stores: Vocabulary = old.vocabularies["store"].grow(pa.array(["s3", "s9"]))
    grown = replace(old, vocabularies={**old.vocabularies, "store": stores})
    assert grown.fingerprint != old.fingerprint
    tokens = grown.transform(log)
    assert translation(grown, old).apply(tokens).equals(old.transform(log))
    assert translation(old, grown).apply(old.transform(log)).equals(old.transform(log))


def test_a_model_trained_before_reads_tokens_of_items_met_later_as_it_would_make_them(
    declare: Declare, log: pa.Table
) -> None:
    log = log.take([*range(5), *range(6, 10), 11])  # no two items in a group, whose order goes by codes
    time = {"column": "at", "facets": ["hour", "age"]}
    old = Tokenizer.fit(declare(time=time, items=None), log)
    grown = grow(old, clean(log, old.schema).events)
    assert len(grown.items) > len(old.items)
    tokens = grown.transform(log)
    assert not tokens["age"].equals(old.transform(log)["age"])  # what is met after the split has an age from now on
    for chunks in (tokens, pa.concat_tables([tokens.slice(row, 1) for row in range(tokens.num_rows)])):
        assert translation(grown, old).apply(chunks).combine_chunks().equals(old.transform(log))
    assert translation(grown, old).apply(tokens, ["age"])["age"].equals(old.transform(log)["age"])
    assert set(translation(grown, old).sources(["age"])) == {"age", "product"}
    assert translation(old, grown).apply(old.transform(log)).equals(old.transform(log))


def test_two_spellings_of_one_value_wait_together(declare: Declare, log: pa.Table) -> None:
    shelf = {"kind": "category", "admit": 3}
    old = Tokenizer.fit(declare(outcome={"shelf": shelf}, targets=None), log)
    assert old.vocabularies["shelf"].waiting.ids.to_pylist() == ["end"]
    aliases = {"end": "edge", "side": "edge", "upper": "top"}
    new = under(old, declare(revision=2, outcome={"shelf": {**shelf, "aliases": aliases}}, targets=None))
    waiting = new.vocabularies["shelf"].waiting
    assert (waiting.ids.to_pylist(), waiting.counts.tolist()) == (["edge"], [1])
    more = log.slice(0, 2).set_column(8, "shelf", pa.array(["side", "end"]))
    assert "edge" in grow(new, clean(more, new.schema).events).vocabularies["shelf"].ids.to_pylist()


def test_chunks_and_slices_translate_as_the_whole(old: Tokenizer, newer: EventSchema, log: pa.Table) -> None:
    told = translation(old, under(old, newer))
    tokens = old.transform(log)
    parts = pa.concat_tables([tokens.slice(row, 1) for row in range(tokens.num_rows)])
    assert told.apply(parts).combine_chunks().equals(told.apply(tokens).combine_chunks())
    assert told.apply(tokens.slice(1, 1)).to_pylist() == told.apply(tokens).slice(1, 1).to_pylist()
    assert told.apply(tokens.slice(0, 0)).num_rows == 0
    assert told.apply(tokens, ["rack", "user_id"]).column_names == ["rack", "user_id"]
    assert set(told.sources(["till"])) == {"time"}


def test_other_codes_are_refused_by_the_name_of_the_facet(
    old: Tokenizer, schema: EventSchema, log: pa.Table, items: pa.Table
) -> None:
    place = log.column_names.index("store")
    moved = log.set_column(place, "store", pc.replace_substring(log["store"], "s2", "s8"))
    with pytest.raises(SchemaError, match="'store' has other codes in the two, the first of them 2; tokenize both"):
        translation(Tokenizer.fit(schema, moved, items), old)
    column = log.column_names.index("quantity")
    doubled = log.set_column(column, "quantity", pc.multiply(log["quantity"], 2.0))
    with pytest.raises(SchemaError, match="'quantity' has other bins in the two"):
        translation(Tokenizer.fit(schema, doubled, items), old)


@pytest.mark.parametrize("format", ["parquet", "lance"])
def test_a_corpus_is_read_under_a_later_revision(
    format: Format, old: Tokenizer, newer: EventSchema, declare: Declare, log: pa.Table, tmp_path: Path
) -> None:
    if format == "lance":
        pytest.importorskip("lance")
    tokens = old.transform(log)
    corpus = write_corpus(tmp_path / "corpus", [tokens], old, {}, format)
    read = corpus.under(newer)
    expected = translation(old, under(old, newer)).apply(tokens)
    assert read.tokens().equals(expected)
    assert read.tokens(["till", "rack"]).equals(expected.select(["till", "rack"]))
    assert read.users(pa.array(["cem", "ann"])).to_pylist() == expected.take(pa.array([2, 0])).to_pylist()
    assert read.user_ids.equals(corpus.user_ids)
    assert read.tokenizer.fingerprint == under(old, newer).fingerprint
    assert Corpus.open(corpus.folder).tokens().equals(tokens)
    with pytest.raises(SchemaError, match="user: tokens made before would mean another thing"):
        corpus.under(declare(revision=2, user="who"))
