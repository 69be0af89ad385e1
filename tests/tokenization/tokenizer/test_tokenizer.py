from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.codes.vocabulary import UNKNOWN
from tokenization.errors import SchemaError, SourceError, VocabularyError
from tokenization.events.cleaning import clean
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.tables import from_rows
from tokenization.tokenizer.facets import Role
from tokenization.tokenizer.tokenizer import Tokenizer

Declare = Callable[..., EventSchema]
GOLDEN = Path(__file__).parents[1] / "golden" / "tokens.json"


@pytest.fixture(scope="session")
def tokenizer(schema: EventSchema, log: pa.Table, items: pa.Table) -> Tokenizer:
    return Tokenizer.fit(schema, log, items)


def of_user(tokens: pa.Table, user: object) -> dict[str, list[object]]:
    return next(row for row in tokens.to_pylist() if row["user_id"] == user)


def test_facets_are_read_in_one_order(tokenizer: Tokenizer) -> None:
    assert [(facet.name, facet.role) for facet in tokenizer.facets] == [
        ("action", Role.ACTION),
        ("product", Role.ENTITY),
        ("coupon", Role.ENTITY),
        ("store", Role.CONTEXT),
        ("hour", Role.CONTEXT),
        ("weekday", Role.CONTEXT),
        ("gap", Role.CONTEXT),
        ("quantity", Role.OUTCOME),
        ("shelf", Role.OUTCOME),
    ]


def test_every_code_is_smaller_than_the_size_of_its_facet(tokenizer: Tokenizer, log: pa.Table) -> None:
    tokens = tokenizer.transform(log)
    for facet in tokenizer.facets:
        codes = pc.list_flatten(tokens[facet.name]).to_numpy()
        assert codes.dtype == np.int32
        assert 0 <= codes.min() <= codes.max() < facet.size, facet.name


def test_lines_of_one_item_in_a_basket_are_one_token(tokenizer: Tokenizer, log: pa.Table) -> None:
    ann = of_user(tokenizer.transform(log), "ann")
    assert ann["events"] == [1, 2, 1, 1, 1, 1]
    assert ann["quantity.value"] == [1.0, 5.0, None, 1.0, 4.0, 1.0]
    assert ann["group"] == [0, 0, 1, 2, 3, 3]


def test_nothing_merges_where_nothing_is_declared_to(declare: Declare, log: pa.Table, items: pa.Table) -> None:
    apart = Tokenizer.fit(declare(merge=None), log, items).transform(log)
    assert pc.sum(pc.list_value_length(apart["events"])).as_py() == len(log)


def test_the_redemption_comes_after_the_basket_of_its_day(tokenizer: Tokenizer, log: pa.Table) -> None:
    ann = of_user(tokenizer.transform(log), "ann")
    redeem = tokenizer.vocabularies["action"].encode(pa.array(["redeem"]))[0]
    assert ann["action"].index(redeem) == 2
    assert ann["time"][1] < ann["time"][2] < ann["time"][3]


def test_two_unknown_items_stay_two_tokens(tokenizer: Tokenizer, log: pa.Table) -> None:
    cem = of_user(tokenizer.transform(log), "cem")
    assert cem["product"].count(UNKNOWN) == 1  # rope; wax is in the items table
    fresh = log.slice(10, 2).set_column(4, "sku", pa.array(["x", "y"]))
    cem = of_user(tokenizer.transform(fresh), "cem")
    assert cem["product"] == [UNKNOWN, UNKNOWN]
    assert sorted(cem["quantity.value"]) == [1.0, 5.0]


def test_tokens_are_these_to_the_last_bit(tokenizer: Tokenizer, log: pa.Table) -> None:
    """To accept a change on purpose: write what is compared here to the golden file, and say why in the log."""
    golden = json.loads(GOLDEN.read_text())
    tokens = tokenizer.transform(log)
    assert {name: str(tokens.schema.field(name).type) for name in tokens.column_names} == golden["types"]
    assert tokens.to_pylist() == golden["tokens"]
    assert tokenizer.fingerprint == golden["fingerprint"]


@given(st.permutations(range(12)), st.lists(st.integers(0, 12), max_size=4))
@settings(max_examples=40)
def test_neither_the_order_of_the_rows_nor_their_chunks_change_a_token(
    tokenizer: Tokenizer, schema: EventSchema, log: pa.Table, order: list[int], cuts: list[int]
) -> None:
    shuffled = log.take(pa.array(order))
    borders = sorted({0, *cuts, len(log)})
    pieces = [shuffled.slice(a, b - a) for a, b in itertools.pairwise(borders)]
    chunked = pa.concat_tables(pieces)
    assert tokenizer.transform(chunked).equals(tokenizer.transform(log))
    assert Tokenizer.fit(schema, chunked).fingerprint == Tokenizer.fit(schema, log).fingerprint


row = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["ann", "dot"]),
        "at": st.sampled_from(["2024-03-01T15:00", "2024-03-01T15:01", "2024-03-02", "2024-03-21"]),
        "what": st.sampled_from(["buy", "redeem", "view"]),
        "basket": st.sampled_from([None, 1, 2]),
        "sku": st.sampled_from([None, "tea", "milk", "x", "y"]),
        "store": st.sampled_from([None, "s1", "s8"]),
        "quantity": st.sampled_from([None, 0.0, 0.1, 1e9, -3.3]),
        "shelf": st.sampled_from([None, "top", "end", "odd"]),
    }
)


@given(st.lists(row, min_size=1, max_size=12), st.randoms())
@settings(max_examples=60)
def test_any_log_gives_the_same_tokens_in_any_order_and_conserves_its_sums(  # type: ignore[no-untyped-def]
    tokenizer: Tokenizer, rows: list[dict[str, object]], random
) -> None:
    tokens = tokenizer.transform(from_rows(rows, tokenizer.schema))
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert tokenizer.transform(from_rows(shuffled, tokenizer.schema)).equals(tokens)
    assert pc.sum(pc.list_flatten(tokens["events"])).as_py() == len(rows)
    total = pc.sum(pc.list_flatten(tokens["quantity.value"])).as_py() or 0.0
    assert total == pytest.approx(sum(r["quantity"] or 0.0 for r in rows), rel=1e-6)  # type: ignore[misc]


@given(st.lists(row, min_size=1, max_size=12))
@settings(max_examples=40)
def test_one_user_alone_gets_the_tokens_that_the_whole_log_gave(
    tokenizer: Tokenizer, rows: list[dict[str, object]]
) -> None:
    together = tokenizer.transform(from_rows(rows, tokenizer.schema))
    for number, user in enumerate(together["user_id"].to_pylist()):
        alone = tokenizer.transform(from_rows([r for r in rows if r["user"] == user], tokenizer.schema))
        assert alone.to_pylist() == together.slice(number, 1).to_pylist()


def changed_after_the_split(log: pa.Table) -> pa.Table:
    """Every event after the split becomes another one: other user, item, store, number, still after it."""
    late = pc.greater_equal(log["at"], "2024-03-20")
    changes = {
        "user": "zoe",
        "what": "steal",
        "at": "2024-07-01T00:00:00",
        "sku": "gold",
        "store": "s0",
        "quantity": -1e9,
        "shelf": "none",
    }
    for name, value in changes.items():
        place = log.column_names.index(name)
        log = log.set_column(place, name, pc.if_else(late, pa.scalar(value, log[name].type), log[name]))
    return log


@pytest.mark.parametrize("with_items", [True, False], ids=["with items", "without items"])
def test_nothing_that_is_fitted_looks_past_the_split(
    schema: EventSchema, log: pa.Table, items: pa.Table, with_items: bool
) -> None:
    given_items = items if with_items else None
    honest = Tokenizer.fit(schema, log, given_items)
    other = Tokenizer.fit(schema, changed_after_the_split(log), given_items)
    assert honest.fingerprint == other.fingerprint
    assert honest.numbers == other.numbers
    for name, vocabulary in honest.vocabularies.items():
        assert vocabulary.ids.equals(other.vocabularies[name].ids), name
        np.testing.assert_array_equal(vocabulary.counts, other.vocabularies[name].counts)
        np.testing.assert_array_equal(vocabulary.first_seen, other.vocabularies[name].first_seen)
    np.testing.assert_array_equal(honest.items.vectors, other.items.vectors)
    assert honest.items.text.equals(other.items.text)


def test_a_basket_that_ends_after_the_split_is_not_fitted_on(schema: EventSchema) -> None:
    rows = [
        {"user": "ann", "at": "2024-03-19T12:00", "what": "buy", "basket": 1, "sku": "tea"},
        {"user": "ann", "at": "2024-03-19T23:00", "what": "buy", "basket": 2, "sku": "early"},
        {"user": "ann", "at": "2024-03-20T01:00", "what": "buy", "basket": 2, "sku": "late"},
        {"user": "ann", "at": "2024-03-19", "what": "redeem", "coupon": "c1"},
    ]
    tokenizer = Tokenizer.fit(schema, from_rows(rows, schema))
    assert tokenizer.vocabularies["product"].ids.to_pylist() == ["tea"]
    assert len(tokenizer.vocabularies["coupon"]) == 0  # the day of the 19th ends on the 20th, UTC


