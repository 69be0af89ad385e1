"""Groups that last: what is known when one begins is what was complete by then, and what its first events say."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.tokenization.logs import BEGIN, MAGAZINE, Row, dense, magazine, whole
from tokenization.codes.vocabulary import UNKNOWN
from tokenization.corpus.corpus import append_corpus, compact, write_corpus
from tokenization.events.cleaning import clean
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.tables import from_rows
from tokenization.tokenizer.lasting import began, lasted_of, may_last
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.tokenizer import Tokenizer
from tokenization.tokenizer.translation import translation, under

MERGES: list[dict[str, Any]] = [
    {},
    {"merge": {"same_item_in_group": True}},
    {"merge": {"same_item_within": "30m"}},
    {"merge": {"same_item_in_group": True, "pairs": {"number": 8, "within": "1h"}}},
    {"group": None},
    {"group": None, "merge": {"same_item_within": "30m"}},
]


def visit(minutes: float, visit: object = None, article: str | None = "a1", **more: Any) -> Row:
    at = BEGIN + timedelta(minutes=minutes)
    return {"reader": "ann", "at": at, "what": "open", "visit": visit, "article": article, **more}


crowded = st.lists(
    st.builds(
        visit,
        st.integers(1, 40),
        st.sampled_from([None, None, 1, 2]),
        st.sampled_from(["a1", "a1", "a2"]),
        device=st.sampled_from([None, "phone", "desk"]),
        query=st.sampled_from([None, "wave", "sea"]),
    ),
    min_size=2,
    max_size=10,
)
"""Ann's forty minutes, in which visits overlap one another and single events."""


def without_visits(rows: list[Row]) -> list[Row]:
    """Rows without visits, for a schema without."""
    return [{name: value for name, value in row.items() if name != "visit"} for row in rows]


def tokens_of(rows: list[Row], **changes: Any) -> dict[str, Any]:
    """Ann's, by a tokenizer that knows all that the rows hold."""
    schema = magazine(**{"split": {"time": "2030-01-01"}, "items": None, "users": None, **changes})
    tokens = Tokenizer.fit(schema, rows).transform(rows)
    found: dict[str, Any] = next(row for row in tokens.to_pylist() if row["user_id"] == "ann")
    return found


def test_each_token_says_how_long_before_the_end_of_its_group_it_was() -> None:
    found = tokens_of([visit(0, 1, "a1"), visit(2, 1, "a2"), visit(3, None, "a3"), visit(5, 1, "a1")])
    minutes = [((BEGIN + timedelta(minutes=m)).timestamp()) for m in (3, 5, 5, 5)]
    assert found["time"] == minutes
    assert found["article"] == [UNKNOWN, UNKNOWN, 2, 2]  # a3 is complete before the visit that began before it
    assert found["lasted"] == [None, 180.0, None, 300.0]


def test_merged_lines_tell_of_their_first_event_alone() -> None:
    rows = [
        visit(0, 1, "a1", device="phone", campaign="c1"),
        visit(0, 1, "a2", device=None),
        visit(2, 1, "a1", device="desk", campaign="c2"),
        visit(5, 1, "a2", device="desk"),
        visit(5, 1, "a3", device="desk"),
    ]
    found = tokens_of(rows, merge={"same_item_in_group": True})
    desk, phone = 2, 3
    assert found["article"] == [UNKNOWN, 2, 3]  # a3, a1, a2
    assert found["events"] == [1, 2, 2]
    assert found["lasted"] == [None, 300.0, 300.0]
    assert found["device"] == [desk, phone, 0]
    assert found["campaign"] == [0, UNKNOWN, 0]


@pytest.mark.parametrize("changes", MERGES)
def test_the_column_is_there_where_a_group_may_last(changes: dict[str, Any]) -> None:
    schema = magazine(items=None, users=None, **changes)
    assert may_last(schema) == (schema.group is not None or "merge" in changes)
    rows = whole([visit(200, 1), visit(400, 2)], schema)
    rows = rows if schema.group else without_visits(rows)
    tokens = Tokenizer.fit(schema, rows).transform(rows)
    assert ("lasted" in tokens.column_names) == may_last(schema)
    if may_last(schema):
        assert tokens["lasted"].combine_chunks().flatten().null_count == len(lasted_of(tokens))
    assert not lasted_of(tokens).any()


