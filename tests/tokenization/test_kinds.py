"""Every kind of facet through the whole tokenizer, on logs that nobody wrote."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenization.logs import BEGIN, ITEMS, USERS, Row, dense, magazine, minutes, rows, table_of, whole
from tokenization.codes.vocabulary import ABSENT, FIRST, UNKNOWN
from tokenization.events.cleaning import clean
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.tables import from_rows, read_items, read_users, users_rule
from tokenization.tokenizer import fitting
from tokenization.tokenizer.facets import ACTIONS
from tokenization.tokenizer.growing import grow
from tokenization.tokenizer.split import resolve
from tokenization.tokenizer.tokenizer import Tokenizer

PAIRS = {"pairs": {"number": 8, "within": "30m", "by": "section"}}
MERGES = [None, {"same_item_in_group": True}, {"same_item_within": "30m"}, PAIRS, {"same_item_within": "10m", **PAIRS}]


def fitted(schema: EventSchema, log: list[Row]) -> Tokenizer:
    events = clean(table_of(whole(log, schema), schema), schema).events
    return Tokenizer.fit(schema, events, ITEMS, users=USERS)


def tokens_of(tokenizer: Tokenizer, log: list[Row]) -> pa.Table:
    return tokenizer.transform(clean(table_of(log, tokenizer.schema), tokenizer.schema).events, USERS)


@pytest.mark.parametrize("merge", MERGES, ids=str)
@given(log=dense, random=st.randoms())
@settings(max_examples=25)
def test_sums_and_sets_of_actions_are_conserved_and_order_does_not_matter(
    merge: dict[str, Any] | None, log: list[Row], random: Any
) -> None:
    schema = magazine(merge=merge)
    tokenizer = fitted(schema, log)
    tokens = tokens_of(tokenizer, log)
    assert pc.sum(pc.list_flatten(tokens["events"])).as_py() == len(log)
    seconds = pc.list_flatten(tokens["seconds.value"])
    assert (pc.sum(seconds).as_py() or 0.0) == sum(row["seconds"] or 0 for row in log) / 1000
    shuffled = list(log)
    random.shuffle(shuffled)
    assert tokens_of(tokenizer, shuffled).equals(tokens)
    if merge and "pairs" in merge:
        assert held_actions(tokens, tokenizer) == done_actions(log)


def held_actions(tokens: pa.Table, tokenizer: Tokenizer) -> dict[str, set[tuple[str, str]]]:
    """By reader, the actions that tokens hold, each with the token's article."""
    found: dict[str, set[tuple[str, str]]] = {}
    for row in tokens.to_pylist():
        for place, article in enumerate(row["article"]):
            codes = {row[name][place] for name in ACTIONS} - {ABSENT}
            names = tokenizer.vocabularies["action"].decode(np.array(sorted(codes), np.int32)).to_pylist()
            found.setdefault(row["user_id"], set()).update((name, article) for name in names)
    return {who: {(name, "") for name, _ in pairs} for who, pairs in found.items()}


def done_actions(log: list[Row]) -> dict[str, set[tuple[str, str]]]:
    done: dict[str, set[tuple[str, str]]] = {row["reader"]: set() for row in log}
    for row in log:
        if row["what"] is not None:
            done[row["reader"]].add(("open" if row["what"] == "tap" else row["what"], ""))
    return done


@pytest.mark.parametrize("merge", MERGES, ids=str)
@given(log=dense, cut=st.integers(0, 90))
@settings(max_examples=25)
def test_later_events_change_only_the_newest_group(merge: dict[str, Any] | None, log: list[Row], cut: int) -> None:
    """What a reader's tokens are is final as soon as a later group has begun: states may be cached."""
    schema = magazine(merge=merge, group=None)
    tokenizer = fitted(schema, log)
    early = [row for row in log if row["at"] < BEGIN + timedelta(minutes=cut)]
    if not early:
        return
    later = {row["user_id"]: row for row in tokens_of(tokenizer, log).to_pylist()}
    for row in tokens_of(tokenizer, early).to_pylist():
        closed = sum(number < row["group"][-1] for number in row["group"])
        full = later[row["user_id"]]
        for name in set(row) - {"user_id"}:
            if isinstance(row[name], list):
                assert row[name][:closed] == full[name][:closed], name


