from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from safetensors.numpy import load_file

from tokenization.content import WIDTH, ItemTable, TextEncoder
from tokenization.counting import Seen
from tokenization.errors import SourceError, VocabularyError
from tokenization.ids import Ids
from tokenization.rules import ItemsRule
from tokenization.vocabulary import ABSENT, FIRST, Vocabulary

RULE = ItemsRule(id="sku", categories=("colour",), text=("title", "colour"))


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


@pytest.fixture(scope="module")
def seen() -> Vocabulary:
    return Vocabulary.fit(Seen.of(Ids.of(pa.array(["tea", "rope", "tea"]), "sku"), np.array([3.0, 1.0, 2.0])))


def test_vectors_have_length_one_and_no_text_has_none(encoder: TextEncoder) -> None:
    vectors = encoder.encode(["green tea", "", "whole milk", " "])
    assert vectors.shape == (4, WIDTH)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1, np.linalg.norm(vectors[3])], atol=1e-6)


def test_what_means_the_same_lies_close(encoder: TextEncoder) -> None:
    dog, cat, screw = encoder.encode(["dry dog food", "canned cat food", "wood screws"])
    assert dog @ cat > dog @ screw + 0.2


def test_capitals_do_not_matter(encoder: TextEncoder) -> None:
    shout, whisper = encoder.encode(["FRZN PIZZA", "frzn pizza"])
    np.testing.assert_array_equal(shout, whisper)


def test_a_text_has_one_vector_whatever_stands_beside_it(encoder: TextEncoder) -> None:
    texts = [f"item number {i} of {i % 7}" for i in range(5000)]
    reported: list[tuple[int, int]] = []
    vectors = encoder.encode(texts, lambda done, total: reported.append((done, total)))
    np.testing.assert_array_equal(vectors[[4999, 17]], encoder.encode([texts[4999], texts[17]]))
    assert reported == [(4096, 5000), (5000, 5000)]


