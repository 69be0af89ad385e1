from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from tokenization.errors import SourceError
from tokenization.events.cleaning import clean
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.tables import from_rows, read_events, read_items

Declare = Callable[..., EventSchema]


def write_json_lines(table: pa.Table, path: Path) -> None:
    path.write_text(table.to_pandas().to_json(orient="records", lines=True))


def write_gzipped_csv(table: pa.Table, path: Path) -> None:
    pyarrow.csv.write_csv(table, path.with_suffix(""))
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    path.with_suffix("").unlink()


WRITERS: dict[str, Callable[[pa.Table, Path], object]] = {
    "log.parquet": pq.write_table,
    "log.arrow": pyarrow.feather.write_feather,
    "log.feather": pyarrow.feather.write_feather,
    "log.csv": pyarrow.csv.write_csv,
    "log.csv.gz": write_gzipped_csv,
    "log.jsonl": write_json_lines,
    "log.lance": lambda table, path: lance.write_dataset(table, str(path)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_log_is_the_same_log_in_every_format(name: str, tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    WRITERS[name](log, tmp_path / name)
    cleaned = clean(read_events(tmp_path / name, schema), schema)
    read, refused = cleaned.events, cleaned.quarantined
    expected = clean(log, schema).events
    assert refused.num_rows == 0
    np.testing.assert_array_equal(read.times, expected.times)
    np.testing.assert_array_equal(read.numbers["quantity"], expected.numbers["quantity"])
    for facet, column in expected.ids.items():
        assert read.ids[facet].decode().equals(column.decode()), facet


@pytest.mark.parametrize(
    "convert", [pa.Table.to_pandas, pl.from_arrow, pa.Table.to_reader], ids=["pandas", "polars", "stream"]
)
def test_tables_in_memory_are_read_from_every_library(
    convert: Callable[[pa.Table], object], schema: EventSchema, log: pa.Table
) -> None:
    cleaned = clean(read_events(convert(log), schema), schema)
    events, refused = cleaned.events, cleaned.quarantined
    assert refused.num_rows == 0
    assert events.ids["product"].decode().to_pylist() == log["sku"].to_pylist()


def test_integers_that_pandas_made_floats_are_the_ids_they_were(schema: EventSchema, log: pa.Table) -> None:
    frame = log.to_pandas()
    assert frame["basket"].dtype == np.float64
    cleaned = clean(read_events(frame, schema), schema)
    events = cleaned.events
    assert events.declared is not None
    assert events.declared.decode().equals(log["basket"].combine_chunks())


def test_a_folder_is_all_of_its_files(tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    (tmp_path / "day=2").mkdir()
    pq.write_table(log.slice(0, 5), tmp_path / "a.parquet")
    pyarrow.csv.write_csv(log.slice(5), tmp_path / "day=2" / "b.csv")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "readme.txt").write_text("not a table")
    assert read_events(tmp_path, schema)["sku"].to_pylist() == log["sku"].to_pylist()


def test_only_declared_columns_are_read(tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    pq.write_table(log.append_column("secret", pa.array([[1]] * len(log))), tmp_path / "log.parquet")
    assert read_events(tmp_path / "log.parquet", schema).column_names == list(schema.columns)


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_column_is_named_with_its_file_and_the_nearest(
    name: str, tmp_path: Path, schema: EventSchema, log: pa.Table
) -> None:
    WRITERS[name](log.rename_columns(["quantty" if n == "quantity" else n for n in log.column_names]), tmp_path / name)
    with pytest.raises(SourceError) as caught:
        read_events(tmp_path / name, schema)
    assert str(caught.value) == f"{tmp_path / name} has no column 'quantity'; did you mean 'quantty'?"


def test_a_column_that_is_there_twice_is_refused(schema: EventSchema, log: pa.Table) -> None:
    with pytest.raises(SourceError, match="has column 'sku' 2 times; rename all but one"):
        read_events(log.append_column("sku", log["coupon"]), schema)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("log.parquet", None, "doesn't exist; give a file or folder"),
        ("log.parquet", b"PAR1 not really", "can't be read as parquet"),
        ("log.arrow", b"junk", "can't be read as ipc"),
        ("log.csv", b"", "can't be read as csv"),
        ("log.jsonl", b"", "can't be read as json: it is empty"),
        ("log.csv", b"user,at\n1,\xff\n", "has no column 'what'"),
        ("log.xlsx", b"junk", "the name must end in one of .parquet"),
        ("log", b"junk", "the name must end in one of .parquet"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(
    tmp_path: Path, schema: EventSchema, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=name) as caught:
        read_events(tmp_path / name, schema)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_rows_and_no_files_are_said(tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    pq.write_table(log.slice(0, 0), tmp_path / "log.parquet")
    with pytest.raises(SourceError, match=r"log.parquet has no rows"):
        read_events(tmp_path / "log.parquet", schema)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="is a folder without a file"):
        read_events(tmp_path / "empty", schema)


def test_what_is_no_table_is_said(schema: EventSchema) -> None:
    with pytest.raises(SourceError, match="an int is no table; give a path"):
        read_events(7, schema)


def test_files_that_disagree_are_refused(tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    pq.write_table(log, tmp_path / "a.parquet")
    store = pa.array([[1]] * len(log))
    pq.write_table(log.set_column(log.column_names.index("store"), "store", store), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"hold 'store' as string and list<.*>; write one type everywhere"):
        read_events(tmp_path, schema)


def test_files_that_store_one_id_as_number_and_as_text_agree(tmp_path: Path, schema: EventSchema) -> None:
    for name, sku in (("a", [7, 8]), ("b", ["9", "x"])):
        rows = {"user": ["ann", "bob"], "at": ["2024-03-01", "2024-03-02"], "sku": sku}
        pq.write_table(pa.table({**{c: [None, None] for c in schema.columns}, **rows}), tmp_path / f"{name}.parquet")
    assert read_events(tmp_path, schema)["sku"].to_pylist() == ["7", "8", "9", "x"]


def test_csv_keeps_leading_zeros_and_namibia(tmp_path: Path, schema: EventSchema) -> None:
    header = ",".join(schema.columns)
    rows = "007,2024-03-01,buy,1,12,,NA,2.50,\n8,2024-03-01,buy,2,13,,NA,1e2,top\n"
    (tmp_path / "log.csv").write_text(f"{header}\n{rows}")
    cleaned = clean(read_events(tmp_path / "log.csv", schema), schema)
    events, refused = cleaned.events, cleaned.quarantined
    assert refused.num_rows == 0
    assert events.users.decode().to_pylist() == ["007", "8"]
    assert events.ids["product"].decode().to_pylist() == [12, 13]
    assert events.ids["store"].decode().to_pylist() == ["NA", "NA"]
    assert events.ids["shelf"].decode().to_pylist() == [None, "top"]
    assert events.numbers["quantity"].tolist() == [2.5, 100.0]


def test_items_need_a_declaration(declare: Declare, items: pa.Table) -> None:
    with pytest.raises(SourceError, match="schema 'shop' declares no items; add an `items:` section"):
        read_items(items, declare(items=None))
    assert read_items(items, declare()).column_names == ["sku", "colour", "title"]


def test_events_are_written_as_mappings_and_what_is_left_out_is_absent(schema: EventSchema) -> None:
    table = from_rows([{"user": "ann", "at": datetime(2024, 3, 1), "sku": "tea"}, {"user": "bob", "at": None}], schema)
    cleaned = clean(table, schema)
    events, refused = cleaned.events, cleaned.quarantined
    assert events.ids["product"].decode().to_pylist() == ["tea"]
    assert events.ids["action"].missing.all()
    assert np.isnan(events.numbers["quantity"]).all()
    assert refused["reason"].to_pylist() == ["at is missing"]


def test_values_that_no_column_can_hold_together_are_refused(schema: EventSchema) -> None:
    with pytest.raises(SourceError, match="the values of 'sku' are of several types"):
        from_rows([{"user": "ann", "sku": 7}, {"user": "ann", "sku": "tea"}], schema)


def test_a_mapping_with_an_unknown_column_is_refused(schema: EventSchema) -> None:
    with pytest.raises(SourceError, match=r"no column of schema 'shop' is called 'skuu'; did you mean 'sku'\?"):
        from_rows([{"user": "ann", "skuu": "tea"}], schema)
