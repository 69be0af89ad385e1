from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from tests.tokenization.sources.test_tables import WRITERS
from tokenization.errors import SourceError
from tokenization.schema.event_schema import EventSchema
from tokenization.sources import formats, texts
from tokenization.sources.tables import read_events, scan_events


@pytest.fixture
def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 7 rows and blocks of 256 bytes."""
    monkeypatch.setattr(formats, "BATCH", 7)
    monkeypatch.setattr(texts, "_BLOCK", 256)


def events(schema: EventSchema, **columns: object) -> pa.Table:
    rows = len(next(iter(columns.values())))  # type: ignore[arg-type]
    return pa.table({name: columns.get(name, pa.nulls(rows)) for name in schema.columns})


@pytest.mark.usefixtures("in_small_pieces")
@pytest.mark.parametrize("name", WRITERS)
def test_batches_are_the_whole_table_in_pieces(name: str, tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    WRITERS[name](log, tmp_path / name)
    scan = scan_events(tmp_path / name, schema)
    batches = list(scan.batches())
    assert scan.rows == log.num_rows
    assert max(batch.num_rows for batch in batches) < log.num_rows
    assert {batch.schema for batch in batches} == {batches[0].schema}
    assert pa.concat_tables(batches).equals(read_events(tmp_path / name, schema))
    assert pa.concat_tables(scan.batches(["sku"]))["sku"].to_pylist() == log["sku"].to_pylist()


@pytest.mark.usefixtures("in_small_pieces")
@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_one_id_of_text_at_the_end_makes_all_of_them_text(name: str, tmp_path: Path, schema: EventSchema) -> None:
    users = [*range(100), "x"]
    lines = [json.dumps({**dict.fromkeys(schema.columns), "user": user, "sku": 7}) for user in users]
    if name.endswith("csv"):
        lines = [",".join(schema.columns), *(f"{user},,,,7{',' * (len(schema.columns) - 5)}" for user in users)]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    scan = scan_events(tmp_path / name, schema)
    assert scan.types["user"] == pa.string()
    assert scan.types["sku"] == pa.int64()
    assert [user for batch in scan.batches() for user in batch["user"].to_pylist()] == [str(user) for user in users]


@pytest.mark.usefixtures("in_small_pieces")
def test_ids_that_came_as_floats_have_one_type_in_all_batches(schema: EventSchema) -> None:
    whole = events(schema, user=pa.array([1.0, None, float("nan"), *range(4, 30)], pa.float64()))
    scan = scan_events(whole, schema)
    assert scan.types["user"] == pa.int64()
    assert scan.read()["user"].to_pylist() == [1, None, None, *range(4, 30)]
    one_fraction = scan_events(events(schema, user=[*map(float, range(29)), 29.5]), schema)
    assert one_fraction.types["user"] == pa.string()
    assert one_fraction.read()["user"].to_pylist() == [*map(str, range(29)), "29.5"]


LONG = 9_007_199_254_740_993  # 2**53 + 1, which no float is


@pytest.mark.usefixtures("in_small_pieces")
@pytest.mark.parametrize("beside", [1.5, 7.0, None, "x", 7, 2**64 - 1, -LONG])
@pytest.mark.parametrize("far", [0, 40])
def test_long_ids_in_lines_of_json_keep_their_digits_whatever_stands_beside_them(
    beside: object, far: int, tmp_path: Path, schema: EventSchema
) -> None:
    values = [beside, *[3] * far, LONG]
    lines = [json.dumps({**dict.fromkeys(schema.columns), "user": user, "sku": user}) for user in values]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    told = [None if value is None else str(int(value) if value == 7.0 else value) for value in values]
    read = read_events(tmp_path / "log.jsonl", schema)
    assert read["user"].cast(pa.string()).to_pylist() == told
    assert read["sku"].cast(pa.string()).to_pylist() == told


def test_long_ids_that_are_floats_already_are_refused_by_name(tmp_path: Path, schema: EventSchema) -> None:
    pq.write_table(events(schema, user=[1.0, None, float(LONG)]), tmp_path / "log.parquet")
    with pytest.raises(SourceError, match=r"column 'user' holds ids as double, some of 9,007,199,254,740,992 or more"):
        read_events(tmp_path / "log.parquet", schema)
    pq.write_table(events(schema, quantity=[1.0, None, float(LONG)]), tmp_path / "log.parquet")
    assert read_events(tmp_path / "log.parquet", schema)["quantity"].to_pylist()[2] == LONG - 1


@pytest.mark.usefixtures("in_small_pieces")
def test_unsigned_ids_are_whole_numbers_or_text_in_all_files(tmp_path: Path, schema: EventSchema) -> None:
    small, large = pa.array([*range(20)], pa.uint64()), pa.array([7, 2**64 - 1], pa.uint64())
    pq.write_table(events(schema, user=small, sku=small), tmp_path / "a.parquet")
    pq.write_table(events(schema, user=small.slice(3, 2), sku=large), tmp_path / "b.parquet")
    read = read_events(tmp_path, schema)
    assert read["user"].to_pylist() == [*range(20), 3, 4]
    assert read["sku"].to_pylist() == [*map(str, range(20)), "7", str(2**64 - 1)]


def test_files_may_keep_a_time_that_is_an_id_in_units_of_their_own(tmp_path: Path, schema: EventSchema) -> None:
    stamps = [datetime(2024, 3, 1, 12), datetime(2024, 3, 1, 12, 0, 0, 500_000)]
    for unit in ("ms", "us", "ns"):
        column = pa.array(stamps, pa.timestamp(unit))
        pq.write_table(
            events(schema, store=column, basket=column.cast(pa.date32(), safe=False)), tmp_path / f"{unit}.parquet"
        )
    read = read_events(tmp_path, schema)
    assert read["store"].to_pylist() == [stamp.isoformat() for stamp in stamps] * 3
    assert read["basket"].to_pylist() == ["2024-03-01"] * 6


@pytest.mark.usefixtures("in_small_pieces")
def test_what_looks_like_a_time_in_some_lines_of_json_stays_as_it_is_written(
    tmp_path: Path, schema: EventSchema
) -> None:
    skus = ["2024-03-01"] * 20 + ["tea"] * 20 + ["2024-03-01 10:00:00"] * 20
    lines = [json.dumps({**dict.fromkeys(schema.columns), "user": 1, "sku": sku}) for sku in skus]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert read_events(tmp_path / "log.jsonl", schema)["sku"].to_pylist() == skus


def test_lines_of_json_may_leave_keys_out_and_mix_numbers_with_text(tmp_path: Path, schema: EventSchema) -> None:
    rows: list[dict[str, object]] = [{"user": 7}, {"user": "ann", "sku": 2**70}, {"user": 7.0, "sku": True, "n": [1]}]
    rest = dict.fromkeys(schema.columns, None)
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(row) for row in [*rows, rest]) + "\n\n")
    read = read_events(tmp_path / "log.jsonl", schema)
    assert read["user"].to_pylist() == ["7", "ann", "7", None]
    assert read["sku"].to_pylist() == [None, str(2**70), "true", None]


def test_arrow_streams_are_read_as_arrow_files_are(tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    with pa.ipc.new_stream(tmp_path / "log.arrow", log.schema) as stream:
        stream.write_table(log, max_chunksize=5)
    scan = scan_events(tmp_path / "log.arrow", schema)
    assert scan.rows == log.num_rows
    assert scan.read()["sku"].to_pylist() == log["sku"].to_pylist()


def test_values_kept_as_categories_are_the_values(tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    coded = log.set_column(0, "user", log["user"].dictionary_encode())
    pyarrow.feather.write_feather(coded, tmp_path / "a.feather")
    pq.write_table(log, tmp_path / "b.parquet")
    read = read_events(tmp_path, schema)
    assert read["user"].to_pylist() == log["user"].to_pylist() * 2
    assert read.schema.field("user").type == pa.string()


def test_files_without_rows_among_others_do_no_harm(tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    pyarrow.csv.write_csv(log.slice(0, 0), tmp_path / "a.csv")
    pq.write_table(log, tmp_path / "b.parquet")
    assert read_events(tmp_path, schema)["sku"].to_pylist() == log["sku"].to_pylist()


def test_reading_in_batches_holds_a_batch_and_not_the_file(tmp_path: Path, schema: EventSchema) -> None:
    rows = 1_000_000
    users = pa.array(np.arange(rows))
    pq.write_table(events(schema, user=users, quantity=np.ones(rows)), tmp_path / "log.parquet", compression="none")
    before = pa.default_memory_pool().bytes_allocated()
    most = 0
    for _ in scan_events(tmp_path / "log.parquet", schema).batches(["user", "quantity"]):
        most = max(most, pa.default_memory_pool().bytes_allocated() - before)
    assert 0 < most < 8_000_000  # the columns take 16
