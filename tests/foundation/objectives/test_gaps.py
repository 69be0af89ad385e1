from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundation.jagged import EventBatch, Requests
from foundation.objectives.gaps import gap_bins, gaps


@given(st.floats(1e-6, 1e9), st.integers(2, 40), st.floats(1.0, 1e6))
def test_a_bin_holds_a_power_of_two_of_the_unit(gap: float, bins: int, unit: float) -> None:
    found = int(gap_bins(torch.tensor([gap], dtype=torch.float64), unit, bins))
    assert 0 <= found < bins
    if found < bins - 1:
        assert gap / unit < 2.0 ** (found + 1 - bins // 2) * (1 + 1e-12)
    if found > 0:
        assert gap / unit >= 2.0 ** (found - bins // 2) * (1 - 1e-12)


def test_no_time_at_all_is_the_shortest_gap() -> None:
    assert gap_bins(torch.tensor([0.0, -5.0], dtype=torch.float64), 60.0, 8).tolist() == [0, 0]


def test_large_times_keep_their_seconds() -> None:
    last, asked = 3e9, 3e9 + 1  # float32 would round both to the same
    assert gap_bins(torch.tensor([asked - last], dtype=torch.float64), 1.0, 8).tolist() == [4]


def test_a_gap_is_counted_from_the_last_complete_group(batch: EventBatch, asked: Requests) -> None:
    gap_R, there_R = gaps(batch, asked)
    expected = [
        float(time) - float(batch.time_T[end - 1]) for time, end in zip(asked.time_R, asked.end_R.tolist(), strict=True)
    ]
    assert gap_R.tolist() == pytest.approx(expected)
    assert gap_R.dtype == torch.float64
    assert there_R.all()
    nobody = replace(asked, end_R=batch.offset_B1[:-1][asked.user_R])
    assert not gaps(batch, nobody)[1].any()
