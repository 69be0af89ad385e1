from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.errors import VocabularyError
from tokenization.events.cleaning import clean
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.fingerprint import sizes_of
from tokenization.tokenizer.growing import grow
from tokenization.tokenizer.tokenizer import Tokenizer
from tokenization.tokenizer.translation import under

Declare = Callable[..., EventSchema]
ids = st.sampled_from(["tea", "milk", "soap", "rope", "wax", None])
logs = st.lists(st.tuples(ids, st.lists(st.sampled_from("abcde"), max_size=3)), min_size=1, max_size=20)

SCHEMA = {
    "schema": 1,
    "name": "shop",
    "user": "user",
    "time": {"column": "at"},
    "entities": {"product": {"column": "sku", "candidates": True, "admit": 2, "buckets": 8}},
    "context": {"store": {"kind": "category"}},
    "outcome": {"tags": {"kind": "set", "most": 3}, "note": {"kind": "text"}, "quantity": {"kind": "number"}},
    "split": {"time": "2030-01-01"},
}


def table(found: list[tuple[Any, list[str]]], at: int = 0) -> pa.Table:
    return pa.table(
        {
            "user": ["ann"] * len(found),
            "at": pa.array([float(at + i) for i in range(len(found))]),
            "sku": pa.array([sku for sku, _ in found], pa.string()),
            "store": pa.array([f"s{len(tags)}" for _, tags in found], pa.string()),
            "tags": pa.array([tags for _, tags in found], pa.list_(pa.string())),
            "note": pa.array([" ".join(tags) for _, tags in found], pa.string()),
            "quantity": pa.array([float(len(tags)) for _, tags in found]),
        }
    )


@pytest.fixture(scope="module")
def shop() -> EventSchema:
    return EventSchema.from_dict(SCHEMA)


@given(before=logs, after=logs)
@settings(max_examples=40)
def test_no_code_changes_and_what_is_new_gets_one(
    shop: EventSchema, before: list[tuple[Any, list[str]]], after: list[tuple[Any, list[str]]]
) -> None:
    one, two = table(before), table(after, at=100)
    tokenizer = Tokenizer.fit(shop, one)
    grown = grow(tokenizer, clean(two, shop).events)
    sizes = sizes_of(tokenizer)
    assert grown.prefix_fingerprint(sizes) == tokenizer.fingerprint
    known = set(tokenizer.items.ids.ids.to_pylist())
    met = [sku for sku, _ in (*before, *after) if sku]
    fresh = [sku for sku in dict.fromkeys(met) if sku not in known and met.count(sku) >= 2]
    assert grown.items.ids.ids.to_pylist()[len(known) :] == fresh
    assert set(grown.items.ids.waiting.ids.to_pylist()) == {sku for sku in met if met.count(sku) == 1}
    assert grown.vocabularies["product"] is grown.items.ids
    assert set(grown.vocabularies["tags"].ids.to_pylist()) >= {tag for _, tags in after for tag in tags}
    old, new = (t.transform(one) for t in (tokenizer, grown))
    for name in old.column_names[1:]:
        a, b = (np.asarray(rows[name].combine_chunks().flatten()) for rows in (old, new))
        given_before = a != 1  # unknown until now, it may be known from now on
        assert np.array_equal(a[given_before], b[given_before], equal_nan=a.dtype.kind == "f"), name


def test_items_first_met_have_rows_of_which_nothing_is_known(declare: Declare, log: pa.Table, items: pa.Table) -> None:
    schema = declare()
    tokenizer = Tokenizer.fit(schema, log, items)
    later = log.slice(0, 1).set_column(log.schema.get_field_index("sku"), "sku", pa.array(["kite"]))
    grown = grow(tokenizer, clean(later, schema).events)
    table, before = grown.items, tokenizer.items
    assert len(table) == len(before) + 1 == len(table.text) == len(table.vectors) == len(table.count)
    assert table.ids.ids[-1].as_py() == "kite"
    assert (table.text[-1].as_py(), table.categories["colour"][-1]) == ("", 0)
    assert not table.vectors[-1].any()
    assert np.array_equal(table.vectors[:-1], before.vectors)


