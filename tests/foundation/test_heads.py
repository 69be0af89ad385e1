from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foundation.errors import ModelError
from foundation.heads import Heads, HomeHead, ItemToItemHead, SearchHead
from foundation.jagged import EventBatch
from foundation.repeat import FIRST_ITEM
from foundation.subgraph import Subgraph


@pytest.fixture(scope="module")
def subgraph(folder: Path) -> Subgraph:
    return Subgraph.from_pretrained(folder)


@pytest.fixture
def heads(subgraph: Subgraph) -> Heads:
    return Heads.untrained(subgraph)


def codes(subgraph: Subgraph, kind: str) -> list[int]:
    text = subgraph.tokenizer.items.text.to_pylist()
    return [code for code in range(FIRST_ITEM, len(text)) if text[code].startswith(kind)]


def test_home_starts_as_the_models_own_scores(heads: Heads, subgraph: Subgraph, batch: EventBatch) -> None:
    with torch.no_grad():
        assert torch.equal(heads.home(batch), subgraph.score(batch))


def test_home_weighs_scores_stored_vectors_and_popularity(heads: Heads, subgraph: Subgraph, batch: EventBatch) -> None:
    with torch.no_grad():
        heads.home_head.weight.copy_(torch.tensor([0.0, 2.0, 3.0]))
        expected = 2 * subgraph(batch) @ heads.item_VD.T + 3 * heads.popularity_V
        found = heads.home(batch)
    torch.testing.assert_close(found[:, FIRST_ITEM:], expected[:, FIRST_ITEM:])
    assert (found[:, :FIRST_ITEM] == -torch.inf).all()


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_what_is_no_candidate_stays_none_whatever_the_weights(weight: float) -> None:
    head = HomeHead()
    with torch.no_grad():
        head.weight.fill_(weight)
        found = head(torch.tensor([[-torch.inf, 1.0]]), torch.ones(1, 2), torch.ones(2))
    assert found[0, 0] == -torch.inf
    assert torch.isfinite(found[0, 1])


def test_search_finds_by_text_before_it_is_fitted(heads: Heads, subgraph: Subgraph) -> None:
    with torch.no_grad():
        found = heads.search(["cheese", "MILK", ""])
    for row, kind in enumerate(("cheese", "milk")):
        wanted = codes(subgraph, kind)
        assert set(found[row].topk(len(wanted)).indices.tolist()) == set(wanted)
    assert torch.isfinite(found[2, FIRST_ITEM:]).all()
    assert (found[:, :FIRST_ITEM] == -torch.inf).all()


def test_search_reads_the_taste_of_whoever_asks_once_it_is_fitted(heads: Heads, subgraph: Subgraph, batch) -> None:
    with torch.no_grad():
        users = subgraph(batch)[:2]
        before = heads.search(["cheese", "cheese"], users)
        assert torch.equal(before[0], before[1])
        assert heads.search_head is not None
        heads.search_head.taste += 1.0
        after = heads.search(["cheese", "cheese"], users)
    assert not torch.allclose(after[0, FIRST_ITEM:], after[1, FIRST_ITEM:])


def test_search_without_texts_says_what_to_declare(heads: Heads) -> None:
    with pytest.raises(ModelError, match=r"no text: declare `items\.text` in the schema and train again"):
        replace(heads, search_head=None).search(["cheese"])
    assert set(replace(heads, search_head=None).modules()) == {"home", "item_to_item"}


def test_an_item_never_goes_with_itself(heads: Heads) -> None:
    asked = torch.tensor([5, 9, 5])
    with torch.no_grad():
        found = heads.item_to_item(asked)
    assert found.shape == (3, len(heads.item_VD))
    assert (found[torch.arange(3), asked] == -torch.inf).all()
    assert torch.isfinite(found).sum() == 3 * (len(heads.item_VD) - FIRST_ITEM - 1)
    assert torch.equal(found[0], found[2])


def test_without_its_source_an_item_goes_with_what_is_popular(heads: Heads) -> None:
    heads.item_to_item_head.forget_source()
    with torch.no_grad():
        found = heads.item_to_item(torch.tensor([5]))[0]
    there = found > -torch.inf
    assert torch.equal(found[there], heads.popularity_V[there])


def test_what_goes_with_what_need_not_be_mutual(shake) -> None:
    head = shake(ItemToItemHead(4))
    item = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    there, back = (head(item[[a]], item[[b]], torch.zeros(1)) for a, b in ((0, 1), (1, 0)))
    assert not torch.isclose(there, back).item()


def test_query_and_item_start_from_one_map() -> None:
    head = SearchHead(6, width=4)
    assert torch.equal(head.query.weight, head.item.weight)
    assert head.query.weight is not head.item.weight


def test_heads_are_read_as_they_were_saved(
    heads: Heads, subgraph: Subgraph, folder: Path, tmp_path: Path, shake
) -> None:
    for module in heads.modules().values():
        shake(module)
    model = shutil.copytree(folder, tmp_path / "model")
    heads.save(model)
    loaded = Heads.load(model, subgraph)
    for name, module in heads.modules().items():
        for key, weight in module.state_dict().items():
            assert torch.equal(loaded.modules()[name].state_dict()[key], weight), (name, key)
    assert {path.name for path in (model / "heads").iterdir()} == {
        "home.safetensors",
        "search.safetensors",
        "item_to_item.safetensors",
    }


def test_heads_that_were_never_fitted_start_from_the_model(folder: Path, subgraph: Subgraph, tmp_path: Path) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(model / "heads")
    assert Heads.load(model, subgraph).home_head.weight.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["home", "search", "item_to_item"])
def test_a_flipped_bit_in_a_head_is_refused(folder: Path, subgraph: Subgraph, tmp_path: Path, name: str) -> None:
    path = shutil.copytree(folder, tmp_path / "model") / "heads" / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name}\.safetensors is damaged, or fitted on another model"):
        Heads.load(path.parents[1], subgraph)


@pytest.mark.parametrize("name", ["home", "search", "item_to_item"])
def test_a_torn_head_or_one_of_another_model_is_refused(
    folder: Path, subgraph: Subgraph, tmp_path: Path, name: str
) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    path = model / "heads" / f"{name}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(ModelError, match=rf"{name}\.safetensors does not fit this model: fit the heads again"):
        Heads.load(model, subgraph)
    other = "home" if name != "home" else "item_to_item"
    path.write_bytes((folder / "heads" / f"{other}.safetensors").read_bytes())
    with pytest.raises(ModelError, match=rf"{name}\.safetensors does not fit this model: fit the heads again"):
        Heads.load(model, subgraph)
