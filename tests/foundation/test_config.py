from __future__ import annotations

import json
from dataclasses import replace

import pytest

from foundation.config import (
    FORMAT,
    AttentionConfig,
    Backend,
    CandidateConfig,
    DecoderConfig,
    ItemGate,
    ModelConfig,
    Rotary,
)
from foundation.errors import ModelError


def test_a_config_is_read_as_it_was_written(config: ModelConfig) -> None:
    attention = AttentionConfig((3, 0), sinks=2, memory=1, rotary=Rotary.BOTH)
    other = replace(config, backend=Backend.REFERENCE, width=8, attention=attention)
    aware = replace(config, candidates=CandidateConfig(layers=2, heads=1, reach=7))
    coded = replace(config, item=replace(config.item, semantic_ids=(4, 5)), decoder=DecoderConfig(layers=2))
    for one in (config, other, aware, coded):
        assert ModelConfig.from_json(one.to_json()) == one


def test_intents_and_targets_are_read_as_they_were_written(config: ModelConfig) -> None:
    changed = replace(config, intents=("kind", "action"), category_targets=("brand",), gap_bins=8)
    assert ModelConfig.from_json(changed.to_json()) == changed
    assert changed.intent_sizes == (("kind", dict(config.item.categories)["kind"]), ("action", config.facets[0].size))


def test_context_facets_are_found_by_their_role(config: ModelConfig) -> None:
    assert [facet.name for facet in config.context] == ["store", "hour", "weekday", "gap"]
    assert [config.facets[column].name for column in config.context_columns] == ["store", "hour", "weekday", "gap"]
    assert config.facets[config.item_column].name == "product"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 18, "heads": 4}, "width 18 must split into 4 heads"),
        ({"width": 6, "heads": 2}, "width 6 must split into 2 heads of even width"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"attention": AttentionConfig((3, 4, 5))}, r"2 layers take one window or 2, got \(3, 4, 5\)"),
        ({"horizons": 0}, "horizons must be at least 1"),
        ({"targets": (("colour", 0.1),)}, "facet 'colour' is not among the model's facets"),
        ({"intents": ("knd",)}, "intent 'knd' is unknown; did you mean 'kind'"),
        ({"intents": ("store",)}, "intent 'store' is unknown"),  # context is told, not guessed
        ({"intents": ("kind", "kind")}, "intent 'kind' is listed twice"),
        ({"category_targets": ("action",)}, "category target 'action' is unknown"),
        ({"gap_bins": 1}, "gap_bins must be 0, for none, or at least 2, got 1"),
        ({"candidates": CandidateConfig(1, heads=3)}, "width 16 must split into the 3 heads of candidates.heads"),
        ({"candidates": CandidateConfig(-1)}, "layers must be at least 0, heads and reach at least 1, got .*layers=-1"),
        ({"decoder": DecoderConfig(layers=-1)}, "decoder: layers must be at least 0, got -1"),
        ({"decoder": DecoderConfig(layers=1)}, "items have no semantic IDs to decode; declare `semantic_ids`"),
        ({"candidates": CandidateConfig(1, reach=0)}, "layers must be at least 0, heads and reach at least 1"),
    ],
)
def test_a_shape_that_can_not_be_is_refused(config: ModelConfig, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        replace(config, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: fields.pop("width"),
        lambda fields: fields.update(colour=1),
        lambda fields: fields.update(backend="magic"),
        lambda fields: fields["item"].pop("codes"),
        lambda fields: fields["candidates"].pop("reach"),
        lambda fields: fields.pop("format"),
    ],
)
def test_a_damaged_config_is_refused_with_a_sentence(config: ModelConfig, damage) -> None:
    fields = json.loads(config.to_json())
    damage(fields)
    with pytest.raises(ModelError, match=r"config\.json can't be read"):
        ModelConfig.from_json(json.dumps(fields))


def test_a_config_of_another_format_says_so(config: ModelConfig) -> None:
    fields = {**json.loads(config.to_json()), "format": 99}
    with pytest.raises(ModelError, match=f"has format 99, this userfm reads {FORMAT}"):
        ModelConfig.from_json(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "[]", "3", "{}"])
def test_what_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        ModelConfig.from_json(text)


def test_a_config_of_the_first_format_is_read_as_what_it_meant(config: ModelConfig) -> None:
    fields = {**json.loads(config.to_json()), "format": 1, "window": 12}
    for name in (
        "attention",
        "attributes",
        "groups",
        "repeat_path",
        "category_affinity",
        "intents",
        "category_targets",
        "gap_bins",
        "candidates",
        "dropout",
        "item_gate",
        "decoder",
        "bands",
        "state_layers",
        "pools",
        "interests",
    ):
        del fields[name]
    del fields["item"]["semantic_ids"]
    assert ModelConfig.from_json(json.dumps(fields)) == replace(config, attention=AttentionConfig((12,)))


def test_a_config_of_the_second_format_is_read_as_what_it_meant(config: ModelConfig) -> None:
    fields = {**json.loads(config.to_json()), "format": 2}
    for name in ("dropout", "item_gate", "decoder", "bands", "state_layers", "pools", "interests"):
        del fields[name]
    assert ModelConfig.from_json(json.dumps(fields)) == config


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"windows": ()}, "windows must be one number or one a layer"),
        ({"windows": (-1,)}, "each at least 0"),
        ({"sinks": -1}, "sinks must be at least 0, got -1"),
        ({"memory_block": 0}, "memory_block must be above 0, got 0"),
        ({"time_unit": 0.0}, "time_unit must be above 0"),
    ],
)
def test_attention_that_can_not_be_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        AttentionConfig(**changes)  # type: ignore[arg-type]


def test_a_config_of_the_third_format_says_whether_there_is_a_gate(config: ModelConfig) -> None:
    fields = json.loads(config.to_json())
    del fields["item_gate"]
    gated = replace(config, item_gate=ItemGate.AGE)
    assert ModelConfig.from_json(gated.to_json()) == gated
    with pytest.raises(ModelError, match="item_gate"):
        ModelConfig.from_json(json.dumps(fields))


@pytest.mark.parametrize("bands", [(0,), (32, 8), (8, 8), (16,)])
def test_bands_ascend_and_stay_below_the_width(config: ModelConfig, bands: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="bands must ascend and stay below the width"):
        replace(config, width=16, bands=bands)
    assert ModelConfig.from_json(replace(config, bands=(4, 8)).to_json()).bands == (4, 8)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"state_layers": (0,)}, "end with the last of 2 layers, 1, got .0,.: a layer that no state reads"),
        ({"state_layers": (1, 0)}, "state_layers ascend from 0"),
        ({"state_layers": (-1, 1)}, "state_layers ascend from 0"),
        ({"pools": (0,)}, "pools are different numbers of tokens, each at least 1"),
        ({"pools": (4, 4)}, "pools are different numbers of tokens"),
        ({"interests": 1}, "interests must be 0, for none, or at least 2, got 1"),
        ({"interests": -2}, "interests must be 0, for none, or at least 2, got -2"),
    ],
)
def test_a_user_that_can_not_be_read_is_refused(config: ModelConfig, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        replace(config, layers=2, **changes)  # type: ignore[arg-type]
