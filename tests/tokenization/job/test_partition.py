from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenization.arrays import Longs
from tokenization.ids import Ids
from tokenization.job import partition
from tokenization.job.partition import Borders, count_users, find_borders, part_rows_of, route, split, sum_counts

NOBODY = (None, "")
NUMBERS = st.lists(st.none() | st.integers(-5, 40), max_size=200)
WORDS = st.lists(st.none() | st.text(max_size=2), max_size=200)


def batches_of(users: list[object], kind: pa.DataType, size: int = 7) -> list[pa.Table]:
    table = pa.table({"user": pa.array(users, kind), "row": np.arange(len(users))})
    return [table.slice(start, size) for start in range(0, len(users), size)]


def counts_of(batches: list[pa.Table]) -> tuple[pa.Array, Longs]:
    return sum_counts(count_users(Ids.of(batch["user"], "user")) for batch in batches)


@given(st.one_of(NUMBERS.map(lambda u: (u, pa.int64())), WORDS.map(lambda u: (u, pa.string()))), st.integers(1, 50))
def test_parts_are_whole_users_in_the_order_of_their_ids(
    drawn: tuple[list[object], pa.DataType], part_rows: int
) -> None:
    users, kind = drawn
    batches = batches_of(users, kind)
    borders = find_borders(*counts_of(batches), part_rows)
    parts: list[list[pa.Table]] = [[] for _ in range(borders.parts)]
    for tables in route(batches, "user", borders):
        for number, table in tables:
            parts[number].append(table)
    whole = [pa.concat_tables(tables) for tables in parts if tables]
    rows = [row for part in whole for row in part["row"].to_pylist()]
    assert sorted(rows) == list(range(len(users)))
    assert all(part["row"].to_pylist() == sorted(part["row"].to_pylist()) for part in whole)
    told = [[user for user in part["user"].to_pylist() if user not in NOBODY] for part in whole]
    ordered = [user for part in told for user in sorted(set(part))]
    assert ordered == sorted({user for user in users if user not in NOBODY})  # type: ignore[type-var]
    for part in told:
        alone = len(set(part)) <= 1
        assert alone or len(part) < 2 * part_rows + max(part.count(user) for user in set(part))


def test_rows_of_nobody_are_spread_over_the_parts() -> None:
    borders = Borders(pa.array(["b", "c", "d"]))
    counts = np.bincount(borders.part_of(Ids.of(pa.nulls(100, pa.string()), "user")))
    assert counts.tolist() == [25, 25, 25, 25]


def test_users_are_counted_over_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "_HELD", 3)  # so that counts are added up on the way
    users = ["b", "a", None, "c", "b", "d", "e", "b", "a"] * 5
    found, counts = counts_of(batches_of(users, pa.string(), 4))
    assert dict(zip(found.to_pylist(), counts.tolist(), strict=True)) == {"a": 10, "b": 15, "c": 5, "d": 5, "e": 5}
    assert found.to_pylist() == sorted(found.to_pylist())


def test_a_log_of_very_many_rows_has_larger_parts_and_not_more_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "MOST_PARTS", 4)
    assert find_borders(*counts_of(batches_of(list(range(1000)), pa.int64())), 10).parts == 4


def test_a_table_is_split_by_part_with_the_rows_in_their_order() -> None:
    table = pa.table({"row": range(6)})
    found = [(n, t["row"].to_pylist()) for n, t in split(table, np.array([2, 0, 2, 0, 5, 2], np.int32))]
    assert found == [(0, [1, 3]), (2, [0, 2, 5]), (5, [4])]
    assert list(split(table.slice(0, 0), np.zeros(0, np.int32))) == []


def test_wide_rows_make_smaller_parts() -> None:
    wide = pa.table({"vector": [bytes(1 << 20)] * 4})
    assert part_rows_of([wide], 1000) == 511
    assert part_rows_of([wide.slice(0, 1)], 100) == 100
    assert part_rows_of([], 100) == 100
