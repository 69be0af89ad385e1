from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.generated import write_log
from benchmarks.tokenize import _once, _read_sort_group_write, live_ms, packing_fill, scaling_exponent
from tokenization.job.pipeline import tokenize


def test_the_floor_writes_one_row_a_household_in_the_order_of_time(tmp_path: Path) -> None:
    events = pl.DataFrame(
        {
            "household_id": [2, 1, 2, 1],
            "time": [4, 3, 1, 3],
            "basket_id": [9, 8, 7, 8],
            "product_id": [5, 6, 5, 4],
        }
    )
    events.write_parquet(tmp_path / "events.parquet")
    _read_sort_group_write(tmp_path / "events.parquet", tmp_path / "floor.parquet")
    assert pl.read_parquet(tmp_path / "floor.parquet").rows() == [
        (1, [3, 3], [8, 8], [4, 6]),
        (2, [1, 4], [7, 9], [5, 5]),
    ]


def test_the_exponent_is_1_where_twice_the_events_take_twice_as_long() -> None:
    sizes = (1, 4, 20)
    assert scaling_exponent(sizes, np.array([3.0, 12.0, 60.0])) == pytest.approx(1.0)
    assert scaling_exponent(sizes, np.array([1.0, 16.0, 400.0])) == pytest.approx(2.0)


def test_one_tokenization_says_its_seconds_and_the_memory_that_it_held(tmp_path: Path) -> None:
    found = _once(*write_log(tmp_path, 2_000), tmp_path / "corpus")
    assert 0 < found["seconds"] < 60
    assert 0.05 < found["rss_gib"] < 3


def test_live_events_and_packed_users_are_measured_on_a_corpus(tmp_path: Path) -> None:
    schema, events = write_log(tmp_path, 20_000)
    corpus = tokenize(schema, events, None, tmp_path / "corpus")
    assert 0 < live_ms(corpus, events).median < 1_000
    assert 0.5 < packing_fill(corpus).median <= 1