def test_the_last_items_of_every_user_are_not_fitted_on(declare: Declare, log: pa.Table) -> None:
    schema = declare(split={"last_items": 1}, items=None)
    tokenizer = Tokenizer.fit(schema, log)
    assert tokenizer.split.last_items == 1
    assert set(tokenizer.vocabularies["product"].ids.to_pylist()) == {"tea", "milk", "soap", "bread"}


def test_a_log_by_position_has_no_clock(declare: Declare) -> None:
    schema = declare(time=None, position="at", action=None, group=None, split={"last_items": 1}, items=None)
    rows = [{"user": 1, "at": at, "sku": sku} for at, sku in enumerate([30, 10, 20, 10])]
    tokenizer = Tokenizer.fit(schema, from_rows(rows, schema))
    assert [f.name for f in tokenizer.facets] == ["product", "coupon", "store", "quantity", "shelf"]
    tokens = tokenizer.transform(from_rows(rows, schema)).to_pylist()[0]
    assert tokens["product"] == [2, 3, 4, 3]
    assert tokens["time"] == [0.0, 1.0, 2.0, 3.0]
    assert tokenizer.encode_context({"store": ["s1"]}, at=np.array([5.0])).shape == (1, 1)


def test_a_misspelt_day_level_action_is_refused_and_an_absent_one_is_not(declare: Declare, log: pa.Table) -> None:
    misspelt = declare(action={"column": "what", "day_level": ["reedem"]}, items=None)
    with pytest.raises(SchemaError, match=r"no event has the action 'reedem'; did you mean 'redeem'\?"):
        Tokenizer.fit(misspelt, log)
    absent = declare(action={"column": "what", "day_level": ["redeem", "mailing"]}, items=None)
    assert Tokenizer.fit(absent, log).vocabularies["action"].ids.to_pylist() == ["buy", "redeem"]


def test_feedback_of_an_action_that_no_event_has_is_refused(declare: Declare, log: pa.Table) -> None:
    with pytest.raises(SchemaError, match=r"feedback: no event has the action 'reedem'; did you mean 'redeem'\?"):
        Tokenizer.fit(declare(feedback={"reedem": 0.0}, items=None), log)


def test_feedback_is_kept_and_changes_no_token(declare: Declare, log: pa.Table, tmp_path: Path) -> None:
    plain, weighed = (Tokenizer.fit(declare(items=None, feedback=told), log) for told in (None, {"redeem": 0.0}))
    weighed.save(tmp_path / "tokenizer")
    assert Tokenizer.load(tmp_path / "tokenizer").schema.feedback == {"redeem": 0.0}
    assert plain.fingerprint == weighed.fingerprint
    assert plain.transform(log) == weighed.transform(log)


def test_actions_may_be_numbers(declare: Declare, log: pa.Table) -> None:
    coded = pc.if_else(pc.equal(log["what"], "redeem"), 2, 1)
    numbered = log.set_column(log.column_names.index("what"), "what", coded)
    schema = declare(action={"column": "what", "day_level": ["2", "gone"]}, items=None)
    ann = of_user(Tokenizer.fit(schema, numbered).transform(numbered), "ann")
    assert ann["time"][2] % 1 != 0  # the last microsecond of the day


def test_no_event_before_the_split_is_said(declare: Declare, log: pa.Table) -> None:
    with pytest.raises(SourceError, match="no event of 'shop' lies before the split"):
        Tokenizer.fit(declare(split={"time": "1999-01-01"}), log)


def test_no_events_are_no_rows(tokenizer: Tokenizer, schema: EventSchema, log: pa.Table) -> None:
    none = tokenizer.transform(log.slice(0, 0))
    assert none.num_rows == 0
    assert none.schema.equals(tokenizer.transform(log).schema)
    with pytest.raises(SourceError, match="no events to split"):
        Tokenizer.fit(schema, log.slice(0, 0))


def test_live_events_that_make_no_sense_are_refused_with_the_reason(tokenizer: Tokenizer) -> None:
    rows = [{"user": "ann", "at": "2024-03-01"}, {"user": "ann", "at": "never"}]
    with pytest.raises(SourceError, match="1 of 2 events make no sense, the first: at is no time"):
        tokenizer.transform(from_rows(rows, tokenizer.schema))


