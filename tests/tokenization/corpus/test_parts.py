"""What every part promises, whatever its format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenization.corpus.parts import Format, Part, ids_ascend, open_part, read_ids, write_parts

ROWS = 700
FORMATS: tuple[Format, ...] = ("parquet", "lance")


def table(lengths: list[int]) -> pa.Table:
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(np.arange(sum(lengths)), pa.int32()))
    values = pa.ListArray.from_arrays(offsets, pa.array(np.arange(sum(lengths)) / 2, pa.float32()))
    return pa.table({"user_id": pa.array(range(len(lengths)), pa.int64()), "group": lists, "price.value": values})


WHOLE = table([row % 4 for row in range(ROWS)])


@pytest.fixture(scope="module", params=FORMATS)
def part(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Part:
    (path,) = write_parts(tmp_path_factory.mktemp("parts") / "tokens", 7, [WHOLE], request.param)
    assert path.name == f"00007.{request.param}"
    return open_part(path)


def test_a_part_is_what_was_written(part: Part) -> None:
    assert part.rows == ROWS
    assert part.schema.equals(WHOLE.schema)
    assert read_ids(part).equals(WHOLE["user_id"].combine_chunks())
    assert part.borders[0] == 0
    assert (np.diff(part.borders) > 0).all()
    assert part.borders[-1] < ROWS


@given(ends=st.tuples(st.integers(0, ROWS), st.integers(0, ROWS)))
def test_rows_in_order_are_read_in_pieces(part: Part, ends: tuple[int, int]) -> None:
    begin, end = min(ends), max(ends)
    columns = ["price.value", "user_id"]
    pieces = list(part.stream(begin, end, columns))
    expected = WHOLE.select(columns).slice(begin, end - begin)
    assert pa.concat_tables([expected.slice(0, 0), *pieces]).equals(expected)
    assert all(piece.num_rows <= 256 for piece in pieces)


@given(rows=st.lists(st.integers(0, ROWS - 1), max_size=8))
def test_rows_are_taken_in_the_order_asked(part: Part, rows: list[int]) -> None:
    wanted = np.array(rows, np.int64)
    assert part.take(wanted, ["group", "user_id"]).equals(WHOLE.select(["group", "user_id"]).take(pa.array(wanted)))


def test_a_row_group_ends_at_many_tokens_too(tmp_path: Path) -> None:
    (path,) = write_parts(tmp_path, 0, [table([400_000, 400_000, 400_000, 5, 5])], "parquet")
    assert open_part(path).borders.tolist() == [0, 2]


def test_ids_that_ascend_are_told_from_those_that_do_not() -> None:
    assert ids_ascend(pa.array([], pa.string()))
    assert ids_ascend(pa.array(["a", "b"]))
    assert not ids_ascend(pa.array(["a", "a"]))
    assert not ids_ascend(pa.array([10, 9]))