def test_a_vector_is_the_mean_of_the_pieces_of_its_text(encoder: TextEncoder) -> None:
    home = Path(importlib.util.find_spec("wordllama").origin).parent  # type: ignore[union-attr, arg-type]
    table = load_file(home / "weights" / "l2_supercat_256.safetensors")["embedding.weight"].astype(np.float32)
    pieces = tokenizers.Tokenizer.from_file(str(home / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    for text in ("green tea", "frozen pizza 12 oz", "dog food - dry"):
        mean = table[pieces.encode(text, add_special_tokens=False).ids].mean(axis=0)
        np.testing.assert_allclose(encoder.encode([text])[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_without_the_package_the_mend_is_told(tmp_path: Path) -> None:
    """In an interpreter that has every package but this one."""
    for package in Path(np.__file__).parents[1].iterdir():
        if not package.name.startswith("wordllama"):
            (tmp_path / package.name).symlink_to(package)
    script = "from tokenization.content import TextEncoder; TextEncoder()"
    path = f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", script], env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert "text vectors need the package wordllama; run: pip install 'userfm[text]'" in ran.stderr


def test_rows_are_codes_seen_items_first_then_the_others_by_id(seen: Vocabulary, items: pa.Table) -> None:
    table = ItemTable.build(seen, items, RULE)
    assert table.ids.ids.to_pylist() == ["rope", "tea", "cocoa", "milk", "soap", "wax"]
    assert len(table) == 8
    assert table.count.tolist() == [0, 0, 1, 2, 0, 0, 0, 0]
    assert table.first_seen[FIRST : FIRST + 2].tolist() == [1.0, 2.0]
    assert np.isnan(np.delete(table.first_seen, [2, 3])).all()


def test_text_and_categories_belong_to_their_item(seen: Vocabulary, items: pa.Table, encoder: TextEncoder) -> None:
    table = ItemTable.build(seen, items, RULE)
    code = dict(zip(table.ids.ids.to_pylist(), range(FIRST, len(table)), strict=True))
    assert table.text[code["tea"]].as_py() == "Green TEA green"
    assert table.text[code["rope"]].as_py() == ""
    assert table.text[code["soap"]].as_py() == ""
    np.testing.assert_array_equal(table.vectors[code["milk"]], encoder.encode(["Milk white"])[0])
    colour = table.categories["colour"]
    assert colour[code["wax"]] == colour[code["milk"]] >= FIRST
    assert colour[code["soap"]] == colour[code["rope"]] == ABSENT
    assert table.category_sizes == {"colour": 5}
    assert not table.vectors[:FIRST].any()


def test_the_order_of_the_items_table_has_no_influence(seen: Vocabulary, items: pa.Table) -> None:
    backwards = items.take(pa.array(range(len(items) - 1, -1, -1)))
    first, second = ItemTable.build(seen, items, RULE), ItemTable.build(seen, backwards, RULE)
    assert first.ids.ids.equals(second.ids.ids)
    assert first.text.equals(second.text)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(first.categories["colour"], second.categories["colour"])


def test_no_text_is_declared_and_none_is_there(seen: Vocabulary, items: pa.Table) -> None:
    table = ItemTable.build(seen, items, ItemsRule(id="sku"))
    assert table.vectors.shape == (8, 0)
    assert ItemTable.bare(seen).vectors.shape == (4, 0)


def test_items_without_an_id_or_with_one_id_twice_are_refused(seen: Vocabulary, items: pa.Table) -> None:
    with pytest.raises(SourceError, match="the items table has sku 'tea' 2 times; keep one row an item"):
        ItemTable.build(seen, pa.concat_tables([items, items.slice(1, 1)]), RULE)
    nameless = items.set_column(0, "sku", pa.array(["wax", None, "milk", "soap", "cocoa"]))
    with pytest.raises(SourceError, match="row 1 of the items table has no sku"):
        ItemTable.build(seen, nameless, RULE)


def test_items_and_events_may_write_one_id_as_number_and_as_text(items: pa.Table) -> None:
    numbers = Vocabulary.fit(Seen.of(Ids.of(pa.array([7, 5]), "sku"), np.zeros(2)))
    named = items.slice(0, 2).set_column(0, "sku", pa.array(["7", "9"]))
    assert ItemTable.build(numbers, named, ItemsRule(id="sku")).ids.ids.to_pylist() == [5, 7, 9]
    words = Vocabulary.fit(Seen.of(Ids.of(pa.array(["7", "x"]), "sku"), np.zeros(2)))
    named = named.set_column(0, "sku", pa.array([7, 9]))
    assert ItemTable.build(words, named, ItemsRule(id="sku")).ids.ids.to_pylist() == ["7", "x", "9"]
    with pytest.raises(SourceError, match="the items table has sku 'wax', but in the events it is a number"):
        ItemTable.build(numbers, items, RULE)


def test_what_is_no_text_is_refused_by_name(seen: Vocabulary, items: pa.Table) -> None:
    with pytest.raises(SourceError, match="column 'title' of the items table holds list"):
        ItemTable.build(seen, items.set_column(2, "title", pa.array([[1]] * 5)), RULE)


@pytest.mark.parametrize("rule", [RULE, ItemsRule(id="sku")], ids=["with text", "without"])
def test_saving_and_loading_changes_nothing(rule: ItemsRule, seen: Vocabulary, items: pa.Table, tmp_path: Path) -> None:
    table = ItemTable.build(seen, items, rule)
    table.save(tmp_path)
    loaded = ItemTable.load(tmp_path)
    assert loaded.ids.ids.equals(table.ids.ids)
    assert loaded.text.equals(table.text)
    assert loaded.category_sizes == table.category_sizes
    np.testing.assert_array_equal(loaded.vectors, table.vectors)
    np.testing.assert_array_equal(loaded.count, table.count)
    for name, codes in table.categories.items():
        np.testing.assert_array_equal(loaded.categories[name], codes)


def test_a_folder_without_items_is_named(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="holds no item table"):
        ItemTable.load(tmp_path)