@given(log=rows, cuts=st.lists(st.sampled_from(["ann", "bob", "cem"]), max_size=2, unique=True))
@settings(max_examples=40)
def test_a_log_fitted_in_parts_gives_the_tokenizer_of_the_whole(log: list[Row], cuts: list[str]) -> None:
    schema = magazine(merge=PAIRS)
    log = whole(log, schema)
    parts = [[row for row in log if row["reader"] == who] for who in cuts]
    parts.append([row for row in log if row["reader"] not in cuts])
    events = [clean(from_rows(part, schema), schema).events for part in parts if part]
    split = resolve(schema.split, reduce(or_, (fitting.moments(schema, part) for part in events)))
    items, users = read_items(ITEMS, schema), read_users(USERS, users_rule(schema))
    first, *others = [fitting.observe(schema, split, part, items) for part in events]
    for other in others:
        first = first | other
    assert Tokenizer.of(schema, split, first, items, users=users).fingerprint == fitted(schema, log).fingerprint


@given(log=rows)
@settings(max_examples=40)
def test_live_rows_and_small_tables_are_the_tokens_of_the_batch(log: list[Row]) -> None:
    schema = magazine(merge={"same_item_within": "10m", **PAIRS})
    tokenizer = fitted(schema, log)
    batch = {row["user_id"]: row for row in tokens_of(tokenizer, log).to_pylist()}
    for who in {row["reader"] for row in log}:
        mine = [row for row in log if row["reader"] == who]
        assert tokenizer.transform(mine, USERS).to_pylist() == [batch[who]]
        assert tokenizer.transform(from_rows(mine, schema), USERS).to_pylist() == [batch[who]]