def test_items_of_a_newer_table_come_with_what_it_says_of_them(
    declare: Declare, log: pa.Table, items: pa.Table
) -> None:
    schema = declare()
    tokenizer = Tokenizer.fit(schema, log, items)
    newer = pa.table({"sku": ["sled", "tea", "drum"], "colour": ["red", "black", None], "title": ["Sled", "?", "Milk"]})
    later = pa.concat_tables([log.slice(0, 2)]).set_column(4, "sku", pa.array(["kite", "sled"]))
    grown = grow(tokenizer, clean(later, schema).events, newer)
    table, known = grown.items, len(tokenizer.items)
    assert table.ids.ids.slice(known - 2).to_pylist() == ["drum", "sled", "kite"]
    assert table.text.slice(known).to_pylist() == ["Milk", "Sled", ""]
    colours = table.vocabularies["colour"].decode(table.categories["colour"])
    assert colours.slice(known).to_pylist() == [None, "red", None]
    assert np.array_equal(table.vectors[:known], tokenizer.items.vectors)
    assert np.array_equal(table.vectors[known], table.vectors[2 + table.ids.ids.to_pylist().index("milk")])
    assert grown.prefix_fingerprint(sizes_of(tokenizer)) == tokenizer.fingerprint


def test_a_day_without_anything_new_leaves_the_tokenizer_as_it_is(shop: EventSchema) -> None:
    log = table([("tea", ["a"]), ("tea", ["a"])])
    tokenizer = Tokenizer.fit(shop, log)
    assert grow(tokenizer, clean(log, shop).events) is tokenizer
    assert grow(tokenizer, clean(log.slice(0, 0), shop).events) is tokenizer


@given(log=st.lists(ids, max_size=40), cuts=st.lists(st.integers(0, 40), max_size=6), admit=st.integers(1, 4))
@settings(max_examples=60)
def test_many_small_appends_admit_what_one_big_append_admits(log: list[Any], cuts: list[int], admit: int) -> None:
    """The same ids, the same others waiting as often; codes in the order of admission, by first sight within one."""
    schema = EventSchema.from_dict(
        {**SCHEMA, "entities": {"product": {"column": "sku", "candidates": True, "admit": admit}}}
    )
    fitted = Tokenizer.fit(schema, table([("tea", []), ("milk", [])]))
    rows = table([(sku, []) for sku in log], at=100)
    whole = grow(fitted, clean(rows, schema).events)
    edges = [0, *sorted(min(cut, len(log)) for cut in cuts), len(log)]
    parts, admitted = fitted, list(fitted.items.ids.ids.to_pylist())
    met = ["tea", "milk"]
    for begin, end in itertools.pairwise(edges):
        before, parts = parts, grow(parts, clean(rows.slice(begin, end - begin), schema).events)
        assert parts.items.ids.prefix_hash(len(before.items.ids)) == before.items.ids.prefix_hash()
        assert parts.prefix_fingerprint(sizes_of(before)) == before.fingerprint
        met += [sku for sku in log[begin:end] if sku]
        admitted += [s for s in dict.fromkeys(met) if s not in admitted and met.count(s) >= admit]
    assert parts.items.ids.ids.to_pylist() == admitted
    assert sorted(admitted) == sorted(whole.items.ids.ids.to_pylist())
    one, other = (t.items.ids for t in (whole, parts))
    assert one.waiting_hash == other.waiting_hash
    assert dict(zip(one.waiting.ids.to_pylist(), one.waiting.counts.tolist(), strict=True)) == {
        sku: met.count(sku) for sku in met if met.count(sku) < admit
    }
    since = [dict(zip(v.ids.to_pylist(), v.first_seen.tolist(), strict=True)) for v in (one, other)]
    assert since[0] == since[1]  # the time of first sight, however long an id waited


