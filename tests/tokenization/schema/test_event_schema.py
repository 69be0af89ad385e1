from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from tokenization.errors import SchemaError
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import Kind

WHOLE = """\
schema: 1
name: shop
user: who
time: {column: at, zone: Europe/Paris}
action: {column: what, day_level: [redeem]}
entities:
  product: {column: sku, candidates: true}
  coupon: {column: coupon}
context:
  store: {column: store_id, kind: category}
outcome:
  quantity: {kind: number}
items:
  categories: [colour]
targets: {product: 1.0, quantity: 0.5}
split: {time: 2024-03-20, validation: 2024-03-01}
"""


@pytest.fixture
def said(tmp_path: Path) -> Callable[..., str]:
    """What is said of the whole schema after some text in it was replaced, without the folder's name."""

    def _said(*changes: tuple[str, str]) -> str:
        text = WHOLE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "shop.yaml"
        path.write_text(text)
        with pytest.raises(SchemaError) as caught:
            EventSchema.from_yaml(path)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return _said


def test_a_declaration_reads_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(WHOLE)
    schema = EventSchema.from_yaml(path)
    assert EventSchema.from_dict(schema.to_dict()) == schema


def test_what_is_left_out_has_the_obvious_value(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(WHOLE)
    schema = EventSchema.from_yaml(path)
    assert schema.outcome["quantity"].column == "quantity"
    assert schema.items is not None
    assert schema.items.id == "sku"
    assert schema.group is None
    assert not schema.merge.same_item_in_group
    assert schema.split.time == datetime(2024, 3, 20, tzinfo=UTC)


def test_columns_and_facets_are_listed_in_order_and_once(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(WHOLE.replace("quantity: {kind", "quantity: {column: store_id, kind"))
    schema = EventSchema.from_yaml(path)
    assert schema.columns == ("who", "at", "what", "sku", "coupon", "store_id")
    assert schema.facet_names == ("action", "product", "coupon", "store", "quantity")
    assert schema.candidates == "product"
    assert schema.outcome["quantity"].kind is Kind.NUMBER


def test_a_split_not_declared_is_the_last_tenth(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text("\n".join(line for line in WHOLE.splitlines() if not line.startswith(("split", "targets"))))
    schema = EventSchema.from_yaml(path)
    assert schema.split.fraction == 0.9
    assert schema.weights == {"product": 1.0}


def test_a_schema_can_not_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(WHOLE)
    with pytest.raises(ValidationError):
        EventSchema.from_yaml(path).name = "other"  # type: ignore[misc]


MISTAKES = [
    ("context:", "contxt:", "shop.yaml:9: contxt: there is no such key; did you mean 'context'?"),
    ("zone:", "zoen:", "shop.yaml:4: time.zoen: there is no such key; did you mean 'zone'?"),
    (
        "kind: number",
        "kind: numbr",
        "shop.yaml:12: outcome.quantity.kind: 'numbr' is none of "
        "category, id, number, duration, timestamp, text, set, vector; did you mean 'number'?",
    ),
    (
        "quantity: {kind",
        "quantity: {knd",
        "shop.yaml:12: outcome.quantity.knd: there is no such key; did you mean 'kind'? (and 1 more)",
    ),
    ("quantity: 0.5", "quantty: 0.5", "targets.quantty: no facet is called 'quantty'; did you mean 'quantity'?"),
    ("quantity: 0.5", "store: 0.5", "shop.yaml:15: targets.store: context is known at the request"),
    ("quantity: 0.5", "quantity: 0", "shop.yaml:15: targets.quantity: a target's weight must be above 0"),
    ("quantity: 0.5", "quantity: much", "shop.yaml:15: targets.quantity: input should be a valid number"),
    ("product: 1.0, ", "", "shop.yaml:15: targets: the candidates (product) must be among the targets"),
    ("user: who\n", "", "shop.yaml: user: this key is missing"),
    ("candidates: true", "candidates: false", "shop.yaml:6: entities: no entity has `candidates: true`"),
    ("column: coupon", "column: coupon, candidates: true", "shop.yaml:6: entities: product, coupon have"),
    ("schema: 1", "schema: 2", "shop.yaml:1: schema: '2' is none of 1"),
    ("Europe/Paris", "Europe/Pari", "shop.yaml:4: time.zone: no time zone is called 'Europe/Pari'"),
    ("time: {column: at", "position: at\ntim: {column: at", "there is no such key; did you mean 'time'?"),
    ("user: who", "user: who\nposition: at", "shop.yaml:5: time: give either time or position"),
    ("  store:", "  product:", "shop.yaml:10: context.product: two facets have this name; rename one"),
    ("  store:", "  hour:", "shop.yaml:10: context.hour: this name is taken by userfm itself; choose another"),
    ("  store:", "  my.store:", "shop.yaml:10: context.my.store: a facet's name has only letters, digits, - and _"),
    ("validation: 2024-03-01", "validation: 2024-04-01", "shop.yaml:16: split: validation must be a time before"),
    ("validation: 2024-03-01", "last_items: 1", "shop.yaml:16: split: give exactly one of time, fraction, last_items"),
    (
        "time: 2024-03-20",
        "time: someday",
        "shop.yaml:16: split.time: 'someday' is no time; write one such as 2024-03-20",
    ),
    ("name: shop", "name: shop\nname: shop", "shop.yaml:3: name is given twice (first on line 2)"),
    ("name: shop", "name: [shop", "shop.yaml:3: this is not YAML"),
    ("context:\n  store", "context:\n  - store", "shop.yaml:9: context: input should be a valid dictionary"),
]


@pytest.mark.parametrize(("old", "new", "sentence"), MISTAKES, ids=[new.strip() or old for old, new, _ in MISTAKES])
def test_every_mistake_names_file_line_key_and_mend(
    said: Callable[..., str], old: str, new: str, sentence: str
) -> None:
    message = said((old, new))
    assert sentence in message
    assert message.startswith("shop.yaml")
    assert "\n" not in message


def test_positions_have_no_days_and_no_dates(said: Callable[..., str]) -> None:
    as_position = ("time: {column: at, zone: Europe/Paris}", "position: at")
    assert "action.day_level: only a log with time" in said(as_position)
    assert "split.time: positions are no times" in said(as_position, (", day_level: [redeem]", ""))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "can't read this schema: No such file"),
        (b"", "the schema is empty; start from examples"),
        (b"\xff\xfe", "can't read this schema: it is not UTF-8 text"),
        (b"- a\n- b\n", "input should be"),
        (b"name: \x01\n", "this is not YAML"),
    ],
)
def test_a_file_that_is_no_schema_is_named(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "shop.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SchemaError, match=r"shop\.yaml") as caught:
        EventSchema.from_yaml(path)
    assert sentence in str(caught.value)


def test_from_python_a_mistake_is_told_without_a_file() -> None:
    with pytest.raises(SchemaError, match=r"schema: entties: there is no such key; did you mean 'entities'\?"):
        EventSchema.from_dict({"schema": 1, "name": "x", "user": "u", "position": "p", "entties": {}})


def test_the_example_is_a_whole_schema() -> None:
    schema = EventSchema.from_yaml(Path(__file__).parents[3] / "examples" / "complete_journey" / "schema.yaml")
    assert schema.candidates == "product"
    assert schema.weights == {"product": 1.0, "sales_value": 0.1, "action": 0.1}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a/b", r"'/' is in it, and its values are kept in a file of that name; rename it"),
        ("a\nb", r"'\\n' is in it, and its values"),
        ("", "it has no letter"),
        ("\N{SNOWMAN}" * 34, "it is longer than 100 bytes"),
    ],
)
@pytest.mark.parametrize("key", ["items.categories", "users.categories", "users.numbers"])
def test_a_column_that_can_name_no_file_is_told_with_the_reason(
    declare: Callable[..., EventSchema], key: str, name: str, why: str
) -> None:
    section, inner = key.split(".")
    with pytest.raises(SchemaError, match=rf"schema: {key}: the column .* can't name an attribute, since {why}"):
        declare(**{section: {inner: [name]}})
    for harmless in ("dept. (new), é #1", "..", "a b", "\N{SNOWMAN}"):
        assert getattr(declare(**{section: {inner: [harmless]}}), section) is not None


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ({"semantic_ids": {}}, r"items\.semantic_ids.*of content; declare `text`, `metadata` or `vectors`"),
        ({"metadata": ["a"], "vectors": ["metadata"]}, r"items\.vectors.*'metadata' is what the vectors of `metadata`"),
        ({"encoder": "some/model"}, r"items\.encoder.*no text is declared for it to read"),
        ({"text": ["title"], "semantic_ids": {"method": "rqvae"}}, r"items\.semantic_ids\.method.*rq_vae"),
        ({"text": ["title"], "semantic_ids": {"codes": 1}}, r"items\.semantic_ids\.codes"),
    ],
)
def test_items_that_can_not_be_are_refused(
    declare: Callable[..., EventSchema], items: dict[str, object], told: str
) -> None:
    with pytest.raises(SchemaError, match=told):
        declare(items={"categories": ["colour"], **items})


def test_semantic_ids_are_declared_with_defaults(declare: Callable[..., EventSchema]) -> None:
    found = declare(items={"vectors": ["image"], "semantic_ids": {}}).items
    assert found is not None
    assert found.semantic_ids is not None
    assert (found.semantic_ids.levels, found.semantic_ids.codes, found.semantic_ids.method) == (
        3,
        256,
        "residual_kmeans",
    )


def test_feedback_weighs_declared_actions_by_their_own_names(said: Callable[..., str]) -> None:
    end = "split: {time: 2024-03-20"

    def with_feedback(told: str, *changes: tuple[str, str]) -> str:
        return said((end, f"feedback: {told}\n{end}"), *changes)

    assert "feedback.skip" in with_feedback("{skip: -1}")
    assert "feedback.skip" in with_feedback("{skip: .inf}")
    assert "feedback.skip" in with_feedback("{skip: never}")
    action = "action: {column: what, day_level: [redeem]}"
    assert "feedback: it weighs actions, and none is declared" in with_feedback("{skip: 0}", (f"{action}\n", ""))
    aliased = (action, "action: {column: what, aliases: {pass: skip}}")
    assert "feedback.pass: this is another spelling of 'skip'; weigh that" in with_feedback("{pass: 0}", aliased)
