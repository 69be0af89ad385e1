from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import ModelError
from foundation.jagged import (
    EventBatch,
    group_ids,
    group_offsets,
    group_starts,
    last_times,
    ranges,
    ranges_of,
    ranges_owner,
    requests_now,
    segment_ids,
    segment_max,
    segment_softmax,
    segment_sum,
)

TOKENS = pa.table(
    {
        "user_id": ["ann", "bob", "cem"],
        "time": pa.array([[100.0, 100.0, 160.0], [], [1.5e9]], pa.list_(pa.float64())),
        "group": pa.array([[0, 0, 1], [], [0]], pa.list_(pa.int32())),
        "product": pa.array([[5, 6, 7], [], [8]], pa.list_(pa.int32())),
        "store": pa.array([[2, 2, 3], [], [0]], pa.list_(pa.int32())),
    }
)
LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=12)


def test_a_token_table_is_packed_end_to_end() -> None:
    batch = EventBatch.from_tokens(TOKENS, ["store", "product"])
    assert (batch.users, batch.tokens) == (3, 4)
    assert batch.facet_TF.tolist() == [[2, 5], [2, 6], [3, 7], [0, 8]]
    assert batch.offset_B1.tolist() == [0, 3, 3, 4]
    assert batch.user_T.tolist() == [0, 0, 0, 2]
    assert group_offsets(batch).tolist() == [0, 2, 3, 4]
    assert group_starts(batch).tolist() == [True, False, True, True]
    assert group_ids(batch).tolist() == [0, 0, 1, 2]
    assert last_times(batch).tolist() == [60.0, 0.0, 0.0]


def test_times_count_from_the_users_first_event_in_full_precision() -> None:
    batch = EventBatch.from_tokens(TOKENS, ["product"])
    assert batch.time_T.dtype == torch.float64
    assert batch.time_T.tolist() == [0.0, 0.0, 60.0, 0.0]
    assert batch.start_B.tolist() == [100.0, 0.0, 1.5e9]


def test_slices_and_pieces_of_a_table_are_packed_like_a_whole_one() -> None:
    pieces = pa.concat_tables([TOKENS.slice(0, 1), TOKENS.slice(1, 1), TOKENS.slice(2)])
    one, other = (EventBatch.from_tokens(table, ["product"]) for table in (TOKENS, pieces))
    assert torch.equal(one.facet_TF, other.facet_TF)
    assert torch.equal(one.offset_B1, other.offset_B1)
    last = EventBatch.from_tokens(TOKENS.slice(2), ["product"])
    assert (last.facet_TF.tolist(), last.offset_B1.tolist()) == ([[8]], [0, 1])


def test_a_table_without_users_is_an_empty_batch() -> None:
    batch = EventBatch.from_tokens(TOKENS.slice(0, 0), ["product", "store"])
    assert (batch.users, batch.tokens, batch.facet_TF.shape) == (0, 0, (0, 2))


def test_a_missing_facet_is_named() -> None:
    with pytest.raises(ModelError, match="no column 'coupon': tokenize the events with the tokenizer"):
        EventBatch.from_tokens(TOKENS, ["product", "coupon"])


def test_a_request_before_the_last_event_is_refused() -> None:
    batch = EventBatch.from_tokens(TOKENS, ["product"])
    untold = torch.zeros(3, 0, dtype=torch.int64)
    assert requests_now(batch, None, untold).time_R.tolist() == [60.0, 0.0, 0.0]
    late = torch.tensor([160.0, 5.0, 1.6e9], dtype=torch.float64)
    assert requests_now(batch, late, untold).time_R.tolist() == [60.0, 0.0, 1e8]
    with pytest.raises(ModelError, match="row 0 asks for a moment before the user's last event"):
        requests_now(batch, torch.tensor([159.0, 5.0, 1.6e9], dtype=torch.float64), untold)


@given(lengths=LENGTHS, seed=st.integers(0, 99))
@settings(max_examples=60)
def test_segments_are_what_a_loop_makes_of_them(lengths: list[int], seed: int) -> None:
    draw = np.random.default_rng(seed)
    offsets = torch.tensor(np.concatenate([[0], np.cumsum(lengths)]))
    owner = [segment for segment, length in enumerate(lengths) for _ in range(length)]
    assert segment_ids(offsets).tolist() == owner
    starts = draw.integers(0, 50, len(lengths))
    expected = [int(start) + step for start, length in zip(starts, lengths, strict=True) for step in range(length)]
    start_N, length_N = torch.from_numpy(starts), torch.tensor(lengths)
    assert ranges(start_N, length_N).tolist() == expected
    assert ranges_of(start_N, length_N, ranges_owner(length_N, sum(lengths))).tolist() == expected

    order = draw.permutation(len(owner))  # pairs need not lie in the order of their segments
    value = torch.from_numpy(draw.normal(size=len(owner)))
    segment = torch.tensor(owner, dtype=torch.int64)[torch.from_numpy(order)]
    rows = [value[segment == number] for number in range(len(lengths))]
    sums, tops = segment_sum(value, segment, len(lengths)), segment_max(value, segment, len(lengths))
    shares = segment_softmax(100 * value, segment, len(lengths))
    beside = segment_softmax(100 * value, segment, len(lengths), rest=7.0)
    for number, row in enumerate(rows):
        torch.testing.assert_close(sums[number], row.sum())
        assert tops[number] == (row.max() if len(row) else -torch.inf)
        torch.testing.assert_close(shares[segment == number], torch.softmax(100 * row, 0))
        torch.testing.assert_close(
            beside[segment == number], torch.softmax(torch.cat([100 * row, row.new_tensor([7.0])]), 0)[:-1]
        )
