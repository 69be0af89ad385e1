from __future__ import annotations

from pathlib import Path

import polars as pl

from benchmarks.tokenize import _read_sort_group_write


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
