"""Rows of text that can't be read: set aside with a reason, once, whoever reads them and however often."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tokenization.corpus.corpus import Corpus
from tokenization.drafting.preview import preview
from tokenization.errors import SourceError
from tokenization.events.cleaning import clean
from tokenization.job.appending import append
from tokenization.job.layout import on_ray
from tokenization.job.pipeline import tokenize
from tokenization.schema.event_schema import EventSchema
from tokenization.sources import texts
from tokenization.sources.tables import read_events, read_items, read_users, scan_events, users_rule

KIOSK: dict[str, Any] = {
    "schema": 1,
    "name": "kiosk",
    "user": "who",
    "time": {"column": "at"},
    "entities": {"product": {"column": "sku", "candidates": True}},
    "outcome": {"price": {"kind": "number"}},
    "users": {"categories": ["plan"]},
    "items": {"id": "sku", "categories": ["shelf"]},
    "targets": {"product": 1.0},
    "split": {"time": "2024-03-20"},
}
SCHEMA = EventSchema.from_dict(KIOSK)
HEADER = "who,at,sku,price"
Write = Callable[[Path, list[str | None]], Path]


def good(row: int) -> dict[str, object]:
    return {"who": f"u{row % 7}", "at": f"2024-03-{row % 28 + 1:02d}", "sku": row % 5, "price": row / 4}


def write_csv(folder: Path, rows: list[str | None]) -> Path:
    """Where a row is None, a good one."""
    lines = [row if row is not None else ",".join(map(str, good(n).values())) for n, row in enumerate(rows)]
    (folder / "log.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    return folder / "log.csv"


def write_json(folder: Path, rows: list[str | None]) -> Path:
    lines = [row if row is not None else json.dumps(good(n)) for n, row in enumerate(rows)]
    (folder / "log.jsonl").write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    return folder / "log.jsonl"


RAGGED = {"u1,2024-03-01,7": "has 3 cells, the header has 4", "u1,2024-03-01,7,1,\x01": "has 5 cells, the header has 4"}
BROKEN = {
    '{"who": "u1"': "is no JSON: expecting ',' delimiter",
    "[1]": "is no JSON object",
    "\udcff": "is no UTF-8",
    '{"who": "\udcff"}': "is no UTF-8",
    '{"who": "\\ud800"}': "is no UTF-8",
    "[" * 99_999: "is no JSON: nested too deeply",
    '{"who": %s}' % ("1" * 5_000): "is no JSON: a number is too long",
}
WAYS = [(write_csv, RAGGED), (write_json, BROKEN)]


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(KIOSK, sort_keys=False))
    return tmp_path / "schema.yaml"


@pytest.mark.parametrize(("write", "bad"), WAYS)
@pytest.mark.parametrize("block", [200, 1 << 20])
def test_rows_that_can_not_be_read_are_quarantined_as_they_are_written(
    write: Write, bad: dict[str, str], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_BLOCK", max(block, 200_000 if write is write_csv and block > 200 else block))
    rows: list[str | None] = [None] * 60
    for number, line in enumerate(bad):
        rows[1 + 9 * number] = line
    cleaned = clean(read_events(write(tmp_path, rows), SCHEMA), SCHEMA)
    assert cleaned.quarantined["reason"].to_pylist() == list(bad.values())
    kept = [line.encode(errors="surrogateescape").decode(errors="replace")[: texts.LONGEST_TEXT] for line in bad]
    assert cleaned.quarantined["as_written"].to_pylist() == kept
    assert cleaned.quarantined["who"].null_count == len(bad)
    assert len(cleaned.events) == 60 - len(bad)
    assert cleaned.events.numbers["price"].tolist() == [row / 4 for row, line in enumerate(rows) if line is None]


@pytest.mark.parametrize(("write", "bad"), WAYS)
def test_a_log_with_such_rows_gives_one_corpus_in_memory_and_in_parts(
    write: Write, bad: dict[str, str], tmp_path: Path, declared: Path
) -> None:
    log = write(tmp_path, [*[None] * 90, *bad, *[None] * 30, *bad])
    whole = tokenize(declared, log, None, tmp_path / "whole")
    parts = tokenize(declared, log, None, tmp_path / "parts", part_rows=20)
    check(whole, bad, 120)
    check(parts, bad, 120)
    assert parts.tokens().equals(whole.tokens())
    with pytest.raises(SourceError, match=f"{2 * len(bad)} of {120 + 2 * len(bad)} rows make no sense: .*--strict"):
        tokenize(declared, log, None, tmp_path / "strict", strict=True)
    with pytest.raises(SourceError, match=f"{2 * len(bad)} of"):
        tokenize(declared, log, None, tmp_path / "whole", strict=True)


def check(corpus: Corpus, bad: dict[str, str], sound: int) -> None:
    counted: dict[str, int] = {}
    for reason in bad.values():
        counted[reason] = counted.get(reason, 0) + 2
    assert corpus.summary["quarantined"] == counted
    assert corpus.summary["events"] == sound + 2 * len(bad)
    assert corpus.summary["tokens"] + corpus.summary["merged"] == sound
    assert sorted(corpus.quarantine["reason"].to_pylist()) == sorted([*bad.values(), *bad.values()])
    assert corpus.quarantine["as_written"].null_count == 0


@pytest.mark.slow
def test_a_cluster_sets_the_same_rows_aside(tmp_path: Path, declared: Path) -> None:
    (tmp_path / "log").mkdir()
    for write, bad in WAYS:
        write(tmp_path / "log", [*[None] * 60, *bad, *bad])
    whole = tokenize(declared, tmp_path / "log", None, tmp_path / "whole")
    there = tokenize(declared, tmp_path / "log", None, tmp_path / "there", part_rows=20, where=on_ray)
    check(there, RAGGED | BROKEN, 120)
    assert there.tokens().equals(whole.tokens())


@pytest.mark.parametrize(("write", "bad"), WAYS)
def test_a_day_that_is_appended_may_have_such_rows(
    write: Write, bad: dict[str, str], tmp_path: Path, declared: Path
) -> None:
    tokenize(declared, write(tmp_path, [None] * 60), None, tmp_path / "corpus")
    (tmp_path / "day").mkdir()
    day = write(tmp_path / "day", list(bad))
    with pytest.raises(SourceError, match=r"rows make no sense"):
        append(declared, day, tmp_path / "corpus", strict=True)
    corpus = append(declared, day, tmp_path / "corpus")
    assert corpus.quarantine["reason"].to_pylist() == list(bad.values())
    assert sum(corpus.summary["quarantined"].values()) == len(bad)
    assert corpus.summary["events"] == 60 + len(bad)


def test_a_file_of_such_rows_among_others_ends_nothing_and_a_log_of_them_is_told(
    tmp_path: Path, declared: Path
) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "b.jsonl").write_text("[1]\n[2]\n")
    with pytest.raises(SourceError, match=r"none of the 2 rows makes sense: is no JSON object \(2\); mend the log"):
        tokenize(declared, tmp_path / "log", None, tmp_path / "corpus")
    write_csv(tmp_path / "log", [None] * 20)
    corpus = tokenize(declared, tmp_path / "log", None, tmp_path / "corpus")
    assert corpus.summary["quarantined"] == {"is no JSON object": 2}


@pytest.mark.parametrize(("write", "bad"), WAYS)
def test_a_draft_is_made_of_the_rows_that_can_be_read(write: Write, bad: dict[str, str], tmp_path: Path) -> None:
    found = preview(write(tmp_path, [*bad, *[None] * 20]), 10_000)
    assert found.table.num_rows == 20
    assert found.table.column_names == list(good(0))
    assert found.unread.total() == len(bad)
    with pytest.raises(SourceError, match="has no row that can be read"):
        preview(write(tmp_path, [*bad]), 100)


def test_no_item_and_no_user_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("sku,shelf\n1,top\n2,low,odd\n3\n")
    with pytest.raises(SourceError, match=r"items.csv: row 3 has 3 cells, the header has 2, and 1 more can't be read"):
        read_items(tmp_path / "items.csv", SCHEMA)
    (tmp_path / "users.jsonl").write_text('{"who": "ann", "plan": "paid"}\n\nann\n')
    with pytest.raises(SourceError, match=r"users.jsonl: row 3 is no JSON: expecting value; mend the table"):
        read_users(tmp_path / "users.jsonl", users_rule(SCHEMA))


def test_cells_may_hold_line_breaks_wherever_a_block_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_BLOCK", 64)
    lines = [f'{n},"a\nshelf, {n}"' for n in range(50)]
    (tmp_path / "items.csv").write_text("\n".join(["sku,shelf", *lines]))
    assert read_items(tmp_path / "items.csv", SCHEMA)["shelf"].to_pylist() == [f"a\nshelf, {n}" for n in range(50)]


def test_a_quotation_mark_that_nothing_closes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_BLOCK", 256)
    with pytest.raises(SourceError, match=r"a row is longer than 256 bytes; is a quotation mark not closed\?"):
        read_events(write_csv(tmp_path, [None, 'u1,"2024', *[None] * 90]), SCHEMA)


def test_columns_of_the_log_are_not_taken_for_those_of_the_quarantine() -> None:
    changes = {"context": {"reason": {"kind": "category"}, "as_written": {"kind": "category"}}}
    schema = EventSchema.from_dict(KIOSK | changes)
    row = {"who": None, "at": "2024-03-01", "sku": "tea", "price": 1.0, "reason": "late", "as_written": "x"}
    refused = clean(pa.table({name: pa.array([value]) for name, value in row.items()}), schema).quarantined
    assert refused.select(["reason", "reason_", "as_written_"]).to_pylist() == [
        {"reason": "who is missing", "reason_": "late", "as_written_": "x"}
    ]


@given(st.lists(st.one_of(st.none(), st.sampled_from(["", *RAGGED, ",,,", "a"])), max_size=30), st.integers(60, 300))
def test_every_row_of_a_file_is_an_event_or_in_quarantine(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str | None], block: int
) -> None:
    path = write_csv(tmp_path_factory.mktemp("log"), [None, *rows])
    before, texts._BLOCK = texts._BLOCK, block
    try:
        scan = scan_events(path, SCHEMA)
        cleaned = clean(scan.read(), SCHEMA)
    finally:
        texts._BLOCK = before
    assert scan.rows == len(cleaned.events) + cleaned.quarantined.num_rows == 1 + sum(row != "" for row in rows)
