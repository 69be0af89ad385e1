"""`userfm schema`: drafting, checking, comparing, and what editors are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tokenization.corpus.corpus import Corpus
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.json_schema import text


def test_a_draft_tokenizes_the_log_it_was_made_of(
    shop_files: Any, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = tmp_path / "shop.csv"
    pyarrow.csv.write_csv(pq.read_table(shop_files.events), events)
    assert command("schema", "infer", events, "--out", tmp_path / "schema.yaml") == 0
    assert command("schema", "check", tmp_path / "schema.yaml") == 0
    said = capsys.readouterr().out
    assert "schema.yaml is sound: shop, revision 1, 1 entity type, 1 context facet, 1 outcome facet, 1 target" in said
    assert command("tokenize", tmp_path / "schema.yaml", events, "--out", tmp_path / "corpus") == 0
    schema, asked = Corpus.open(tmp_path / "corpus").tokenizer.schema, EventSchema.from_yaml(shop_files.schema)
    assert (schema.user, schema.group, schema.action) == (asked.user, asked.group, asked.action)
    assert (set(schema.context), set(schema.outcome)) == (set(asked.context), set(asked.outcome))


def test_without_out_a_draft_is_printed(shop_files: Any, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("schema", "infer", shop_files.events, "--user", "customer", "--item", "article") == 0
    out = capsys.readouterr().out
    assert "# You said so\nuser: customer" in out
    assert "article: {candidates: true}" in out


def test_a_draft_does_not_replace_a_file(shop_files: Any, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = shop_files.schema.read_text()
    assert command("schema", "infer", shop_files.events, "--out", shop_files.schema) == 2
    assert "is there already; name another file" in capsys.readouterr().err
    assert shop_files.schema.read_text() == before


def test_what_can_not_be_found_is_one_sentence(
    shop_files: Any, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pq.read_table(shop_files.events).drop_columns(["time", "article"])
    pq.write_table(table, tmp_path / "events.parquet")
    assert command("schema", "infer", tmp_path / "events.parquet") == 2
    assert capsys.readouterr().err.strip() == (
        "userfm: no column holds times, nor says that it orders events; name it by --time COLUMN"
    )


def test_check_names_file_line_key_and_the_nearest_name(
    shop_files: Any, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(shop_files.schema.read_text().replace("outcome:", "outcomes:"))
    assert command("schema", "check", wrong) == 2
    line = wrong.read_text().splitlines().index("outcomes:") + 1
    assert f"{wrong}:{line}: outcomes: there is no such key; did you mean 'outcome'?" in capsys.readouterr().err


def test_the_json_schema_is_printed_or_written(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("schema", "json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(text())
    assert command("schema", "json", "--out", tmp_path / "deep" / "schema.json") == 0
    assert (tmp_path / "deep" / "schema.json").read_text(encoding="utf-8") == text()


def test_diff_tells_what_may_follow(
    shop: Any, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.yaml"
    raised = shop.schema.read_text().replace("name: shop", "name: shop\nrevision: 2")
    new.write_text(raised.replace("  price: {kind: number}", "  cost: {kind: number, column: price, was: price}"))
    for old in (shop.schema, shop.corpus, shop.run):
        capsys.readouterr()
        assert command("schema", "diff", old, new) == 0
        said = capsys.readouterr().out
        assert "renamed" in said
        assert "outcome.cost" in said
        assert "allowed, raises revision" in said
        assert f"{new} may follow {old}" in said
    assert command("schema", "diff", new, new) == 0
    assert capsys.readouterr().out.strip() == "nothing changed"


def test_an_old_corpus_is_brought_under_a_later_revision(
    shop: Any, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(shop.corpus, corpus)
    new = tmp_path / "new.yaml"
    raised = shop.schema.read_text().replace("name: shop", "name: shop\nrevision: 2")
    new.write_text(raised.replace("  price: {kind: number}", "  cost: {kind: number, column: price, was: price}"))
    assert command("schema", "apply", corpus, new) == 0
    assert "was of revision 1 and is of revision 2" in capsys.readouterr().out
    assert {"cost", "cost.value"} <= set(Corpus.open(corpus).tokens().column_names)
    figures = []
    for folder in (shop.corpus, corpus):
        assert command("evaluate", shop.run, folder, "--json", tmp_path / "figures.json") == 0
        figures.append(json.loads((tmp_path / "figures.json").read_text())["evaluation"])
    assert figures[0] == figures[1]
    out = tmp_path / "recs.csv"
    assert command("recommend", shop.run, corpus, "--k", 3, "--out", out) == 0


def test_diff_and_apply_say_what_an_added_facet_can_not_tell_yet(
    shop: Any, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, new = tmp_path / "corpus", tmp_path / "new.yaml"
    shutil.copytree(shop.corpus, corpus)
    raised = shop.schema.read_text().replace("name: shop", "name: shop\nrevision: 2")
    new.write_text(raised.replace("outcome:", "outcome:\n  cost: {kind: number, column: price}"))
    assert command("schema", "diff", corpus, new) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "one bin" in words
    assert command("schema", "apply", corpus, new) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "outcome.cost: all its values are in one bin until the whole log is tokenized again" in said


def test_diff_refuses_by_name(shop: Any, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new.yaml"
    new.write_text(shop.schema.read_text().replace("till: {kind: category}", "till: {kind: id}"))
    assert command("schema", "diff", shop.schema, new) == 2
    told = capsys.readouterr()
    assert "context.till: a category of the context can't become an id of the context" in told.err
    assert "context.till" in told.out
    new.write_text(shop.schema.read_text().replace("  price: {kind: number}", "  {}").replace("outcome:\n  {}", ""))
    assert command("schema", "diff", shop.schema, new) == 2
    assert "outcome.price: it is gone; list 'price' under `retired`" in capsys.readouterr().err
    assert command("schema", "diff", tmp_path, new) == 2
    assert "holds no tokenizer" in capsys.readouterr().err


@pytest.mark.slow
def test_the_draft_of_complete_journey_is_nearly_its_example(command: Any, tmp_path: Path) -> None:
    from userfm.complete_journey import prepare, schema_path

    events, _ = prepare(tmp_path, lambda stage, done, total: None)
    assert command("schema", "infer", events, "--out", tmp_path / "schema.yaml") == 0
    found, asked = EventSchema.from_yaml(tmp_path / "schema.yaml"), EventSchema.from_yaml(schema_path())
    assert (found.user, found.group, found.candidates) == (asked.user, asked.group, asked.candidates)
    assert found.action
    assert asked.action
    assert set(found.action.day_level) == set(asked.action.day_level)
    assert {name: rule.column for name, rule in found.entities.items()} == {
        name: rule.column for name, rule in asked.entities.items()
    }
    assert found.outcome == asked.outcome
