"""A corpus of several parts under a later revision of its schema: read so, written so, and gone on with so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tokenization.corpus.corpus import Corpus, Format, compact
from tokenization.errors import CorpusError, SchemaError
from tokenization.job.appending import append
from tokenization.job.pipeline import tokenize
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.translation import translation

FIRST: dict[str, Any] = {
    "schema": 1,
    "name": "kiosk",
    "user": "user",
    "time": {"column": "at"},
    "action": {"column": "what"},
    "entities": {"product": {"column": "sku", "candidates": True}},
    "context": {"store": {"kind": "category"}},
    "outcome": {"price": {"kind": "number"}, "shelf": {"kind": "category"}},
    "split": {"time": "2024-02-01"},
}
SECOND: dict[str, Any] = {
    **FIRST,
    "revision": 2,
    "action": {"column": "what", "aliases": {"buy": "purchase"}},
    "context": {"shop": {"kind": "category", "column": "store", "was": "store"}, "till": {"kind": "category"}},
    "outcome": {"price": {"kind": "number"}},
    "retired": ["shelf"],
}


def events(day: str, rows: int = 40) -> pa.Table:
    return pa.table(
        {
            "user": [f"u{row % 7}" for row in range(rows)],
            "at": [f"{day}T{row % 24:02d}:{row:02d}:00" for row in range(rows)],
            "what": ["buy", "view"] * (rows // 2),
            "sku": [f"p{row % 9}" for row in range(rows)],
            "store": [f"s{row % 3}" for row in range(rows)],
            "price": [float(row % 5) for row in range(rows)],
            "shelf": ["top", "low"] * (rows // 2),
        }
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, declaration in (("first", FIRST), ("second", SECOND)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(declaration, sort_keys=False))
    for number, day in enumerate(("2024-01-02", "2024-01-05", "2024-02-03")):
        pq.write_table(events(day), tmp_path / f"{number}.parquet")
    later = events("2024-02-04").append_column("till", pa.array(["left", "right"] * 20))
    pq.write_table(later, tmp_path / "3.parquet")
    return tmp_path


@pytest.fixture(params=["parquet", "lance"])
def corpus(files: Path, request: pytest.FixtureRequest) -> Corpus:
    """Of two parts, under the first revision."""
    format: Format = request.param
    if format == "lance":
        pytest.importorskip("lance")
    tokenize(files / "first.yaml", files / "0.parquet", None, files / "corpus", format)
    return append(files / "first.yaml", files / "2.parquet", files / "corpus")


def test_all_parts_are_read_under_a_later_revision(corpus: Corpus) -> None:
    assert len(corpus.parts) == 2
    schema = EventSchema.from_dict(SECOND)
    read = corpus.under(schema)
    expected = translation(corpus.tokenizer, read.tokenizer).apply(corpus.tokens())
    assert read.tokens().select(expected.column_names).equals(expected)
    assert set(read.tokens().column_names) == set(expected.column_names)
    users = pa.array(["u3", "u0"])
    assert read.users(users, ["shop", "till", "user_id"]).to_pylist() == [
        {"shop": row["store"], "till": [0] * len(row["store"]), "user_id": row["user_id"]}
        for row in corpus.users(users, ["store", "user_id"]).to_pylist()
    ]
    batches = [batch for rank in range(2) for batch in read.scan(rank, 2, 2)]
    assert pa.concat_tables(batches).combine_chunks().equals(read.tokens().combine_chunks())


def test_a_corpus_written_under_a_later_revision_is_what_was_read_under_it(corpus: Corpus) -> None:
    schema = EventSchema.from_dict(SECOND)
    expected = corpus.under(schema).tokens()
    written = compact(corpus.folder, schema)
    assert len(written.parts) == 1
    assert written.tokenizer.schema == schema
    assert written.tokens().select(expected.column_names).combine_chunks().equals(expected.combine_chunks())
    assert written.manifest.appended == corpus.manifest.appended
    assert compact(corpus.folder, schema).manifest == written.manifest


def test_an_earlier_declaration_does_not_take_a_corpus_of_a_later_one_for_its_own(corpus: Corpus, files: Path) -> None:
    compact(corpus.folder, EventSchema.from_dict(SECOND))
    for log in ("0.parquet", "1.parquet"):
        with pytest.raises(CorpusError, match=r"corpus is of revision 2 of 'kiosk', and the declaration given of revi"):
            tokenize(files / "first.yaml", files / log, None, corpus.folder)
    assert Corpus.open(corpus.folder).tokenizer.schema.revision == 2


def test_appending_goes_on_under_a_later_revision(corpus: Corpus, files: Path) -> None:
    before, buy = corpus.tokens(), corpus.tokenizer.vocabularies["action"].encode(pa.array(["buy"]))[0]
    after = append(files / "second.yaml", files / "3.parquet", files / "corpus")
    assert after.tokenizer.schema.revision == 2
    shops = after.tokens()["shop"]
    stores = before["store"]
    for old, new in zip(stores.to_pylist(), shops.to_pylist(), strict=True):
        assert new[: len(old)] == old
    tills = after.tokens()["till"].to_pylist()
    for old, till in zip(stores.to_pylist(), tills, strict=True):
        assert set(till[: len(old)]) == {0}
        assert min(till[len(old) :]) > 1
    assert "shelf" not in after.tokens().column_names
    assert after.tokenizer.vocabularies["action"].encode(pa.array(["purchase"]))[0] == buy
    appended = [
        codes[len(old) :] for old, codes in zip(stores.to_pylist(), after.tokens()["action"].to_pylist(), strict=True)
    ]
    assert any(buy in codes for codes in appended)


def test_appending_under_another_declaration_names_what_stands_against_it(corpus: Corpus, files: Path) -> None:
    other = files / "other.yaml"
    other.write_text(yaml.safe_dump({**SECOND, "revision": 1}))
    with pytest.raises(CorpusError, match="'action' differs; append with the one it was made by, or raise `revision`"):
        append(other, files / "3.parquet", files / "corpus")
    other.write_text(yaml.safe_dump({**SECOND, "user": "sku"}))
    with pytest.raises(SchemaError, match="user: tokens made before would mean another thing"):
        append(other, files / "3.parquet", files / "corpus")
    assert Corpus.open(files / "corpus").manifest == corpus.manifest
