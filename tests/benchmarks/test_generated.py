from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks import generated
from benchmarks.generated import write_log
from tokenization.job.pipeline import tokenize


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr(generated, "_SLICE", 8_000)
    return write_log(tmp_path, 20_000)


def test_a_log_has_as_many_events_as_asked_for_in_the_order_of_time_and_is_the_same_each_time(
    log: tuple[Path, Path], tmp_path: Path
) -> None:
    files = sorted(log[1].iterdir())
    assert [pq.read_metadata(file).num_rows for file in files] == [8_000, 8_000, 4_000]
    for file in files:
        assert np.all(np.diff(pq.read_table(file)["time"].to_numpy().astype(np.int64)) >= 0)
    again = sorted(write_log(tmp_path / "again", 20_000)[1].iterdir())
    assert [pq.read_table(file) for file in files] == [pq.read_table(file) for file in again]


def test_sessions_are_of_one_user_and_some_items_are_met_very_often(log: tuple[Path, Path]) -> None:
    events = pa.concat_tables([pq.read_table(file) for file in sorted(log[1].iterdir())])
    users = events.group_by("session").aggregate([("user", "count_distinct"), ("user", "count")])
    assert pc.max(users["user_count_distinct"]).as_py() == 1
    assert 3 < pc.mean(users["user_count"]).as_py() < 7
    assert len(pc.unique(events["user"])) == 200
    often = np.sort(pc.value_counts(events["item"]).field("counts").to_numpy())[::-1]
    assert often[0] > 20 * np.median(often)


def test_a_log_becomes_a_corpus_without_a_row_refused(log: tuple[Path, Path], tmp_path: Path) -> None:
    summary = tokenize(*log, None, tmp_path / "corpus").summary
    assert summary["events"] == 20_000
    assert summary["quarantined"] == {}
