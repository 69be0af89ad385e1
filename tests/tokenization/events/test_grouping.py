from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.events.grouping import Groups, group
from tokenization.ids import Ids


def grouped(rows: list[tuple[str, float, int | None]]) -> Groups:
    users, times, baskets = ([row[i] for row in rows] for i in range(3))
    declared = Ids.of(pa.array(baskets, pa.int64()), "basket")
    return group(Ids.of(pa.array(users, pa.string()), "user"), np.array(times, np.float64), declared)


def test_events_at_one_time_are_one_group() -> None:
    groups = grouped([("a", 1, None), ("a", 2, None), ("a", 1, None), ("b", 1, None)])
    assert groups.of_event.tolist() == [0, 1, 0, 2]
    assert groups.users.to_pylist() == ["a", "b"]
    assert groups.user.tolist() == [0, 0, 1]


def test_a_declared_group_takes_effect_when_its_last_event_does() -> None:
    groups = grouped([("a", 1, 7), ("a", 5, 7), ("a", 3, None)])
    assert groups.of_event.tolist() == [1, 1, 0]
    assert groups.time.tolist() == [3.0, 5.0]


def test_groups_that_take_effect_together_are_one() -> None:
    assert grouped([("a", 1, 7), ("a", 1, 8), ("a", 1, None)]).of_event.tolist() == [0, 0, 0]


def test_a_declared_group_is_over_after_its_longest_pause() -> None:
    rows = [("a", 1, 7), ("a", 9, 7), ("a", 4, 7), ("b", 9, 7), ("a", 20, 8), ("a", 5, None)]
    users, times, baskets = ([row[i] for row in rows] for i in range(3))
    found = Ids.of(pa.array(users), "user"), np.array(times, np.float64), Ids.of(pa.array(baskets), "basket")
    assert group(*found, pause=3.0).of_event.tolist() == [0, 2, 0, 4, 3, 1]
    assert group(*found, pause=5.0).of_event.tolist() == [1, 1, 1, 3, 2, 0]
    assert group(*found, pause=3.0).start.tolist() == [1, 5, 9, 20, 9]


def test_one_group_id_of_two_users_is_two_groups() -> None:
    groups = grouped([("a", 1, 7), ("b", 2, 7)])
    assert groups.time.tolist() == [1.0, 2.0]


def test_a_group_knows_the_one_before_and_how_many_follow() -> None:
    groups = grouped([("a", 1, None), ("a", 4, None), ("b", 9, None), ("a", 6, None)])
    assert groups.ordinal.tolist() == [0, 1, 2, 0]
    assert groups.from_end.tolist() == [2, 1, 0, 0]
    np.testing.assert_array_equal(groups.previous, [np.nan, 1.0, 4.0, np.nan])


def test_times_before_1970_and_zero_of_either_sign_are_times() -> None:
    groups = grouped([("a", -5.0, None), ("a", 0.0, None), ("a", -0.0, None), ("a", -7.0, None)])
    assert groups.of_event.tolist() == [1, 2, 2, 0]
    assert groups.time.tolist() == [-7.0, -5.0, 0.0]


def test_no_events_make_no_groups() -> None:
    groups = grouped([])
    assert len(groups.users) == len(groups.time) == len(groups.of_event) == 0


rows = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 5).map(float), st.none() | st.integers(1, 3)), max_size=25
)


@given(rows)
@settings(max_examples=60)
def test_groups_of_a_user_have_different_times_and_hold_what_is_declared(
    rows: list[tuple[str, float, int | None]],
) -> None:
    groups = grouped(rows)
    assert len(set(zip(groups.user.tolist(), groups.time.tolist(), strict=True))) == len(groups.time)
    together: dict[tuple[str, int], int] = {}
    for (user, time, basket), number in zip(rows, groups.of_event.tolist(), strict=True):
        assert groups.users[int(groups.user[number])].as_py() == user
        assert groups.time[number] >= time
        if basket is None:
            assert groups.time[number] == time
        else:
            assert together.setdefault((user, basket), number) == number
