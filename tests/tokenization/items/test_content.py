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

from tokenization.codes.counting import Seen
from tokenization.codes.vocabulary import ABSENT, FIRST, Vocabulary
from tokenization.errors import SourceError, VocabularyError
from tokenization.ids import Ids
from tokenization.items.content import WIDTH, ItemTable, TextEncoder
from tokenization.items.modalities import METADATA_WIDTH
from tokenization.schema.rules import ItemsRule, SemanticIdsRule

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
    script = "from tokenization.items.content import TextEncoder; TextEncoder()"
    path = f"{tmp_path}{os.pathsep}{Path(__file__).parents[3]}"
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


RICH = ItemsRule(
    id="sku",
    categories=("colour",),
    text=("title",),
    vectors=("image", "sound"),
    semantic_ids=SemanticIdsRule(levels=2, codes=2),
)


@pytest.fixture(scope="module")
def illustrated(items: pa.Table) -> pa.Table:
    image = pa.array([[0, 2.0], [3, 4], None, [0, 0], [5, 0]], pa.list_(pa.float32()))
    sound = pa.array([None, [1.0, 1, 1], None, None, [0, 0, -2]])
    return items.append_column("image", image).append_column("sound", sound)


def test_vectors_of_every_modality_stand_side_by_side(
    seen: Vocabulary, illustrated: pa.Table, encoder: TextEncoder
) -> None:
    table = ItemTable.build(seen, illustrated, RICH)
    code = dict(zip(table.ids.ids.to_pylist(), range(FIRST, len(table)), strict=True))
    assert {name: matrix.shape for name, matrix in table.media.items()} == {"image": (8, 2), "sound": (8, 3)}
    assert table.vectors.shape == (8, WIDTH + 5)
    np.testing.assert_allclose(
        table.vectors[code["tea"]], np.r_[encoder.encode(["Green TEA"])[0], 0.6, 0.8, [3**-0.5] * 3], atol=1e-6
    )
    assert not table.vectors[:FIRST].any()
    assert not table.vectors[code["rope"]].any()  # bought, and not in the items table
    np.testing.assert_allclose(table.media["image"][code["wax"]], [0, 1])


def test_semantic_ids_are_of_all_content_and_fitted_on_what_was_seen(seen: Vocabulary, illustrated: pa.Table) -> None:
    table = ItemTable.build(seen, illustrated, RICH)
    assert table.semantic is not None
    assert table.semantic.codes.shape == (8, 2)
    assert table.semantic.quantizer.width == WIDTH + 5
    known = table.vectors.any(axis=1)
    assert (table.semantic.codes[known] >= 0).all()
    assert (table.semantic.codes[~known] == -1).all()
    changed = illustrated.set_column(2, "title", pa.array(["new", "Green TEA", "other", None, "words"]))
    other = ItemTable.build(seen, changed, RICH)
    assert other.semantic is not None
    for name, array in table.semantic.quantizer.to_arrays().items():
        np.testing.assert_array_equal(other.semantic.quantizer.to_arrays()[name], array)
    assert ItemTable.build(seen, illustrated, RULE).semantic is None


def test_an_item_table_grows_at_its_end(seen: Vocabulary, illustrated: pa.Table, tmp_path: Path) -> None:
    table = ItemTable.build(seen, illustrated.slice(0, 4), RICH)
    newer = pa.concat_tables([illustrated, illustrated.slice(1, 1).set_column(0, "sku", pa.array(["zinc"]))])
    newer = newer.set_column(2, "title", pa.array(["Ski wax", "other", "Milk", None, "Cocoa powder", "Green TEA"]))
    grown = table.grow(newer, RICH)
    assert grown.ids.ids.to_pylist() == [*table.ids.ids.to_pylist(), "cocoa", "zinc"]
    assert grown.semantic is not None
    assert table.semantic is not None
    old = len(table)
    np.testing.assert_array_equal(grown.vectors[:old], table.vectors)
    np.testing.assert_array_equal(grown.semantic.codes[:old], table.semantic.codes)
    np.testing.assert_array_equal(grown.categories["colour"][:old], table.categories["colour"])
    assert grown.text.slice(0, old).equals(table.text)
    tea = FIRST + grown.ids.ids.to_pylist().index("tea")
    np.testing.assert_array_equal(grown.vectors[-1], grown.vectors[tea])
    assert grown.semantic.codes[-1].tolist() == grown.semantic.codes[tea].tolist()
    assert grown.semantic.last[-1] > grown.semantic.last[tea]
    assert grown.category_sizes == {"colour": table.category_sizes["colour"] + 1}  # brown
    assert len(grown.count) == len(grown.first_seen) == len(grown) == old + 2
    same = grown.grow(newer, RICH)
    assert same.ids.ids.equals(grown.ids.ids)
    same.save(tmp_path)
    loaded = ItemTable.load(tmp_path)
    assert loaded.semantic is not None
    np.testing.assert_array_equal(loaded.semantic.codes, grown.semantic.codes)
    np.testing.assert_array_equal(loaded.vectors, grown.vectors)
    assert list(loaded.media) == ["image", "sound"]


def test_metadata_is_a_modality_that_new_items_have_without_fitting(seen: Vocabulary, items: pa.Table) -> None:
    rule = ItemsRule(id="sku", metadata=("colour",), semantic_ids=SemanticIdsRule(levels=2, codes=2))
    whole = ItemTable.build(seen, items, rule)
    assert whole.vectors.shape == (8, METADATA_WIDTH)
    assert whole.semantic is not None
    assert whole.semantic.quantizer.width == METADATA_WIDTH
    grown = ItemTable.build(seen, items.slice(0, 3), rule).grow(items, rule)
    assert set(grown.media) == {"metadata"}
    place = {item: row for row, item in enumerate(whole.ids.ids.to_pylist(), start=FIRST)}
    rows = [place[item] for item in grown.ids.ids.to_pylist()]
    np.testing.assert_array_equal(grown.vectors[FIRST:], whole.vectors[rows])


def test_new_items_need_no_media(seen: Vocabulary, illustrated: pa.Table) -> None:
    table = ItemTable.build(seen, illustrated, RICH)
    bare = pa.table(
        {"sku": ["zinc"], "colour": ["grey"], "title": ["Zinc"], "image": pa.nulls(1), "sound": pa.nulls(1)}
    )
    assert not table.grow(bare, RICH).vectors[-1, WIDTH:].any()
    wide = bare.set_column(3, "image", pa.array([[1.0, 2, 3]]))
    with pytest.raises(SourceError, match="column 'image' of the items table has vectors of length 3, before it was 2"):
        table.grow(wide, RICH)


def test_a_table_written_before_there_were_media_loads(seen: Vocabulary, items: pa.Table, tmp_path: Path) -> None:
    """Without media nothing new is written, so these are the files of older tables."""
    ItemTable.build(seen, items, RULE).save(tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"items.arrow", "text_vectors.arrow", "item_ids.arrow", "category.colour.arrow"}
    loaded = ItemTable.load(tmp_path)
    assert (loaded.media, loaded.semantic) == ({}, None)
