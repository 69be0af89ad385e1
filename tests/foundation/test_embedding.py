from __future__ import annotations

from dataclasses import replace

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
    )


def content_of(model: FoundationModel) -> ItemContent:
    tower = model.tower
    return ItemContent(tower.category_VC, tower.text_UX, tower.text_row_V, torch.arange(tower.codes).float())


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