@given(log=rows)
@settings(max_examples=20)
def test_a_saved_tokenizer_of_every_kind_is_the_same(log: list[Row], tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = fitted(magazine(merge=PAIRS), log)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    loaded = Tokenizer.load(folder)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.facets == tokenizer.facets
    assert tokens_of(loaded, log).equals(tokens_of(tokenizer, log))


LATE = BEGIN + timedelta(days=19)


@given(log=rows)
@settings(max_examples=25)
def test_nothing_after_the_split_is_fitted_on_whatever_its_kind(log: list[Row]) -> None:
    """Rule 1: every facet of every event after the split may change, and the tokenizer stays."""
    schema = magazine(merge=PAIRS)
    other = {"what": "steal", "article": "gold", "device": "tv", "query": "new words", "campaign": "c9"}
    other |= {"seconds": 10**9, "stars": -7.0, "published": BEGIN, "tags": ["new"], "cover": [9.0, 9.0]}
    changed = [{**row, **other} if row["at"] >= LATE else row for row in log]
    assert fitted(schema, changed).fingerprint == fitted(schema, log).fingerprint


def test_each_kind_reads_as_it_should() -> None:
    schema = magazine()
    log = [
        {"reader": "ann", "at": BEGIN, "what": "read", "article": "a1", "device": "phone", "query": "The big wave!"},
        {
            "reader": "ann",
            "at": BEGIN + timedelta(minutes=2),
            "what": "tap",
            "article": "once",
            "campaign": "c1",
            "published": BEGIN - timedelta(days=1),
            "tags": ["sea", "wind", "sea"],
            "cover": [0.5, 0.5],
            "seconds": 2500,
        },
        {"reader": "ann", "at": BEGIN + timedelta(minutes=9), "what": "beat", "article": "a1", "campaign": "c1"},
        {"reader": "ann", "at": BEGIN + timedelta(minutes=9), "what": "open", "article": "a1", "campaign": "c1"},
    ]
    cleaned = clean(from_rows(log, schema), schema)
    assert cleaned.dropped == {"action beat": 1}
    tokenizer = Tokenizer.fit(schema, cleaned.events, ITEMS, users=USERS)
    tokens = tokenizer.transform(cleaned.events, USERS).to_pylist()[0]
    assert tokens["article"][1] == UNKNOWN  # seen once, and two are needed
    assert min(tokens["article.hash.0"][1], tokens["article.hash.1"][1]) >= FIRST
    assert tokens["article.hash.0"][0] == ABSENT
    assert [tokens[f"query.{place}"][0] for place in range(3)] == [FIRST + 2, FIRST, FIRST + 1] or len(
        {tokens[f"query.{place}"][0] for place in range(3)}
    ) == 3
    assert [tokens[f"tags.{place}"][1] for place in range(4)][2:] == [ABSENT, ABSENT]
    assert tokens["tags.0"][1] < tokens["tags.1"][1]
    assert tokens["seconds.value"] == [None, 2.5, None]
    assert tokens["published.value"][1] == pytest.approx(86_400 + 120)
    assert tokens["tenure"] == [FIRST, FIRST + 6, FIRST + 9]
    assert tokens["age"] == [FIRST, ABSENT, FIRST + 9]  # of an article that was not admitted nothing is known
    assert tokens["cover.0"][1] >= FIRST
    assert tokens["cover.0"][0] == ABSENT
    assert tokens["user.plan"] == FIRST
    assert Counter(tokens["month"]) == {FIRST + 2: 3}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seconds": -1}, "seconds is a negative duration"),
        ({"at": BEGIN + timedelta(days=400_000)}, "at lies in the future"),
        ({"article": "x" * 2000}, "article is longer than 1024 bytes"),
        ({"device": "ph\x00ne"}, "device holds control characters"),
        ({"reader": "an\nn"}, "reader holds control characters"),
        ({"cover": [1.0, float("nan")]}, "cover is no vector of finite numbers"),
        ({"cover": [1.0, 2.0, 3.0]}, "cover is no vector of finite numbers"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_kept_aside_with_its_reason(change: Row, reason: str) -> None:
    schema = magazine()
    sound = {"reader": "ann", "at": BEGIN, "what": "read", "article": "a1", "cover": [1.0, 2.0], "device": "phone"}
    cleaned = clean(from_rows([sound, {**sound, **change}, sound], schema), schema)
    assert cleaned.quarantined["reason"].to_pylist() == [reason]
    assert len(cleaned.events) == 2


def test_an_event_that_is_there_twice_is_kept_aside_once() -> None:
    schema = magazine(event_id="row")
    sound = {"reader": "ann", "at": BEGIN, "what": "read", "article": "a1"}
    log = [{**sound, "row": row} for row in (7, 8, 7, None, None)]
    cleaned = clean(from_rows(log, schema), schema)
    assert cleaned.quarantined["reason"].to_pylist() == ["row is there twice"]
    assert len(cleaned.events) == 4


@given(log=rows)
@settings(max_examples=25)
def test_a_request_reads_its_context_as_its_event_does(log: list[Row]) -> None:
    schema = magazine(group=None)
    tokenizer = fitted(schema, log)
    names = [facet.name for facet in tokenizer.context_facets]
    for row in log[:5]:
        tokens = tokens_of(tokenizer, [row]).to_pylist()[0]
        told = {name: [row[name]] for name in schema.context}
        at = np.array([row["at"].timestamp()])
        codes = tokenizer.encode_context(told, at=at, first=at)[0]
        assert codes.tolist() == [tokens[name][0] for name in names]


def test_a_request_is_made_when_its_group_begins_however_long_it_lasts() -> None:
    """Rule 1: the hour at which a session ends tells how long it was."""
    schema = magazine(time={"column": "at", "facets": ["hour", "gap"]})
    short = minutes({"at": 0, "article": "a1"}, {"at": 120, "visit": 1, "article": "a2"})
    long = [*short, *minutes({"at": 400, "visit": 1, "article": "a3"})]
    tokenizer = fitted(schema, long)
    first, second = (tokens_of(tokenizer, log).to_pylist()[0] for log in (short, long))
    for name in ("hour", "gap"):
        assert first[name][1] == second[name][1] == second[name][2]
        at, previous = np.array([BEGIN.timestamp() + 7200]), np.array([BEGIN.timestamp()])
        place = [facet.name for facet in tokenizer.context_facets].index(name)
        assert tokenizer.encode_context({}, at=at, previous=previous)[0, place] == first[name][1]


def test_context_of_a_joined_token_is_that_of_its_first_event_and_stamps_do_not_add_up() -> None:
    schema = magazine(merge={"same_item_within": "1h", "same_item_in_group": True}, group=None)
    log = minutes(
        {"at": 0, "article": "a1", "published": BEGIN - timedelta(hours=1)},
        {"at": 30, "article": "a1", "device": "phone", "published": BEGIN - timedelta(hours=1)},
    )
    tokenizer = fitted(schema, [*log, *minutes({"at": 99, "article": "a2", "device": "phone"})])
    tokens = tokens_of(tokenizer, log).to_pylist()[0]
    assert tokens["device"] == [ABSENT]
    assert tokens["published.value"] == [5400.0]  # of both, taken from when the group took effect


def test_what_pairs_join_in_a_held_out_group_is_not_fitted_on() -> None:
    merge = {"pairs": {"number": 8, "within": "30m"}}
    schema = magazine(merge=merge, split={"last_items": 1}, entities={"article": {"candidates": True}}, users=None)
    log = minutes(
        *({"at": 100 * n, "article": f"a{n}"} for n in range(3)),
        {"at": 400, "article": "new"},
        {"at": 401, "article": "new", "what": "read"},
    )
    tokenizer = Tokenizer.fit(schema, clean(from_rows(log, schema), schema).events)
    assert "new" not in tokenizer.vocabularies["article"].ids.to_pylist()


def test_a_row_that_corrects_a_bad_one_is_no_repetition() -> None:
    schema = magazine(event_id="row")
    bad = {"reader": "ann", "at": BEGIN, "what": "read", "article": "a1", "row": 7, "seconds": -1}
    cleaned = clean(from_rows([bad, {**bad, "seconds": 1}], schema), schema)
    assert cleaned.quarantined["reason"].to_pylist() == ["seconds is a negative duration"]
    assert len(cleaned.events) == 1


@pytest.mark.parametrize("member", ["x" * 2000, "se\x00a"], ids=["long", "control"])
def test_odd_members_of_a_set_are_kept_aside(member: str) -> None:
    schema = magazine()
    sound = {"reader": "ann", "at": BEGIN, "what": "read", "article": "a1", "tags": ["sea"]}
    cleaned = clean(from_rows([sound, {**sound, "tags": ["wind", member]}, sound], schema), schema)
    assert len(cleaned.events) == 2
    assert cleaned.quarantined["reason"][0].as_py().startswith("tags ")


def test_unknown_members_of_a_set_keep_their_places_when_they_get_codes() -> None:
    schema = magazine()
    tokenizer = fitted(schema, minutes({"at": 0, "article": "a1", "tags": ["sea"]}))
    log = minutes({"at": 50, "article": "a1", "tags": ["n2", "sea", "n1", "n2"]})
    codes = [tokens_of(tokenizer, log).to_pylist()[0][f"tags.{place}"][0] for place in range(4)]
    assert codes == [FIRST, UNKNOWN, UNKNOWN, ABSENT]
    grown = grow(tokenizer, clean(from_rows(log, schema), schema).events)
    codes = [tokens_of(grown, log).to_pylist()[0][f"tags.{place}"][0] for place in range(4)]
    assert codes[0] == FIRST
    assert min(codes[1:3]) > FIRST
    assert codes[3] == ABSENT


def test_what_decides_tokens_decides_the_fingerprint() -> None:
    log = minutes({"at": 0, "article": "a1"}, {"at": 60, "article": "a1"})
    earlier = [{**log[0], "at": BEGIN - timedelta(days=3), "reader": "cem"}, *log]
    schema = magazine(merge=PAIRS)
    one, other = fitted(schema, log), fitted(schema, earlier)
    assert one.vocabularies["article"].ids.equals(other.vocabularies["article"].ids)
    assert one.fingerprint != other.fingerprint  # ages of items differ
    events = clean(from_rows(whole(log, schema), schema), schema).events
    classes = ITEMS.set_column(1, "section", pa.array(["sport", "news", "news", "sport"]))
    assert Tokenizer.fit(schema, events, classes, users=USERS).fingerprint != one.fingerprint
    plans = USERS.set_column(1, "plan", pa.array(["gold", "paid"]))
    assert Tokenizer.fit(schema, events, ITEMS, users=plans).fingerprint != one.fingerprint


def test_the_empty_text_is_no_id_from_any_source() -> None:
    schema = magazine()
    row = {"reader": "ann", "at": BEGIN, "what": "read", "article": "", "device": ""}
    events = clean(from_rows([row], schema), schema).events
    assert events.ids["article"].missing.all()
    assert events.ids["device"].missing.all()
    cleaned = clean(from_rows([{**row, "reader": ""}], schema), schema)
    assert cleaned.quarantined["reason"].to_pylist() == ["reader is missing"]
