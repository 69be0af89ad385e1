"""Old corpora under new declarations, and new corpora for old models: a code means the same, or there is a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tokenization.corpus import Corpus, Format, write_corpus
from tokenization.errors import SchemaError
from tokenization.schema import EventSchema
from tokenization.tokenizer import Tokenizer
from tokenization.translation import translation, under
from tokenization.vocabulary import UNKNOWN, Vocabulary

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
    for name in set(made.column_names) - {"till", "wait", "wait.value", "action", "rack"}:
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


def test_ids_that_joined_later_are_unknown_to_who_came_before(old: Tokenizer, log: pa.Table) -> None:
    stores: Vocabulary = old.vocabularies["store"].grow(pa.array(["s3", "s9"]))
    grown = Tokenizer(old.schema, old.split, {**old.vocabularies, "store": stores}, old.numbers, old.items)
    assert grown.fingerprint != old.fingerprint
    tokens = grown.transform(log)
    assert translation(grown, old).apply(tokens).equals(old.transform(log))
    assert translation(old, grown).apply(old.transform(log)).equals(old.transform(log))


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
