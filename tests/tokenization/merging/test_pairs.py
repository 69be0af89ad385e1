from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.ids import Ids
from tokenization.merging.pairs import LONGEST, PairTable, Run, runs_of

NEWS = {("news", "open", "read"): 5, ("news", "open", "read", "share"): 3, ("sport", "open", "open"): 2}


def test_the_most_frequent_pair_becomes_a_symbol_first_and_grows() -> None:
    table = PairTable.learn(NEWS, 3)
    assert table.merges == (
        ("news", ("open",), "read"),
        ("news", ("open", "read"), "share"),
        ("sport", ("open",), "open"),
    )
    assert PairTable.learn(NEWS, 1).merges == table.merges[:1]


def test_what_was_seen_once_is_no_pair() -> None:
    assert PairTable.learn({("", "open", "read"): 1}, 9).merges == ()


def joined(table: PairTable, runs: list[Run]) -> list[list[int]]:
    """Where tokens of each run begin, as the table cuts it."""
    sizes = [len(run) - 1 for run in runs]
    action = Ids.of(pa.array([name for run in runs for name in run[1:]], pa.string()), "action")
    kind = Ids.of(pa.array([run[0] or None for run in runs for _ in run[1:]], pa.string()), "class")
    follows = np.ones(sum(sizes), np.bool_)
    starts = np.cumsum([0, *sizes[:-1]])
    follows[starts] = False
    found = table.joins(action, kind, follows)
    return [
        [place for place in range(size) if not found[start + place]] for start, size in zip(starts, sizes, strict=True)
    ]


def test_a_table_is_applied_greedily_from_left_to_right() -> None:
    table = PairTable.learn(NEWS, 3)
    assert joined(table, [("news", "open", "read", "share", "open", "read")]) == [[0, 3]]
    assert joined(table, [("news", "read", "open", "read")]) == [[0, 1]]
    assert joined(table, [("sport", "open", "read")]) == [[0, 1]]  # another class, other pairs
    assert joined(table, [("", "open", "read")]) == [[0, 1]]
    assert joined(table, [("news", "wave", "open", "read")]) == [[0, 1]]  # an action that was never learned


runs = st.lists(
    st.tuples(st.sampled_from(["news", "sport", ""]), st.lists(st.sampled_from("abc"), min_size=1, max_size=12)).map(
        lambda run: (run[0], *run[1])
    ),
    min_size=1,
    max_size=8,
)


@given(runs)
@settings(max_examples=60)
def test_cutting_many_runs_at_once_is_cutting_each_by_hand(found: list[Run]) -> None:
    table = PairTable.learn(Counter(found), 6)
    merges = set(table.merges)

    def by_hand(run: Run) -> list[int]:
        starts, symbol = [0], run[1:2]
        for place, action in enumerate(run[2:], start=1):
            if (run[0], symbol, action) in merges:
                symbol = (*symbol, action)
            else:
                starts.append(place)
                symbol = (action,)
        return starts

    assert joined(table, found) == [by_hand(run) for run in found]


@given(runs)
@settings(max_examples=40)
def test_a_longer_run_is_cut_as_its_beginning_was(found: list[Run]) -> None:
    table = PairTable.learn(Counter(found), 6)
    whole = joined(table, found)
    for run, cut in zip(found, whole, strict=True):
        for length in range(1, len(run) - 1):
            assert joined(table, [run[: length + 1]])[0] == [place for place in cut if place < length]


def test_no_symbol_holds_more_actions_than_columns_tell() -> None:
    table = PairTable.learn({("", *"a" * 40): 9}, 99)
    assert max(len(symbol) + 1 for _, symbol, _ in table.merges) == LONGEST


def test_runs_are_counted_with_their_class_and_single_events_are_none() -> None:
    action = Ids.of(pa.array(["open", "read", "open", "open", "read", None, "open"]), "action")
    kind = Ids.of(pa.array(["news", "news", "sport", "news", "news", "news", "news"]), "class")
    follows = np.array([False, True, False, False, True, False, True])
    assert runs_of(action, kind, follows) == {("news", "open", "read"): 2}
