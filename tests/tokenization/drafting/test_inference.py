"""A draft says what a log seems to be, and is a declaration that tokenizes the log it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenization.strategies import columns as odd_names
from tokenization.drafting.inference import draft
from tokenization.drafting.yaml_draft import written
from tokenization.errors import SchemaError
from tokenization.events.cleaning import clean
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import Kind
from tokenization.sources.tables import read_events
from tokenization.tokenizer.tokenizer import Tokenizer

ROWS = 2_000


@pytest.fixture(scope="module")
def clicks() -> pa.Table:
    """A log with a column of every kind, and some that are nothing."""
    draw = np.random.default_rng(0)
    users = draw.integers(0, 100, ROWS)
    seconds = np.sort(draw.integers(1_600_000_000, 1_630_000_000, ROWS))
    words = ["red", "green", "shoe", "hat", "big", "wool"]
    return pa.table(
        {
            "eventId": [f"e{row}" for row in range(ROWS)],
            "visitorid": users,
            "timestamp": seconds * 1000,
            "event": draw.choice(["view", "addtocart", "transaction"], ROWS),
            "itemid": draw.integers(0, 300, ROWS),
            "Device Type": draw.choice(["phone", "web"], ROWS),
            "country": np.array(["fr", "de", "it"])[users % 3],
            "dwell_ms": draw.integers(0, 9000, ROWS),
            "tags": [draw.choice(["a", "b", "c", "d"], 2).tolist() for _ in range(ROWS)],
            "embedding": draw.normal(size=(ROWS, 8)).tolist(),
            "query": [" ".join(draw.choice(words, 4)) for _ in range(ROWS)],
            "page_url": [f"/{number}" for number in draw.integers(0, 1500, ROWS)],
            "price": draw.random(ROWS) * 10,
            "session_id": [f"s{u}-{t // 86400}" for u, t in zip(users, seconds, strict=True)],
            "published": pa.array(seconds - 500, pa.timestamp("s")),
            "nothing": pa.nulls(ROWS),
            "always": ["x"] * ROWS,
            "payload": [{"a": 1}] * ROWS,
            "yes": draw.choice(["no", "on"], ROWS),
        }
    )


def declared(table: pa.Table, folder: Path, **told: str) -> EventSchema:
    """The draft of a log as the schema that its file declares."""
    file = folder / "schema.yaml"
    file.write_text(written(draft(table, **told), "logs/clicks.parquet"), encoding="utf-8")
    return EventSchema.from_yaml(file)


def test_a_log_with_everything_is_drafted_and_tokenized(clicks: pa.Table, tmp_path: Path) -> None:
    schema = declared(clicks, tmp_path)
    assert (schema.name, schema.user, schema.event_id, schema.group) == ("clicks", "visitorid", "eventId", None)
    assert schema.time is not None
    assert (schema.time.column, schema.time.unit) == ("timestamp", "ms")
    assert schema.action is not None
    assert schema.action.column == "event"
    assert schema.candidates == "item"
    assert {name: rule.kind for name, rule in schema.context.items()} == {
        "Device_Type": Kind.CATEGORY,
        "country": Kind.CATEGORY,
        "query": Kind.TEXT,
    }
    assert {name: rule.kind for name, rule in schema.outcome.items()} == {
        "dwell_ms": Kind.DURATION,
        "tags": Kind.SET,
        "embedding": Kind.VECTOR,
        "page_url": Kind.ID,
        "price": Kind.NUMBER,
        "published": Kind.TIMESTAMP,
        "yes": Kind.CATEGORY,
    }
    assert schema.outcome["dwell_ms"].unit == "ms"
    tokens = Tokenizer.fit(schema, clicks).transform(clicks)
    assert tokens.num_rows == 100
    assert {"tags.0", "embedding.0", "query.0", "price.value"} <= set(tokens.column_names)


def test_when_items_were_released_is_pointed_to_the_items_table(clicks: pa.Table) -> None:
    item = pc.index_in(clicks["itemid"], value_set=pc.unique(clicks["itemid"])).cast(pa.int64())
    since = pc.multiply(item, 86_400).cast(pa.timestamp("s"))
    clicks = clicks.set_column(clicks.column_names.index("published"), "published", since)
    text = " ".join(written(draft(clicks), "clicks.parquet").replace("#", " ").split())
    assert "be the `released` that the `age` of items is counted from published: {kind: timestamp}" in text
    assert "released: COLUMN" in text


def test_every_key_says_why_and_every_column_left_out_is_named(clicks: pa.Table) -> None:
    text = written(draft(clicks), "clicks.parquet")
    for column in ("session_id", "nothing", "always", "payload"):
        assert f"# - {column}: " in text
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  ") and "kind:" in line:
            assert lines[number - 1].startswith("  # "), line
    for section in ("# items:", "# users:", "# merge:", "# yaml-language-server: $schema="):
        assert section in text
    uncommented = "\n".join(
        line.removeprefix("# ") for line in lines if line.startswith(("# items", "# users", "#   id", "#   cat"))
    )
    assert set(yaml.safe_load(uncommented)) == {"items", "users"}


def test_baskets_coupons_and_days_are_found_by_their_values(log: pa.Table, tmp_path: Path) -> None:
    many = pa.concat_tables(
        [log.set_column(0, "customer", pa.array([f"{u}{copy}" for u in log["user"].to_pylist()])) for copy in range(5)]
    )
    schema = declared(many.rename_columns(["when" if name == "at" else name for name in many.column_names]), tmp_path)
    assert schema.group == "basket"
    assert set(schema.entities) == {"sku", "coupon"}
    assert schema.candidates == "sku"
    assert schema.action is not None
    assert schema.action.column == "what"  # half of its values and more are verbs
    assert set(schema.outcome) == {"quantity", "shelf", "store"}  # one basket has lines of two stores


def test_actions_without_a_time_of_day_are_known_to_the_day(tmp_path: Path) -> None:
    stamps = ["2024-03-01T10:30:00", "2024-03-02", "2024-03-05T09:00:01", "2024-03-07"]
    table = pa.table(
        {"user": ["a", "a", "b", "b"], "time": stamps, "action": ["buy", "mail", "buy", "mail"], "item": [1, 2, 1, 2]}
    )
    schema = declared(table, tmp_path)
    assert schema.action is not None
    assert schema.action.day_level == ("mail",)


def test_context_that_differs_inside_a_basket_is_none(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    basket = np.repeat(np.arange(200), 3)
    table = pa.table(
        {
            "user_id": basket % 20,
            "ts": pa.array(1_700_000_000 + basket * 60, pa.timestamp("s")),
            "basket_id": basket,
            "product_id": draw.integers(0, 30, 600),
            "store": basket % 4,
            "device": draw.choice(["a", "b", "c"], 600),
        }
    )
    schema = declared(table, tmp_path)
    assert (set(schema.context), set(schema.outcome)) == ({"store"}, {"device"})
    assert "Though its name sounds like context" in written(draft(table), "x.csv").replace("though", "Though")


def test_positions_stand_in_for_times(tmp_path: Path) -> None:
    table = pa.table({"user_id": [1, 1, 1, 2, 2, 2], "item_id": [5, 6, 7, 5, 7, 8], "position": [0, 1, 2, 0, 1, 2]})
    schema = declared(table, tmp_path)
    assert (schema.position, schema.split.last_items) == ("position", 1)
    assert Tokenizer.fit(schema, table).transform(table).num_rows == 2


def test_without_names_values_decide_and_the_draft_says_so(tmp_path: Path) -> None:
    users = np.repeat(np.arange(50), 8)
    table = pa.table(
        {
            "x": np.random.default_rng(0).integers(0, 300, 400),
            "y": users,
            "z": pa.array(1_700_000_000 + np.tile(np.arange(8), 50) * 3600, pa.timestamp("s")),
        }
    )
    schema = declared(table, tmp_path)
    assert (schema.user, schema.clock, schema.entities["x"].column) == ("y", "z", "x")
    assert "its rows stand together in the order of time" in " ".join(written(draft(table), "x").split("\n# ")).lower()
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(400)))
    assert draft(shuffled).user.why.endswith("CHECK, or use --user")
    assert declared(shuffled, tmp_path, user="y", item="x").user == "y"


@pytest.mark.parametrize(
    ("columns", "told", "sentence"),
    [
        ({"item": [1, 2], "time": ["2024-01-01"] * 2, "note": ["a", "b"]}, {}, "no column can be the user"),
        (
            {"user": [1, 1], "item": [1, 2]},
            {},
            "no column holds times, nor says that it orders events; name it by --ti",
        ),
        ({"user": [1, 1, 2], "time": ["2024-01-01"] * 3, "price": [1.5, 2.5, 3.5]}, {}, "no column can be the item"),
        ({"user": [1, 1], "item": [1, 2]}, {"time": "tme"}, "the log has no column 'tme'; known are user, item"),
        ({"user": [1, 1], "item": ["a", "b"]}, {"time": "item"}, "column 'item' holds neither times nor numbers"),
        ({"user": [1, 1], "item": [1, 2]}, {"time": "item", "user": "item"}, "column 'item' can be only one of"),
        ({"user": [[1], [2]], "item": [1, 2], "at": [1, 2]}, {"user": "user", "time": "at"}, "'user' can't hold ids"),
        ({"user": [1], "item": [1]}, {}, "fewer than two rows"),
    ],
)
def test_what_can_not_be_found_is_asked_for(columns: dict[str, Any], told: dict[str, str], sentence: str) -> None:
    with pytest.raises(SchemaError, match=sentence):
        draft(pa.table(columns), **told)


_cells = st.one_of(
    st.lists(st.integers(-5, 5) | st.none(), min_size=8, max_size=8),
    st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=8, max_size=8),
    st.lists(st.sampled_from(["a", "b c d e", "007", "1.5", ""]) | st.none(), min_size=8, max_size=8),
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.lists(st.lists(st.sampled_from(["u", "v"]), max_size=3), min_size=8, max_size=8),
    st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=8, max_size=8),
    st.lists(st.dates().filter(lambda day: 1990 < day.year < 2100), min_size=8, max_size=8),
)


@given(more=st.dictionaries(odd_names, _cells, max_size=5))
@settings(max_examples=30)
def test_whatever_else_a_log_holds_its_draft_tokenizes_it(
    more: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = {
        "user_id": ["a", "a", "a", "a", "b", "b", "b", "b"],
        "timestamp": [f"2024-01-0{day}T0{day}:00:00" for day in (1, 2, 3, 4, 1, 2, 3, 4)],
        "item_id": [1, 2, 3, 1, 2, 3, 1, 2],
    }
    table = pa.table({**more, **log})
    schema = declared(table, tmp_path_factory.mktemp("drawn"))
    assert {"timestamp", "item_id"} <= set(schema.columns)
    events = clean(read_events(table, schema), schema).events
    assert Tokenizer.fit(schema, events).transform(events).num_rows >= 1
