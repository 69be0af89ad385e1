"""A sample of a log before anything is declared, of every format."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from tokenization.drafting.preview import preview, thinned
from tokenization.errors import SourceError

TABLE = pa.table({"user": ["007", "8"] * 3, "at": [1, 2, 3, 4, 5, 6], "tags": [["a"], [], None, ["b"], ["c"], ["d"]]})


def test_every_format_gives_all_columns(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "log.parquet")
    pyarrow.feather.write_feather(TABLE, tmp_path / "log.arrow")
    (tmp_path / "log.jsonl").write_text('{"user": "007", "at": 1, "tags": ["a"]}\n' * 6)
    for name in ("log.parquet", "log.arrow", "log.jsonl"):
        found = preview(tmp_path / name, 100).table
        assert found.column_names == TABLE.column_names, name
        assert found.num_rows == 6
        assert found["user"][0].as_py() == "007"


def test_csv_stays_text(tmp_path: Path) -> None:
    pyarrow.csv.write_csv(TABLE.drop_columns(["tags"]), tmp_path / "log.csv")
    found = preview(tmp_path / "log.csv", 100).table
    assert found["user"].to_pylist() == ["007", "8"] * 3
    assert found["at"].to_pylist() == list("123456")


def test_lance_gives_all_columns(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    lance.write_dataset(TABLE, str(tmp_path / "log.lance"))
    assert preview(tmp_path / "log.lance", 100).table.equals(TABLE)


def test_a_folder_is_looked_at_all_over(tmp_path: Path) -> None:
    for day in range(20):
        pq.write_table(pa.table({"day": [day] * 10}), tmp_path / f"{day:02d}.parquet")
    (tmp_path / "_SUCCESS").touch()
    days = preview(tmp_path, 100).table["day"].unique().to_pylist()
    assert days[0] == 0
    assert days[-1] >= 17
    assert len(days) <= 8


def test_stretches_come_from_all_over_a_stream_and_never_too_many() -> None:
    batches = (pa.table({"row": range(start, start + 5_000)}) for start in range(0, 500_000, 5_000))
    rows = thinned(batches, 50_000)["row"].to_numpy()
    assert 25_000 <= len(rows) <= 50_000
    assert (rows[1:] > rows[:-1]).all()
    assert rows[0] == 0
    assert rows[-1] > 480_000
    assert thinned([pa.table({"row": range(700)})], 10).num_rows == 700


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.parquet", None, "none.parquet doesn't exist; give a file or folder"),
        ("log.xlsx", b"x", "the name must end in one of .parquet"),
        ("log.parquet", b"no parquet", "log.parquet can't be read as parquet: "),
        ("log.csv", b"user,at\n", "log.csv has no rows"),
        ("folder", None, "is a folder without a file named"),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, sentence: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=sentence):
        preview(path, 10)
