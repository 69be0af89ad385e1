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
    groups = grouped([("a", 1, 7), ("a", 5, 7), ("a", 3, 7), ("a", 6, None)])
    assert groups.of_event.tolist() == [0, 0, 0, 1]
    assert groups.time.tolist() == [5.0, 6.0]
    assert groups.start.tolist() == [1.0, 6.0]


def test_a_declared_group_ends_when_something_else_happens() -> None:
    assert grouped([("a", 1, 7), ("a", 5, 7), ("a", 3, None)]).of_event.tolist() == [0, 2, 1]
    assert grouped([("a", 1, 7), ("a", 2, 8), ("a", 3, 7), ("b", 2, 7)]).of_event.tolist() == [0, 1, 2, 3]


def test_groups_of_which_two_moments_hold_some_go_on_together() -> None:
    assert grouped([("a", 1, 7), ("a", 1, 8), ("a", 2, 7), ("a", 2, None), ("a", 3, 8)]).of_event.tolist() == [
        *(0, 0, 0, 0),
        1,
    ]


def test_groups_that_take_effect_together_are_one() -> None:
    assert grouped([("a", 1, 7), ("a", 1, 8), ("a", 1, None)]).of_event.tolist() == [0, 0, 0]


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
def test_groups_are_what_reading_the_events_one_moment_after_another_makes_of_them(
    rows: list[tuple[str, float, int | None]],
) -> None:
    groups = grouped(rows)
    assert len(set(zip(groups.user.tolist(), groups.time.tolist(), strict=True))) == len(groups.time)
    found = {}
    number = -1
    for user in sorted({user for user, _, _ in rows}):
        before: set[int | None] = set()
        for time in sorted({at for who, at, _ in rows if who == user}):
            now = {basket for who, at, basket in rows if (who, at) == (user, time)}
            number += not (now & before) - {None}
            before = now
            found[user, time] = number
    assert groups.of_event.tolist() == [found[user, time] for user, time, _ in rows]
    for (user, time, _), place in zip(rows, groups.of_event.tolist(), strict=True):
        assert groups.users[int(groups.user[place])].as_py() == user
        assert groups.start[place] <= time <= groups.time[place]


@given(rows, st.integers(0, 6))
@settings(max_examples=60)
def test_what_comes_later_changes_the_newest_group_only(rows: list[tuple[str, float, int | None]], cut: int) -> None:
    early = [row for row in rows if row[1] < cut]
    if not early:
        return
    before, after = grouped(early), grouped(rows)
    place = [number for number, row in enumerate(rows) if row[1] < cut]
    closed = before.from_end[before.of_event] > 0
    for one, two in ((before.ordinal, after.ordinal), (before.time, after.time), (before.start, after.start)):
        np.testing.assert_array_equal(one[before.of_event][closed], two[after.of_event[place]][closed])
