"""What may change from one revision to the next, and what is said of what may not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings

from tests.tokenization.strategies import declarations
from tokenization.errors import SchemaError
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.evolution import DECIDES_NO_TOKEN, Step, changes, deciding, origins, refuse_unless_compatible

Declare = Callable[..., EventSchema]
OUTCOME = {"quantity": {"kind": "number"}, "shelf": {"kind": "category"}}
ENTITIES = {"product": {"column": "sku", "candidates": True}, "coupon": {"column": "coupon"}}


def refusal(old: EventSchema, new: EventSchema) -> str:
    with pytest.raises(SchemaError) as caught:
        refuse_unless_compatible(old, new)
    return str(caught.value)


def test_nothing_changed_is_no_change(schema: EventSchema) -> None:
    assert changes(schema, schema) == ()
    refuse_unless_compatible(schema, schema)


def test_a_facet_may_come_go_and_get_another_name(schema: EventSchema, declare: Declare) -> None:
    new = declare(
        revision=2,
        context={"store": {"kind": "category"}, "device": {"kind": "category"}},
        outcome={"amount": {"kind": "number", "column": "quantity", "was": "quantity"}},
        targets={"product": 1.0, "amount": 0.1},
        retired=["shelf"],
    )
    found = changes(schema, new)
    assert {(change.step, change.key, change.before, change.after) for change in found if change.raises} == {
        (Step.ADDED, "context.device", "", "category of the context"),
        (Step.RENAMED, "outcome.amount", "quantity", "amount"),
        (Step.RETIRED, "outcome.shelf", "category of the outcome", ""),
    }
    assert not any(change.refused for change in found)
    refuse_unless_compatible(schema, new)
    assert origins(schema, new)["amount"] == "quantity"
    assert origins(schema, new)["device"] is None
    assert "shelf" not in origins(schema, new)


def test_an_entity_an_action_and_a_facet_of_time_may_too(declare: Declare) -> None:
    old = declare(action=None)
    time = {"column": "at", "zone": "America/New_York", "facets": ["hour", "month"]}
    entities = {"article": {"column": "sku", "candidates": True, "was": "product"}, "coupon": {"column": "coupon"}}
    action = {"column": "what", "aliases": {"purchase": "buy"}}
    new = declare(revision=7, action=action, time=time, entities=entities, targets={"article": 1.0})
    steps = {change.key: change.step for change in changes(old, new) if change.raises}
    assert steps == {
        "action": Step.ADDED,
        "entities.article": Step.RENAMED,
        "time.facets.month": Step.ADDED,
        "time.facets.weekday": Step.RETIRED,
        "time.facets.gap": Step.RETIRED,
    }
    refuse_unless_compatible(old, new)


def test_values_may_get_another_spelling_and_a_facet_another_column(schema: EventSchema, declare: Declare) -> None:
    action = {"column": "what", "day_level": ["redeem", "mail"], "aliases": {"purchase": "buy"}}
    outcome = {**OUTCOME, "shelf": {"kind": "category", "column": "rack", "aliases": {"upper": "top"}, "admit": 3}}
    new = declare(revision=2, action=action, outcome=outcome)
    refuse_unless_compatible(schema, new)
    assert {change.key for change in changes(schema, new) if change.raises} == {
        "action.aliases",
        "action.day_level",
        "outcome.shelf.column",
        "outcome.shelf.aliases",
        "outcome.shelf.admit",
    }


def test_what_decides_no_token_needs_no_revision(schema: EventSchema, declare: Declare) -> None:
    new = declare(name="store", targets={"product": 2.0}, split={"fraction": 0.5}, items=None, event_id="row")
    assert {change.key for change in changes(schema, new)} == {"name", "targets", "split", "items", "event_id"}
    refuse_unless_compatible(schema, new)


def test_since_when_items_exist_may_change_for_items_to_come(declare: Declare) -> None:
    aged = {"column": "at", "zone": "America/New_York", "facets": ["hour", "age"]}
    items = {"categories": ["colour"], "text": ["title"]}
    for time, raises in ((aged, True), ({**aged, "facets": ["hour"]}, False)):
        old = declare(time=time)
        new = declare(time=time, items={**items, "released": "since"}, revision=2)
        (change,) = (change for change in changes(old, new) if change.key != "revision")
        assert (change.key, change.before, change.after) == ("items.released", "", "since")
        assert change.raises is raises
        assert ("items that have a code keep the age they have" in change.note) is raises
        refuse_unless_compatible(old, new)
    assert "items.released was changed, so it must be raised" in refusal(
        declare(time=aged), declare(time=aged, items={**items, "released": "since"})
    )


def test_what_is_fitted_once_is_said_where_it_is_added(schema: EventSchema, declare: Declare) -> None:
    kinds = ("category", "id", "set", "text", "timestamp", "number", "duration", "vector")
    outcome = {**OUTCOME, **{f"new_{kind}": {"kind": kind} for kind in kinds}}
    new = declare(revision=2, outcome=outcome, users={"categories": ["town"]})
    notes = {change.key: change.note for change in changes(schema, new) if change.note}
    again = "until the whole log is tokenized again, since appending fits nothing"
    assert notes == {
        "outcome.new_number": f"all its values are in one bin {again}",
        "outcome.new_duration": f"all its values are in one bin {again}",
        "outcome.new_vector": f"it has no centroids, so its codes are absent, {again}",
        "users.town": f"no user has a value of it {again}",
    }
    assert not any(change.note for change in changes(new, new))


@pytest.mark.parametrize("key", DECIDES_NO_TOKEN)
def test_keys_that_decide_no_token_are_free_in_an_append_too(key: str, schema: EventSchema, declare: Declare) -> None:
    time = {"column": "at", "zone": "America/New_York"}
    other = {
        "name": declare(name="store"),
        "revision": declare(revision=2),
        "event_id": declare(event_id="row"),
        "items": declare(items=None),
        "targets": declare(targets={"product": 2.0}),
        "feedback": declare(feedback={"redeem": 0.5}),
        "split": declare(split={"fraction": 0.5}),
        "time.latest": declare(time={**time, "latest": "2024-05-01"}),
        "time.late": declare(time={**time, "late": "now"}),
    }[key]
    assert [change.key for change in changes(schema, other)] == [key]
    assert not any(change.raises for change in changes(schema, other))
    assert deciding(other) == deciding(schema)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"revision": 1, "context": {}, "retired": ["store"]}, "revision: context.store was retired, so it must be raised"),
    ({"context": {}}, "context.store: it is gone; list 'store' under `retired`, or say `was: store`"),
    ({"outcome": {**OUTCOME, "shelf": {"kind": "id"}}}, "outcome.shelf: a category of the outcome can't become an id"),
    (
        {"outcome": {**OUTCOME, "rack": {"kind": "id", "was": "shelf"}, "shelf": {"kind": "category"}}},
        "outcome.rack: a category of the outcome can't become an id of the outcome; give it another name",
    ),
    (
        {"context": {}, "outcome": {**OUTCOME, "store": {"kind": "category"}}},
        "outcome.store: a category of the context can't become a category of the outcome",
    ),
    (
        {"entities": {"product": ENTITIES["product"]}, "outcome": {**OUTCOME, "coupon": {"kind": "id"}}},
        "outcome.coupon: an entity can't become an id of the outcome",
    ),
    (
        {"entities": {"coupon": {"candidates": True}}, "targets": None, "retired": ["product"]},
        "entities.coupon.candidates: the model ranks the same type",
    ),
    (
        {"entities": {"coupon": {}, "good": {"candidates": True}}, "targets": None, "retired": ["product"]},
        "entities.product: the candidates can't go; keep 'product', or say `was: product`",
    ),
    ({"user": "who"}, "user: tokens made before would mean another thing; keep it"),
    ({"time": {"column": "at", "zone": "Asia/Tokyo"}}, "time.zone: tokens made before would mean another thing"),
    ({"time": {"column": "then", "zone": "America/New_York"}}, "time: tokens made before would mean another thing"),
    ({"group": None}, "group: tokens made before would mean another thing"),
    ({"merge": None}, "merge.same_item_in_group: a corpus merges events by one rule"),
    ({"outcome": {**OUTCOME, "quantity": {"kind": "number", "combine": "max"}}}, "outcome.quantity.combine: tokens"),
    ({"outcome": {**OUTCOME, "shelf": {"kind": "category", "buckets": 64}}}, "outcome.shelf.buckets: tokens made"),
    ({"action": {"column": "what"}}, "action.day_level: 'redeem' has taken effect at the end of its day"),
    (
        {"time": None, "position": "at", "action": {"column": "what"}, "split": {"last_items": 1}},
        "time: tokens made before would mean another thing",
    ),
]


@pytest.mark.parametrize(("keys", "sentence"), REFUSED, ids=[sentence[:40] for _, sentence in REFUSED])
def test_what_would_make_old_tokens_mean_other_things_is_refused_by_name(
    schema: EventSchema, declare: Declare, keys: dict[str, Any], sentence: str
) -> None:
    said = refusal(schema, declare(**{"revision": 2, **keys}))
    assert sentence in said
    assert "\n" not in said


def test_an_older_revision_does_not_follow_a_newer_one(declare: Declare) -> None:
    assert refusal(declare(revision=3), declare(revision=2)).startswith("revision: it was 3 and is 2; give the older")


def test_a_name_that_was_retired_does_not_come_back(declare: Declare) -> None:
    old = declare(revision=2, retired=["device"])
    new = declare(revision=3, context={"store": {"kind": "category"}, "device": {"kind": "id"}})
    assert "context.device: an earlier revision retired the name 'device'" in refusal(old, new)


def test_a_renaming_is_history_once_the_new_name_is_there(declare: Declare) -> None:
    first = declare(context={"store": {"kind": "category"}})
    second = declare(revision=2, context={"shop": {"kind": "category", "was": "store"}})
    third = declare(revision=3, context={"shop": {"kind": "category", "was": "store"}, "store": {"kind": "id"}})
    assert origins(first, second)["shop"] == "store"
    assert origins(second, third) | {"shop": "shop", "store": None} == origins(second, third)
    assert origins(first, third) | {"shop": "store", "store": None} == origins(first, third)
    for old, new in ((first, second), (second, third), (third, third)):
        refuse_unless_compatible(old, new)


def test_two_facets_may_swap_their_names(declare: Declare) -> None:
    old = declare(context={"a": {"kind": "category"}, "b": {"kind": "category"}})
    swapped = {"a": {"kind": "category", "was": "b"}, "b": {"kind": "category", "was": "a"}}
    found = origins(old, declare(revision=2, context=swapped))
    assert (found["a"], found["b"]) == ("b", "a")


@given(values=declarations())
@settings(max_examples=40)
def test_any_declaration_follows_itself_and_grows_by_a_facet(values: dict[str, Any]) -> None:
    old = EventSchema.from_dict(values)
    assert changes(old, old) == ()
    grown = copy.deepcopy(values) | {"revision": values.get("revision", 1) + 1}
    grown["outcome"] = {**values.get("outcome", {}), "quite_new": {"kind": "vector"}}
    new = EventSchema.from_dict(grown)
    refuse_unless_compatible(old, new)
    assert [change.key for change in changes(old, new)] == ["revision", "outcome.quite_new"]


@given(first=declarations(), second=declarations())
@settings(max_examples=60)
def test_any_two_declarations_are_compared_in_plain_words(first: dict[str, Any], second: dict[str, Any]) -> None:
    found = changes(EventSchema.from_dict(first), EventSchema.from_dict(second))
    assert all("\n" not in change.refused for change in found)
    assert all(isinstance(text, str) for change in found for text in (change.key, change.before, change.after))
