from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenization.corpus.windows import Windows, cut_windows

users_of_groups = st.lists(st.lists(st.integers(1, 12), max_size=12), max_size=5)
sizes = st.integers(1, 20).flatmap(lambda window: st.tuples(st.just(window), st.integers(0, window - 1)))


def packed(users: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of each user's groups → offsets and the group of each token."""
    offsets = np.cumsum([0, *(sum(groups) for groups in users)])
    return offsets, np.concatenate([np.zeros(0, int), *(np.repeat(np.arange(len(g)), g) for g in users)])


def cut(users: list[list[int]], window: int, overlap: int) -> list[tuple[int, int, int, int]]:
    windows = cut_windows(*packed(users), window, overlap)
    columns = (windows.user, windows.begin, windows.fresh, windows.end)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@given(users_of_groups, sizes)
def test_each_token_is_fresh_once_in_a_window_that_fits(users: list[list[int]], size: tuple[int, int]) -> None:
    window, overlap = size
    offsets, groups = packed(users)
    found = cut(users, window, overlap)
    assert [token for _, _, fresh, end in found for token in range(fresh, end)] == list(range(len(groups)))
    for user, begin, fresh, end in found:
        assert offsets[user] <= begin <= fresh < end <= offsets[user + 1]
        assert end - begin <= window
        assert fresh - begin <= overlap


@given(users_of_groups, sizes)
def test_only_a_group_longer_than_the_window_is_cut(users: list[list[int]], size: tuple[int, int]) -> None:
    window, overlap = size
    offsets, groups = packed(users)
    sizes_of = {(u, g): n for u, counts in enumerate(users) for g, n in enumerate(counts)}
    for user, begin, _, end in cut(users, window, overlap):
        for border in (begin, end):
            inside = offsets[user] < border < offsets[user + 1] and groups[border - 1] == groups[border]
            assert not inside or sizes_of[user, groups[border]] > window


@given(users_of_groups, sizes)
def test_windows_are_as_long_as_they_can_be(users: list[list[int]], size: tuple[int, int]) -> None:
    """No group could be added at the end, and none at the beginning but where the first fresh group needs the room."""
    window, overlap = size
    offsets, groups = packed(users)
    for user, begin, fresh, end in cut(users, window, overlap):
        mine = groups[offsets[user] : offsets[user + 1]]
        if end < offsets[user + 1] and groups[end - 1] != groups[end]:
            following = int((mine == groups[end]).sum())
            assert end + following - begin > window
        if begin > offsets[user] and groups[begin - 1] != groups[begin]:
            before = int((mine == groups[begin - 1]).sum())
            first = int((mine == groups[fresh]).sum())
            assert fresh - begin + before > overlap or fresh + first - (begin - before) > window


@given(users_of_groups)
def test_whoever_fits_is_one_window(users: list[list[int]]) -> None:
    offsets, _ = packed(users)
    expected = [(u, int(offsets[u]), int(offsets[u]), int(offsets[u + 1])) for u, groups in enumerate(users) if groups]
    assert cut(users, 200, 50) == expected


def test_windows_by_hand() -> None:
    # groups of 3, 2, 4, 1: borders at 3, 5, 9; windows of 6 that may share 3
    assert cut([[3, 2, 4, 1]], 6, 3) == [(0, 0, 0, 5), (0, 3, 5, 9), (0, 9, 9, 10)]
    # the last window could be reminded of nothing: the group before has 4 tokens, more than 3
    assert cut([[3, 2, 4, 1]], 6, 4) == [(0, 0, 0, 5), (0, 3, 5, 9), (0, 5, 9, 10)]
    # a group of 9 among windows of 4: the overlap takes part of the first piece's room, then it is cut every 4
    assert cut([[1, 9, 1]], 4, 1) == [(0, 0, 0, 1), (0, 0, 1, 4), (0, 4, 4, 8), (0, 8, 8, 11)]


def test_no_users_have_no_windows() -> None:
    assert len(cut_windows(np.zeros(1, np.int64), np.zeros(0, np.int64), 4, 1)) == 0
    assert isinstance(cut_windows(np.zeros(3, np.int64), np.zeros(0, np.int64), 4, 1), Windows)


@pytest.mark.parametrize(("window", "overlap"), [(4, 4), (0, 0), (4, -1)])
def test_windows_must_move_on(window: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="share"):
        cut_windows(np.array([0, 3]), np.arange(3), window, overlap)


def test_millions_of_tokens_are_cut_at_once() -> None:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(5, 1.5, 20_000), 50_000).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    groups = np.arange(offsets[-1]) // 4
    start = time.perf_counter()
    windows = cut_windows(offsets, groups, 1024, 128)
    assert time.perf_counter() - start < 10  # it takes a few tenths of a second
    assert int((windows.end - windows.fresh).sum()) == offsets[-1]
