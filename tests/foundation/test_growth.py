"""A model that has grown says of what it knew the same, and begins with new items where their neighbours are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foundation.config import ModelConfig
from foundation.embedding import ItemContent, item_content
from foundation.errors import ModelError
from foundation.growth import UNKNOWN, grown, longer, neighbours_rows
from foundation.jagged import EventBatch, Requests
from foundation.model import FoundationModel
from tokenization.corpus.corpus import Corpus

MORE = 3  # new items: like item 5, like item 6, and one of a new category that nobody met


@pytest.fixture(scope="module")
def content(kiosk_corpus: Corpus) -> ItemContent:
    items = kiosk_corpus.tokenizer.items
    told = item_content(items, torch.from_numpy(items.count).float())

    def with_new(rows_V: Tensor, last: Tensor) -> Tensor:
        return torch.cat([rows_V, rows_V[[5, 6]], last[None]])

    category_VC = with_new(told.category_VC, told.category_VC.amax(0) + 1)
    return replace(
        told,
        category_VC=category_VC,
        text_row_V=with_new(told.text_row_V, told.text_row_V[5]),
        recent_V=torch.cat([told.recent_V, torch.tensor([4.0, 9.0, 0.0])]),
        media_VM=with_new(told.media_VM, told.media_VM[5]),
        semantic_VL=with_new(told.semantic_VL, told.semantic_VL[5]),
    )


@pytest.fixture(scope="module")
def larger(config: ModelConfig) -> ModelConfig:
    item = config.item
    categories = tuple((name, size + 1) for name, size in item.categories)
    codes = item.codes + MORE
    facets = tuple(replace(one, size=codes if one.name == item.facet else one.size + 2) for one in config.facets)
    return replace(config, facets=facets, item=replace(item, codes=codes, categories=categories))


@pytest.fixture(scope="module")
def new(model: FoundationModel, larger: ModelConfig, content: ItemContent) -> FoundationModel:
    return grown(model, larger, content).eval()


def test_what_was_known_is_said_as_before(
    model: FoundationModel, new: FoundationModel, batch: EventBatch, asked: Requests
) -> None:
    with torch.no_grad():
        before, after = model(batch, asked), new(batch, asked)
        torch.testing.assert_close(new.user_vectors(after), model.user_vectors(before))
        known = new.scores(after, new.item_vectors())[:, : model.config.item.codes]
        torch.testing.assert_close(known, model.scores(before, model.item_vectors()))


def test_a_value_that_is_new_is_read_as_the_unknown_was(new: FoundationModel, config: ModelConfig) -> None:
    for name, table in new.events.tables.items():
        size = config.facets[int(name)].size
        assert torch.equal(table.weight[size:], table.weight[UNKNOWN].expand(2, -1))


def test_a_new_item_begins_where_items_of_the_same_content_are_and_as_popular_as_it_is(
    new: FoundationModel, content: ItemContent, config: ModelConfig
) -> None:
    rows, first = new.tower.id.weight.detach(), config.item.codes
    for place, like in enumerate((5, 6)):
        alike = torch.cosine_similarity(rows[first + place], rows[like], dim=0)
        others = torch.cosine_similarity(rows[first + place], rows[7:first], dim=1)
        assert alike > others.mean()
    popularity = new.item_vectors(torch.tensor([first, first + 1]))[:, -1].exp()
    torch.testing.assert_close(popularity, content.recent_V[[first, first + 1]] + 0.1)
    assert not rows[first + 2].any()


def test_rows_of_neighbours_are_weighted_by_how_near_they_are() -> None:
    known, rows = torch.eye(3), torch.tensor([[1.0], [2.0], [4.0]])
    asked = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8], [0.0, 0.0, 0.0]])
    found = neighbours_rows(asked, known, rows)[:, 0]
    assert found[0] == pytest.approx(1.0)
    share = torch.softmax(10 * torch.tensor([0.6, 0.8]), 0)
    assert found[1] == pytest.approx(float(share @ torch.tensor([2.0, 4.0])))
    assert found[2] == 0.0
    assert not neighbours_rows(asked, known[:0], rows[:0]).any()


def test_weights_grow_in_every_dimension_by_the_unknown() -> None:
    weight = torch.arange(6.0).view(2, 3)
    assert longer(weight, torch.Size([3, 4])).tolist() == [[0, 1, 2, 1], [3, 4, 5, 4], [3, 4, 5, 4]]
    assert torch.equal(longer(weight, weight.shape), weight)


def test_only_vocabularies_grow(model: FoundationModel, larger: ModelConfig, content: ItemContent) -> None:
    with pytest.raises(ModelError, match="grows by codes of its vocabularies alone"):
        grown(model, replace(larger, width=32), content)
    shorter = replace(model.config, item=replace(model.config.item, codes=model.config.item.codes - 1))
    with pytest.raises(ModelError, match="is larger in the model than what it should grow to"):
        grown(model, shorter, content)
