from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.events.cleaning import clean
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.growing import grow
from tokenization.tokenizer.tokenizer import Tokenizer

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
    sizes = {name: vocabulary.size for name, vocabulary in tokenizer.vocabularies.items()}
    assert grown.prefix_fingerprint(sizes) == tokenizer.fingerprint
    known = set(tokenizer.items.ids.ids.to_pylist())
    often = [sku for sku in dict.fromkeys(s for s, _ in after) if sku and [s for s, _ in after].count(sku) >= 2]
    fresh = [sku for sku in often if sku not in known]
    assert grown.items.ids.ids.to_pylist()[len(known) :] == fresh
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
    sizes = {name: vocabulary.size for name, vocabulary in tokenizer.vocabularies.items()}
    sizes |= {f"item.{name}": size for name, size in tokenizer.items.category_sizes.items()}
    assert grown.prefix_fingerprint(sizes) == tokenizer.fingerprint


def test_a_day_without_anything_new_leaves_the_tokenizer_as_it_is(shop: EventSchema) -> None:
    log = table([("tea", ["a"]), ("tea", ["b"])])
    tokenizer = Tokenizer.fit(shop, log)
    assert grow(tokenizer, clean(log, shop).events) is tokenizer
    assert grow(tokenizer, clean(log.slice(0, 0), shop).events) is tokenizer