def test_a_table_of_nobody_has_no_beginnings() -> None:
    nobody = pa.table({"time": pa.array([], pa.list_(pa.float64()))})
    assert lasted_of(nobody).tolist() == []
    assert lasted_of(nobody.append_column("lasted", nobody["time"])).tolist() == []
    begin, opening = began(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    assert begin.tolist() == opening.tolist() == []


def test_the_gap_reaches_back_to_what_was_complete() -> None:
    rows = [visit(0), visit(10, 1), visit(64, 2), visit(70, 1), visit(90, 2), visit(90.5, 3)]
    found = tokens_of(rows)
    assert [round((t - BEGIN.timestamp()) / 60, 1) for t in found["time"]] == [0, 70, 70, 90, 90, 90.5]
    # Visit 1 begins 10 minutes after the first event; so does visit 2 64 minutes after, when visit 1 is open still.
    seconds = [10 * 60, 10 * 60, 64 * 60, 64 * 60, 30]
    assert found["gap"] == [0, *(int(np.log2(gap)) + 2 for gap in seconds)]


def test_what_was_complete_when_a_visit_began_is_not_continued_after_that() -> None:
    joined = {"merge": {"same_item_within": "30m"}}
    assert tokens_of([visit(0), visit(10), visit(15, 1, "a2"), visit(20, 1, "a2")], **joined)["events"] == [2, 1, 1]
    assert tokens_of([visit(0), visit(10), visit(5, 1, "a2"), visit(20, 1, "a2")], **joined)["events"] == [1, 1, 1, 1]
    assert tokens_of([visit(0), visit(10), visit(10, 1, "a2"), visit(20, 1, "a2")], **joined)["events"] == [1, 1, 1, 1]


def test_a_stamp_of_the_context_counts_from_the_beginning() -> None:
    stamp = {"stamp": {"kind": "timestamp"}}
    rows = [visit(0, 1, stamp=BEGIN - timedelta(minutes=1)), visit(60, 1, stamp=BEGIN - timedelta(minutes=1))]
    assert tokens_of(rows, context=stamp)["stamp.value"] == [60.0, 60.0]
    outcome = {"seconds": {"kind": "duration"}, **stamp}
    assert tokens_of(rows, context={}, outcome=outcome)["stamp.value"] == [3660.0, 3660.0]


def overlapping() -> list[Row]:
    """Ann's: an event, a visit of an hour, another that begins in it, and an event after both."""
    return [visit(0), visit(10, 1, "a2"), visit(60, 2), visit(70, 1), visit(90, 2), visit(100)]


def test_by_last_items_what_is_open_when_the_last_begins_is_not_fitted_on() -> None:
    schema = magazine(items=None, users=None, split={"last_items": 2})
    events = clean(from_rows(overlapping(), schema), schema).events
    trains = Split("last_items", None, None, 2).trains(events.groups)
    assert trains.tolist() == [True, False, False, False]  # visit 1 is open when visit 2 begins
    assert Split("last_items", None, None, 1).trains(events.groups).tolist() == [True, True, True, False]
    assert Tokenizer.fit(schema, overlapping()).vocabularies["article"].ids.to_pylist() == []  # a1 once


def test_a_part_without_the_column_is_read_beside_one_that_has_it(tmp_path: Path) -> None:
    schema = magazine(items=None, users=None, split={"time": "2030-01-01"})
    tokenizer = Tokenizer.fit(schema, overlapping())
    old = tokenizer.transform(overlapping()[:1]).drop_columns(["lasted"])
    corpus = write_corpus(tmp_path / "corpus", [old], tokenizer, {})
    assert lasted_of(corpus.tokens()).tolist() == [0]
    later = tokenizer.transform(overlapping()[1:], after=corpus.ends(pa.array(["ann"])))
    corpus = append_corpus(corpus.folder, [later], tokenizer, {})
    found = [0, *(60 * minutes for minutes in (0, 60, 0, 30, 0))]
    assert sorted(lasted_of(corpus.tokens()).tolist()) == sorted(found)
    before = lasted_of(corpus.tokens())
    assert lasted_of(compact(corpus.folder).tokens()).tolist() == before.tolist()


def test_a_later_revision_reads_how_long_groups_lasted() -> None:
    schema = magazine(items=None, users=None, split={"time": "2030-01-01"})
    tokenizer = Tokenizer.fit(schema, overlapping())
    more = {**MAGAZINE["context"], "page": {"kind": "category"}}
    later = under(tokenizer, magazine(items=None, users=None, split={"time": "2030-01-01"}, revision=2, context=more))
    tokens = tokenizer.transform(overlapping())
    for one, other in ((tokenizer, later), (later, tokenizer)):
        assert (
            translation(one, other)
            .apply(tokens if one is tokenizer else later.transform(overlapping()))["lasted"]
            .equals(tokens["lasted"])
        )
        bare = one.transform(overlapping()).drop_columns(["lasted"])
        assert "lasted" not in translation(one, other).apply(bare).column_names


def known_at(tokens: pa.Table, reader: str, group: int, names: list[str]) -> tuple[Any, ...]:
    """What a request for a group knows: its time, its context, and the tokens that were complete before."""
    row = next(row for row in tokens.to_pylist() if row["user_id"] == reader)
    firsts = np.flatnonzero(np.diff(row["group"], prepend=-1))
    lasted = np.array([value or 0.0 for value in row.get("lasted", [0.0] * len(row["time"]))])
    begin, opening = began(np.array(row["time"]), lasted, firsts)
    mine = np.array(row["group"]) == group
    start = begin[mine][0]
    context = [{row[name][place] for place in np.flatnonzero(mine & opening)} for name in names]
    before = np.flatnonzero(np.array(row["time"]) < start)
    history = [[row[name][place] for place in before] for name in row if isinstance(row[name], list)]
    return start, context, history


def changed(rows: list[Row], start: float, others: list[Row], minutes: list[int]) -> list[Row]:
    """The same rows, of which what came later than `start` is said otherwise, and at another time later than that."""
    out = []
    for number, row in enumerate(rows):
        if row["reader"] == "ann" and row["at"].timestamp() > start + 1e-6:
            kept = {name: row[name] for name in ("reader", "visit") if name in row}
            moved = timedelta(seconds=start, minutes=minutes[number % len(minutes)], milliseconds=number)
            row = {**others[number % len(others)], **kept, "at": BEGIN.fromtimestamp(0, BEGIN.tzinfo) + moved}
        out.append(row)
    return out


@pytest.mark.parametrize("changes", MERGES)
@given(
    rows=st.one_of(crowded, dense),
    others=st.one_of(crowded, dense),
    minutes=st.lists(st.integers(1, 60), min_size=1, max_size=10),
    place=st.integers(0, 10),
)
@settings(max_examples=30)
def test_nothing_that_came_later_than_a_group_began_is_known_to_its_request(
    changes: dict[str, Any], rows: list[Row], others: list[Row], minutes: list[int], place: int
) -> None:
    schema = magazine(**{"items": None, "users": None, "drop": None, **changes})
    rows, others = whole(rows, schema), whole(others, schema)
    if not schema.group:
        rows, others = without_visits(rows), without_visits(others)
    tokenizer = Tokenizer.fit(schema, [*rows, *others])
    tokens = tokenizer.transform(rows)
    names = [facet.name for facet in tokenizer.context_facets]
    groups = sorted(set(next(row for row in tokens.to_pylist() if row["user_id"] == "ann")["group"]))
    start, context, history = known_at(tokens, "ann", groups[place % len(groups)], names)
    # Visits that begin and end together are one group, so that their ends tell whether they are.
    assume(len({row.get("visit") for row in rows if row["reader"] == "ann" and row["at"].timestamp() == start}) == 1)
    again = tokenizer.transform(changed(rows, start, others, minutes))
    there = next(row for row in again.to_pylist() if row["user_id"] == "ann")
    # Another number of groups may be complete before this one is, so it is found by what is known of it.
    known = [known_at(again, "ann", number, names) for number in sorted(set(there["group"]))]
    assert (start, context, history) in known


@pytest.mark.parametrize("changes", MERGES)
@given(rows=dense)
@settings(max_examples=10)
def test_beginnings_are_those_of_the_events(changes: dict[str, Any], rows: list[Row]) -> None:
    """Of every token: the group begins with the first event that anything in it holds."""
    schema: EventSchema = magazine(**{"items": None, "users": None, "drop": None, **changes})
    rows = whole(rows, schema) if schema.group else without_visits(whole(rows, schema))
    tokens = Tokenizer.fit(schema, rows).transform(rows)
    for row in tokens.to_pylist():
        said = sorted({(mine["at"]).timestamp() for mine in rows if mine["reader"] == row["user_id"]})
        firsts = np.flatnonzero(np.diff(row["group"], prepend=-1))
        lasted = np.array([value or 0.0 for value in row.get("lasted", [0.0] * len(row["time"]))])
        times = np.array(row["time"])
        begin, opening = began(times, lasted, firsts)
        assert set(begin) <= set(said)
        assert set(times - lasted) <= set(said)
        assert set(np.array(row["group"])[opening]) == set(row["group"])
        assert (begin <= times).all()