def test_a_request_is_encoded_as_the_event_that_follows_it(tokenizer: Tokenizer, log: pa.Table) -> None:
    ann = of_user(tokenizer.transform(log), "ann")
    names = [facet.name for facet in tokenizer.context_facets]
    assert names == ["store", "hour", "weekday", "gap"]
    at, previous = np.array([ann["time"][3]]), np.array([ann["time"][2]])
    codes = tokenizer.encode_context({"store": ["s2"]}, at, previous)
    assert codes.dtype == np.int32
    assert codes.tolist() == [[ann[name][3] for name in names]]


def test_what_a_request_does_not_say_is_absent(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_context({"store": [None, "s1", "s77"]})[:, 0].tolist()[::2] == [0, UNKNOWN]
    assert tokenizer.encode_context({"store": ["s1"]})[0, 1:].tolist() == [0, 0, 0]
    assert tokenizer.encode_context({}, at=np.array([0.0]))[0, 0] == 0
    assert tokenizer.encode_context({}).shape == (0, 4)


def test_numbers_may_be_context(declare: Declare, log: pa.Table) -> None:
    schema = declare(context={"quantity": {"kind": "number"}}, outcome={}, targets=None, items=None)
    tokenizer = Tokenizer.fit(schema, log)
    tokens = of_user(tokenizer.transform(log), "bob")
    codes = tokenizer.encode_context({"quantity": [tokens["quantity.value"][0], None]})
    assert codes[:, 0].tolist() == [tokens["quantity"][0], 0]


def test_an_unknown_or_uneven_context_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(SourceError, match=r"no context facet is called 'stor'; did you mean 'store'\?"):
        tokenizer.encode_context({"stor": ["s1"]})
    with pytest.raises(SourceError, match=r"the context columns have \[1, 2\] rows"):
        tokenizer.encode_context({"store": ["s1"]}, at=np.zeros(2))


def test_saving_and_loading_changes_nothing(tokenizer: Tokenizer, log: pa.Table, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    loaded = Tokenizer.load(tmp_path / "tokenizer")
    assert loaded.transform(log).equals(tokenizer.transform(log))
    assert loaded.facets == tokenizer.facets
    assert loaded.schema == tokenizer.schema
    assert loaded.split == tokenizer.split
    assert loaded.fingerprint == tokenizer.fingerprint
    assert {path.suffix for path in (tmp_path / "tokenizer").iterdir()} == {".json", ".arrow"}


def test_a_damaged_tokenizer_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="holds no tokenizer"):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    tokenizer.vocabularies["store"].grow(pa.array(["s5"])).save(tmp_path / "vocabulary.store.arrow")
    with pytest.raises(VocabularyError, match="is damaged"):
        Tokenizer.load(tmp_path)
    told = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({"format": told["format"]}))
    with pytest.raises(VocabularyError, match=r"its tokenizer.json has no fingerprint"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({**told, "format": 99}))
    with pytest.raises(VocabularyError, match="has tokenizer format 99, this userfm reads 2"):
        Tokenizer.load(tmp_path)


def test_the_fingerprint_covers_rules_and_not_aims(
    declare: Declare, tokenizer: Tokenizer, log: pa.Table, items: pa.Table
) -> None:
    aims = declare(name="other", targets={"product": 2.0})
    assert Tokenizer.fit(aims, log, items).fingerprint == tokenizer.fingerprint
    turned = {name: rule.model_dump() for name, rule in reversed(declare().entities.items())}
    for rules in (declare(merge=None), declare(entities=turned), declare(action={"column": "what"})):
        assert Tokenizer.fit(rules, log, items).fingerprint != tokenizer.fingerprint


def test_growth_leaves_the_fingerprint_of_the_prefix_alone(tokenizer: Tokenizer) -> None:
    sizes = {name: v.size for name, v in tokenizer.vocabularies.items()}
    sizes |= {f"item.{name}": v.size for name, v in tokenizer.items.vocabularies.items()}
    assert tokenizer.prefix_fingerprint(sizes) == tokenizer.fingerprint
    stores = tokenizer.vocabularies["store"].grow(pa.array(["s5"]))
    grown = replace(tokenizer, vocabularies={**tokenizer.vocabularies, "store": stores})
    assert grown.fingerprint != tokenizer.fingerprint
    assert grown.prefix_fingerprint(sizes) == tokenizer.fingerprint
    assert grown.prefix_fingerprint(sizes | {"store": stores.size}) == grown.fingerprint
    with pytest.raises(VocabularyError, match="ids, fewer than"):
        tokenizer.prefix_fingerprint(sizes | {"store": stores.size})


def test_cleaned_events_are_taken_as_they_are(tokenizer: Tokenizer, schema: EventSchema, log: pa.Table) -> None:
    events = clean(log, schema).events
    assert tokenizer.transform(events).equals(tokenizer.transform(log))
