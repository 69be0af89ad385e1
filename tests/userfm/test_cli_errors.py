"""What a user can mend is one sentence on stderr and exit code 2, without a traceback."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Said = Callable[..., str]


@pytest.fixture
def said(command: Any, capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command that must fail with exit code 2, and returns its one line on stderr, `userfm: ` taken off."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert command(*arguments) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("userfm: "), lines
        assert not any("Traceback" in line for line in lines)
        return lines[-1].removeprefix("userfm: ")

    return run


def test_a_missing_column_is_named_with_the_nearest_one(shop_files: Any, said: Said, tmp_path: Path) -> None:
    table = pq.read_table(shop_files.events)
    pq.write_table(
        table.rename_columns([n.replace("article", "artikle") for n in table.column_names]), tmp_path / "e.parquet"
    )
    sentence = said("tokenize", shop_files.schema, tmp_path / "e.parquet", "--out", tmp_path / "corpus")
    assert "has no column 'article'; did you mean 'artikle'?" in sentence
    assert not (tmp_path / "corpus").exists()


def test_an_unknown_key_is_named_with_file_line_and_the_nearest_one(
    shop_files: Any, said: Said, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.yaml"
    schema.write_text(shop_files.schema.read_text().replace("entities:", "entitys:"))
    sentence = said("tokenize", schema, shop_files.events, "--out", tmp_path / "corpus")
    line = schema.read_text().splitlines().index("entitys:") + 1
    assert sentence.startswith(f"{schema}:{line}: entitys:")
    assert "entities" in sentence


@pytest.mark.parametrize("name", ["events.parquet", "events.csv", "events.xlsx"])
def test_an_unreadable_file_is_named(name: str, shop_files: Any, said: Said, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(b"\x00\x01 not a table \xff")
    assert str(file) in said("tokenize", shop_files.schema, file, "--out", tmp_path / "corpus")


def test_a_missing_file_is_named(shop_files: Any, said: Said, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.parquet"
    assert f"{nothing} doesn't exist" in said("tokenize", shop_files.schema, nothing, "--out", tmp_path / "corpus")
    assert str(tmp_path / "no.yaml") in said(
        "tokenize", tmp_path / "no.yaml", shop_files.events, "--out", tmp_path / "corpus"
    )


def test_an_empty_input_is_named(shop_files: Any, said: Said, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(shop_files.events).slice(0, 0), tmp_path / "empty.parquet")
    sentence = said("tokenize", shop_files.schema, tmp_path / "empty.parquet", "--out", tmp_path / "corpus")
    assert "empty.parquet has no rows" in sentence


def test_strictly_rows_that_make_no_sense_are_counted_and_nothing_is_written(
    shop_files: Any, said: Said, tmp_path: Path
) -> None:
    table = pq.read_table(shop_files.events)
    first = table.slice(0, 1).set_column(0, table.column_names[0], pa.nulls(1, table.schema[0].type))
    pq.write_table(pa.concat_tables([first, table]), tmp_path / "e.parquet")
    told = said("tokenize", shop_files.schema, tmp_path / "e.parquet", "--out", tmp_path / "corpus", "--strict")
    assert told.startswith(f"1 of {table.num_rows + 1:,} rows make no sense: {table.column_names[0]} is missing (1); ")
    assert not (tmp_path / "corpus").exists()


def test_a_url_that_nothing_here_reads_is_named(shop_files: Any, said: Said, tmp_path: Path) -> None:
    told = said("tokenize", shop_files.schema, "nowhere://log", "--out", tmp_path / "corpus")
    assert told.startswith("nowhere://log: nothing here reads nowhere://")


def test_a_folder_that_is_no_corpus_names_the_command_that_makes_one(said: Said, tmp_path: Path) -> None:
    assert "userfm tokenize" in said("train", tmp_path, "--out", tmp_path / "run")


def test_a_misspelt_setting_names_the_nearest_one(shop: Any, said: Said, tmp_path: Path) -> None:
    sentence = said("train", shop.corpus, "--out", tmp_path / "run", "--set", "widht=128")
    assert "did you mean 'width'" in sentence


def test_a_run_of_another_recipe_is_not_overwritten(shop: Any, said: Said) -> None:
    assert "--restart" in said("train", shop.corpus, "--out", shop.run, "--recipe", "default")


def test_a_folder_that_is_no_run_names_the_command_that_makes_one(shop: Any, said: Said, tmp_path: Path) -> None:
    for arguments in (
        ("evaluate", tmp_path, shop.corpus),
        ("recommend", tmp_path, shop.corpus),
        ("push", tmp_path, "--store", tmp_path / "store"),
    ):
        assert "userfm train" in said(*arguments)


def test_another_split_is_refused(shop: Any, said: Said, tmp_path: Path) -> None:
    run = json.loads((shop.run / "run.json").read_text())
    run["split"]["time"] += 3600.0
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert "split" in said("evaluate", tmp_path, shop.corpus)


def test_users_without_events_are_named(shop: Any, said: Said, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("nobody\n")
    sentence = said("recommend", shop.run, shop.corpus, "--users", tmp_path / "users.txt")
    assert "none of the users" in sentence
    (tmp_path / "users.txt").write_text("\n")
    assert "names no user" in said("recommend", shop.run, shop.corpus, "--users", tmp_path / "users.txt")
    assert "users.parquet" in said("recommend", shop.run, shop.corpus, "--users", tmp_path / "users.parquet")


def test_attributes_beside_a_corpus_and_a_question_about_nobody_are_wrong_usage(
    shop: Any, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, sentence in (
        (("recommend", shop.run, shop.corpus, "--attributes", "users.csv"), "give them beside --events"),
        (("query", "home"), "give the events of users, or --users"),
    ):
        assert command(*arguments) == 2
        assert sentence in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_publishing_what_was_never_pushed_names_the_command(shop: Any, said: Said, tmp_path: Path) -> None:
    assert "userfm push" in said("publish", tmp_path / "store")
    assert "did you mean 'shop-v1'" in said("publish", shop.store, "--space", "shop-v2")


def test_a_store_that_is_not_there_names_the_command(said: Said, tmp_path: Path) -> None:
    assert "userfm push" in said("serve", tmp_path / "store", "--port", 0)


def test_a_port_in_use_is_named(shop: Any, said: Said) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is in use" in said("serve", shop.store, "--port", port)


def test_a_server_that_is_not_there_names_the_command(said: Said) -> None:
    assert "userfm serve" in said("query", "space", "--address", "127.0.0.1:9")


def test_a_folder_that_can_not_be_written_is_named(shop_files: Any, said: Said, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in said("tokenize", shop_files.schema, shop_files.events, "--out", tmp_path / "file")


def test_a_wrong_option_is_exit_code_two(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("tokenize", "--outt", "x") == 2
    assert "--out" in capsys.readouterr().err


def test_debug_shows_the_traceback(command: Any, tmp_path: Path) -> None:
    from tokenization.errors import CorpusError

    with pytest.raises(CorpusError):
        command("train", tmp_path, "--out", tmp_path / "run", "--debug")


def test_a_run_that_learned_no_codes_says_what_is_missing(shop: Any, said: Said) -> None:
    assert "declare `semantic_ids` of items" in said("recommend", shop.run, shop.corpus, "--retrieval", "generative")
