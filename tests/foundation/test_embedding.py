from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foundation.config import ModelConfig
from foundation.embedding import EventEmbedding, ItemContent, ItemTower, known_rows, table_of
from foundation.model import FoundationModel


def grown(content: ItemContent, categories: int) -> ItemContent:
    """The same items and one more, of categories that came with it."""
    new = torch.full((1, content.category_VC.shape[1]), categories)
    return ItemContent(
        torch.cat([content.category_VC, new]),
        content.text_UX,
        torch.cat([content.text_row_V, torch.zeros(1, dtype=torch.int64)]),
        torch.cat([content.recent_V, torch.ones(1)]),
        torch.cat([content.media_VM, torch.ones(1, content.media_VM.shape[1])]),
        torch.cat([content.semantic_VL, torch.full((1, content.semantic_VL.shape[1]), categories)]),
    )


def content_of(model: FoundationModel) -> ItemContent:
    tower = model.tower
    return ItemContent(
        tower.category_VC,
        tower.text_UX,
        tower.text_row_V,
        torch.arange(tower.codes).float(),
        tower.media_VM,
        tower.semantic_VL,
    )


def test_absent_starts_at_zero_and_later_codes_read_as_unknown() -> None:
    table = table_of(5, 3)
    assert table.weight[0].tolist() == [0.0, 0.0, 0.0]
    rows = known_rows(table, torch.tensor([4, 5, 900]))
    assert torch.equal(rows, table.weight[[4, 1, 1]])


def test_an_item_is_its_row_and_what_is_known_of_it(model: FoundationModel) -> None:
    tower, code = model.tower, torch.tensor([7])
    assert tower.text is not None
    kind, brand = tower.category_VC[7]
    tables = [module.weight for module in tower.categories]
    expected = tower.id.weight[7] + tables[0][kind] + tables[1][brand] + tower.text(tower.text_UX[tower.text_row_V[7]])
    torch.testing.assert_close(tower(code)[0], expected)
    assert tower.popularity(code) == tower.bias.weight[7, 0]


def test_an_item_that_nobody_met_starts_from_its_content_alone(config: ModelConfig, model: FoundationModel) -> None:
    content = content_of(model)
    tower = ItemTower(config, replace(content, recent_V=content.recent_V * (torch.arange(len(content)) != 7)))
    assert not tower.id.weight[7].any()
    assert tower.id.weight[8].any()
    assert tower(torch.tensor([7])).abs().max() > 0
    assert tower.popularity(torch.tensor([7, 8])).diff() > 0  # the one that was met is likelier


def test_recent_meetings_are_saved_with_the_weights_and_an_item_admitted_later_had_none(
    config: ModelConfig, model: FoundationModel
) -> None:
    tower = ItemTower(config, grown(replace(content_of(model), recent_V=torch.zeros(config.item.codes)), 2))
    tower.load_state_dict(model.tower.state_dict())
    codes = torch.tensor([7, config.item.codes])
    assert tower.log_recent(codes)[0] == model.tower.log_recent(codes[:1]) > tower.log_recent(codes)[1]


def test_an_item_admitted_after_training_has_a_vector(config: ModelConfig, model: FoundationModel) -> None:
    tower = ItemTower(config, grown(content_of(model), categories=999))
    assert tower.codes == config.item.codes + 1
    codes = torch.tensor([config.item.codes])
    assert torch.isfinite(tower(codes)).all()
    assert tower.popularity(codes) == tower.bias.weight[1, 0]


@pytest.fixture
def richer(config: ModelConfig, model: FoundationModel) -> ItemTower:
    """A tower of items with media and semantic IDs."""
    torch.manual_seed(0)
    content = content_of(model)
    codes = len(content)
    told = replace(content, media_VM=torch.randn(codes, 5), semantic_VL=torch.randint(0, 6, (codes, 2)))
    return ItemTower(replace(config, item=replace(config.item, media_width=5, semantic_ids=(6, 6))), told)


def test_media_and_semantic_ids_add_to_an_item(model: FoundationModel, richer: ItemTower) -> None:
    code = torch.tensor([7])
    bare = {name: weight for name, weight in richer.state_dict().items() if not name.startswith(("media", "semantic"))}
    plain = ItemTower(model.config, content_of(model))
    plain.load_state_dict(bare)
    assert richer.media is not None
    first, second = (table.weight for table in richer.semantic_ids)
    one, other = richer.semantic_VL[7]
    added = richer.media(richer.media_VM[7]) + first[one] + second[other]
    torch.testing.assert_close(richer(code)[0], plain(code)[0] + added)


def test_semantic_ids_are_learned(richer: ItemTower) -> None:
    richer(torch.tensor([7, 9])).square().sum().backward()
    for level, table in enumerate(richer.semantic_ids):
        assert table.weight.grad is not None
        touched = table.weight.grad.abs().sum(dim=1) > 0
        assert touched[richer.semantic_VL[[7, 9], level]].all()
        assert not touched[[code for code in range(6) if code not in richer.semantic_VL[[7, 9], level]]].any()


def test_an_item_with_neither_id_nor_codes_reads_as_absent(richer: ItemTower) -> None:
    assert not any(table.weight[0].any() for table in richer.semantic_ids)


def test_a_tower_with_media_and_semantic_ids_grows(config: ModelConfig, richer: ItemTower, model) -> None:
    content = replace(content_of(model), media_VM=richer.media_VM, semantic_VL=richer.semantic_VL)
    shape = replace(config, item=replace(config.item, media_width=5, semantic_ids=(6, 6)))
    wider = ItemTower(shape, grown(content, categories=2))
    wider.load_state_dict(richer.state_dict())
    codes = torch.arange(len(content))
    assert torch.equal(wider(codes), richer(codes))
    assert torch.isfinite(wider(codes[-1:] + 1)).all()


def test_a_token_is_the_sum_of_its_facets(config: ModelConfig, model: FoundationModel, batch) -> None:
    x_TD = model.events(batch, model.tower)
    tables = model.events.tables
    for token in (0, 57):
        expected = model.events.item_projection(model.tower(batch.facet_TF[token, [config.item_column]]))[0]
        for column, table in tables.items():
            expected = expected + table.weight[batch.facet_TF[token, int(column)]]
        torch.testing.assert_close(x_TD[token], expected)


def test_unknown_values_of_every_facet_are_embedded(config: ModelConfig, model: FoundationModel, batch) -> None:
    far = batch.facet_TF[:5].clone()
    far[:, [column for column in range(far.shape[1]) if column != config.item_column]] = 10**6
    unknown = torch.where(far == 10**6, 1, far)
    one, other = (
        EventEmbedding.forward(model.events, replace(batch, facet_TF=facets), model.tower) for facets in (far, unknown)
    )
    assert torch.equal(one, other)
