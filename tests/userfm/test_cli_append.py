"""`userfm append`: a later part of the shop's log behind an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tokenization.corpus.corpus import Corpus


@pytest.fixture
def days(shop_files: Any, tmp_path: Path) -> tuple[Path, Path]:
    """The log until some time, and what came after."""
    events = pq.read_table(shop_files.events)
    cut = sorted(events["time"].to_pylist())[events.num_rows * 9 // 10]
    paths = tmp_path / "one.parquet", tmp_path / "two.parquet"
    pq.write_table(events.filter(pc.less(events["time"], cut)), paths[0])
    pq.write_table(events.filter(pc.greater_equal(events["time"], cut)), paths[1])
    return paths


def test_a_later_part_is_appended_once(
    shop_files: Any, days: tuple[Path, Path], command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    assert command("tokenize", shop_files.schema, days[0], "--out", corpus) == 0
    before = Corpus.open(corpus).summary["events"]
    append = ("append", shop_files.schema, days[1], "--to", corpus)
    assert command(*append) == 0
    appended = Corpus.open(corpus)
    assert appended.summary["events"] == pq.read_metadata(shop_files.events).num_rows > before
    assert f"{appended.summary['events']:,}" in capsys.readouterr().out
    assert command(*append) == 0
    said = capsys.readouterr()
    assert "already appended" in said.err + said.out
    assert Corpus.open(corpus).manifest == appended.manifest


def test_there_must_be_something_to_append_to(
    shop_files: Any, days: tuple[Path, Path], command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("append", shop_files.schema, days[1], "--to", tmp_path / "none") == 2
    assert "is no corpus; make one with `userfm tokenize`" in " ".join(capsys.readouterr().err.split())


def test_items_that_join_later_are_candidates_with_what_is_known_of_them(
    shop_files: Any, days: tuple[Path, Path], command: Any, tmp_path: Path
) -> None:
    items = pq.read_table(shop_files.items)
    early = tmp_path / "items.parquet"
    pq.write_table(items.slice(0, 30), early)
    corpus = tmp_path / "corpus"
    assert command("tokenize", shop_files.schema, days[0], "--items", early, "--out", corpus) == 0
    before = Corpus.open(corpus).tokenizer.items
    append = ("append", shop_files.schema, days[1], "--items", shop_files.items, "--to", corpus)
    assert command(*append) == 0
    table = Corpus.open(corpus).tokenizer.items
    assert table.ids.prefix_hash(len(before.ids)) == before.ids.prefix_hash()
    assert set(table.ids.ids.to_pylist()) == set(items["article"].to_pylist())
    assert len(table.text) == len(table) == len(table.vectors)