def test_who_waits_is_saved_and_changes_the_state_but_no_fingerprint(shop: EventSchema, tmp_path: Path) -> None:
    tokenizer = Tokenizer.fit(shop, table([("tea", ["a"]), ("tea", ["a"]), ("rope", ["a"])]))
    later = grow(tokenizer, clean(table([("wax", ["a"])], at=50), shop).events)
    assert later.fingerprint == tokenizer.fingerprint
    assert later.state != tokenizer.state
    later.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.fingerprint, loaded.state) == (later.fingerprint, later.state)
    assert loaded.items.ids is loaded.vocabularies["product"]
    waiting = loaded.items.ids.waiting
    assert (waiting.ids.to_pylist(), waiting.counts.tolist(), waiting.first.tolist()) == (
        ["rope", "wax"],
        [1, 1],
        [2, 50],
    )
    grown = grow(loaded, clean(table([("wax", ["a"]), ("rope", ["a"])], at=90), shop).events)
    assert grown.items.ids.ids.to_pylist() == ["tea", "rope", "wax"]
    assert len(grown.items.ids.waiting) == 0


def test_a_model_keeps_no_ids_that_wait(shop: EventSchema, tmp_path: Path) -> None:
    tokenizer = Tokenizer.fit(shop, table([("tea", ["a"]), ("tea", ["b"]), ("rope", ["a"])]))
    settled = tokenizer.without_waiting()
    settled.save(tmp_path)
    assert settled.fingerprint == Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint
    assert not list(tmp_path.glob("waiting.*"))


def test_damage_to_who_waits_is_found(shop: EventSchema, tmp_path: Path) -> None:
    tokenizer = Tokenizer.fit(shop, table([("tea", ["a"]), ("tea", ["b"]), ("rope", ["a"])]))
    tokenizer.save(tmp_path)
    path = tmp_path / "waiting.product.arrow"
    other = Tokenizer.fit(shop, table([("tea", ["a"]), ("tea", ["b"]), ("wax", ["a"])]))
    other.items.ids.save_waiting(path)
    with pytest.raises(VocabularyError, match="is damaged: its files don't have the fingerprint that it states"):
        Tokenizer.load(tmp_path)
    path.unlink()
    with pytest.raises(VocabularyError, match=r"waiting\.product\.arrow is no vocabulary"):
        Tokenizer.load(tmp_path)


def test_a_lower_threshold_of_a_later_revision_holds_for_who_waits(shop: EventSchema) -> None:
    tokenizer = Tokenizer.fit(shop, table([("tea", ["a"]), ("tea", ["b"]), ("rope", ["a"])]))
    entities = {"product": {"column": "sku", "candidates": True, "buckets": 8}}
    lower = under(tokenizer, EventSchema.from_dict({**SCHEMA, "revision": 2, "entities": entities}))
    grown = grow(lower, clean(table([("tea", [])], at=9), shop).events)
    assert grown.items.ids.ids.to_pylist() == ["tea", "rope"]


def test_an_item_that_waited_and_is_then_listed_was_met_when_it_was(declare: Declare, log: pa.Table) -> None:
    schema = declare(entities={"product": {"column": "sku", "candidates": True, "admit": 3}, "coupon": {}})
    listed = pa.table({"sku": ["tea", "milk"], "colour": ["green", "white"], "title": ["Tea", "Milk"]})
    tokenizer = Tokenizer.fit(schema, log, listed)
    ids = tokenizer.items.ids
    milk = ids.ids.to_pylist().index("milk")  # twice before the split, and three are needed
    assert ids.counts[milk] == 0
    assert ids.first_seen[milk] == clock("2024-02-28T09:15")
    assert "milk" not in ids.waiting.ids.to_pylist()
    grown = grow(tokenizer, clean(log.slice(0, 0), schema).events, pa.table({name: [v] for name, v in SOAP.items()}))
    assert grown.items.ids.first_seen[grown.items.ids.ids.to_pylist().index("soap")] == clock("2024-03-09T23:30")


SOAP = {"sku": "soap", "colour": "white", "title": "Soap"}


def clock(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
