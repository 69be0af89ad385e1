from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import lance
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tokenization.errors import SourceError
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.files import files, stamps
from tokenization.sources.tables import read_events


@pytest.fixture
def bucket() -> Iterator[str]:
    """A folder behind a URL."""
    yield "memory://bucket"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def put(url: str, local: Path) -> None:
    with fsspec.open(url, "wb") as remote:
        remote.write(local.read_bytes())


@pytest.mark.parametrize("name", ["log.parquet", "log.arrow", "log.csv", "log.csv.gz", "log.jsonl"])
def test_a_log_behind_a_url_is_the_log(
    name: str, bucket: str, tmp_path: Path, schema: EventSchema, log: pa.Table
) -> None:
    from tests.tokenization.sources.test_tables import WRITERS

    WRITERS[name](log, tmp_path / name)
    put(f"{bucket}/{name}", tmp_path / name)
    here = read_events(tmp_path / name, schema)
    assert here.num_rows == log.num_rows
    assert read_events(f"{bucket}/{name}", schema).equals(here)
    assert read_events(f"file://{tmp_path / name}", schema).equals(here)


def test_a_folder_behind_a_url_is_all_of_its_files(
    bucket: str, tmp_path: Path, schema: EventSchema, log: pa.Table
) -> None:
    pq.write_table(log.slice(0, 5), tmp_path / "a.parquet")
    pyarrow.csv.write_csv(log.slice(5), tmp_path / "b.csv")
    put(f"{bucket}/log/a.parquet", tmp_path / "a.parquet")
    put(f"{bucket}/log/day=2/b.csv", tmp_path / "b.csv")
    put(f"{bucket}/log/_SUCCESS", tmp_path / "a.parquet")
    assert [file.name for file in files(f"{bucket}/log")] == [f"{bucket}/log/a.parquet", f"{bucket}/log/day=2/b.csv"]
    assert read_events(f"{bucket}/log/", schema)["sku"].to_pylist() == log["sku"].to_pylist()


def test_a_folder_may_hold_lance_tables(tmp_path: Path, schema: EventSchema, log: pa.Table) -> None:
    lance.write_dataset(log.slice(0, 5), str(tmp_path / "a.lance"))
    pq.write_table(log.slice(5), tmp_path / "b.parquet")
    assert read_events(tmp_path, schema)["sku"].to_pylist() == log["sku"].to_pylist()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "abfs://container/log.parquet",
            r"^abfs://container/log.parquet: reading abfs:// needs one more package: .*adlfs",
        ),
        ("nowhere://log.parquet", r"^nowhere://log.parquet: nothing here reads nowhere://: Protocol not known"),
        ("memory://bucket/no.parquet", r"^memory://bucket/no.parquet doesn't exist; give a file or folder"),
        ("file:///no/such.parquet", r"^file:///no/such.parquet doesn't exist; give a file or folder"),
    ],
)
def test_what_can_not_be_reached_is_said_in_one_sentence(url: str, sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence) as caught:
        files(url)
    assert "\n" not in str(caught.value)


def test_stamps_tell_that_a_file_changed_wherever_it_lies(bucket: str, tmp_path: Path, log: pa.Table) -> None:
    pq.write_table(log, tmp_path / "log.parquet")
    put(f"{bucket}/log.parquet", tmp_path / "log.parquet")
    for source, change in (
        (f"{bucket}/log.parquet", lambda: put(f"{bucket}/log.parquet", tmp_path / "log.parquet")),
        (tmp_path / "log.parquet", lambda: os.utime(tmp_path / "log.parquet", (1, 1))),
    ):
        before = stamps(source)
        assert before == stamps(source)
        assert len(before) == 1
        change()
        assert stamps(source) != before
    assert stamps(tmp_path / "nothing") == []
