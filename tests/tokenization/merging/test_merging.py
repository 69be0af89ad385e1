from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.codes.vocabulary import ABSENT, UNKNOWN
from tokenization.merging.merging import Merging, in_order, merge, settle

nan = float("nan")
CHOSEN = Merging(chosen=(("c",),))


def test_equal_keys_become_one_token_in_the_order_of_the_keys() -> None:
    merged = merge([np.array([1, 0, 1]), np.array([5, 9, 5])], {}, {"n": np.array([1.0, 2.0, 4.0])}, Merging())
    assert merged.numbers["n"].tolist() == [2.0, 5.0]
    assert merged.events.tolist() == [1, 2]
    assert merged.rows[0] == 1
    assert merged.rows[1] in (0, 2)


def test_the_value_seen_first_in_the_log_is_kept() -> None:
    key = [np.zeros(3, np.int64)]
    for codes, kept in [((9, 4, 7), 4), ((UNKNOWN, 4, ABSENT), 4), ((UNKNOWN, ABSENT, UNKNOWN), UNKNOWN)]:
        assert merge(key, {"c": np.array(codes, np.int32)}, {}, CHOSEN).codes["c"].tolist() == [kept]
    assert merge(key, {"c": np.zeros(3, np.int32)}, {}, CHOSEN).codes["c"].tolist() == [ABSENT]


def test_absent_numbers_add_nothing_and_their_sum_is_absent() -> None:
    merged = merge([np.array([0, 0, 1, 1])], {}, {"n": np.array([2.0, nan, nan, nan])}, Merging())
    np.testing.assert_array_equal(merged.numbers["n"], [2.0, nan])


def test_without_merging_every_event_is_its_own_token() -> None:
    merged = in_order([np.array([1, 0, 1])], {"c": np.array([4, 5, 6], np.int32)}, {})
    assert merged.events.tolist() == [1, 1, 1]
    assert sorted(merged.codes["c"].tolist()) == [4, 5, 6]
    assert merged.codes["c"][0] == 5


lines = st.lists(st.tuples(st.integers(0, 3), st.floats(-1e6, 1e6) | st.just(nan), st.integers(0, 5)), min_size=1)


@given(lines, st.randoms())
@settings(max_examples=80)
def test_sums_are_conserved_and_the_order_of_the_events_does_not_matter(
    lines: list[tuple[int, float, int]], random
) -> None:  # type: ignore[no-untyped-def]
    def tokens(rows: list[tuple[int, float, int]]) -> tuple[object, ...]:
        key, number, code = (np.array(column) for column in zip(*rows, strict=True))
        merged = merge([key], {"c": code.astype(np.int32)}, {"n": number}, CHOSEN)
        assert merged.events.sum() == len(rows)
        np.testing.assert_allclose(np.nansum(merged.numbers["n"]), np.nansum(number), atol=1e-6)
        return merged.numbers["n"].tobytes(), merged.codes["c"].tolist(), merged.events.tolist()

    shuffled = list(lines)
    random.shuffle(shuffled)
    assert tokens(lines) == tokens(shuffled)


@given(st.lists(st.integers(-(2**40), 2**40), min_size=2))
@settings(max_examples=40)
def test_whole_numbers_are_summed_exactly(numbers: list[int]) -> None:
    key = [np.zeros(len(numbers), np.int64)]
    assert merge(key, {}, {"n": np.array(numbers, np.float64)}, Merging()).numbers["n"].tolist() == [
        float(sum(numbers))
    ]


def test_settling_orders_only_what_is_tied() -> None:
    place = [np.array([2, 1, 1, 1])]
    codes = {"c": np.array([0, 7, 5, 6], np.int32)}
    merged = settle(in_order(place, codes, {"n": np.array([0.0, 1.0, nan, 2.0])}), place)
    assert merged.codes["c"].tolist() == [5, 6, 7, 0]
    np.testing.assert_array_equal(merged.numbers["n"], [nan, 2.0, 1.0, 0.0])
    assert merged.rows.tolist() == [2, 3, 1, 0]
