from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation.config import ModelConfig
from foundation.embedding import ItemContent, item_content
from foundation.model import FoundationModel
from foundation.start import keys_of, normal, shared_start
from tokenization.corpus.corpus import Corpus


@pytest.fixture
def content(kiosk_corpus: Corpus) -> ItemContent:
    items = kiosk_corpus.tokenizer.items
    return item_content(items, torch.from_numpy(items.count).float())


@pytest.fixture
def ids(kiosk_corpus: Corpus) -> pa.Array:
    items = kiosk_corpus.tokenizer.items
    return items.ids.decode(np.arange(len(items), dtype=np.int32))


def test_two_starts_are_alike_whatever_was_drawn_before(
    config: ModelConfig, content: ItemContent, ids: pa.Array
) -> None:
    torch.manual_seed(1)
    one = shared_start(config, content, ids)
    torch.manual_seed(2)
    other = shared_start(config, content, ids)
    for (name, weight), again in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(weight, again), name


def test_what_no_seed_draws_is_as_ever_and_the_rest_as_wide(
    config: ModelConfig, content: ItemContent, ids: pa.Array
) -> None:
    torch.manual_seed(0)
    usual = dict(FoundationModel(config, content).named_parameters())
    started = dict(shared_start(config, content, ids).named_parameters())
    assert torch.equal(started["tower.bias.weight"], usual["tower.bias.weight"])
    unmet_V = usual["tower.id.weight"].abs().sum(1) == 0
    assert unmet_V.any()
    assert not started["tower.id.weight"][unmet_V].any()
    for name, weight in started.items():
        if weight.numel() > 500:
            assert float(weight.detach().std()) == pytest.approx(
                float(usual[name].detach().std()), rel=0.25, abs=1e-6
            ), name


def test_an_item_starts_alike_wherever_it_stands_and_whatever_else_there_is(
    config: ModelConfig, content: ItemContent, ids: pa.Array
) -> None:
    order = np.random.default_rng(0).permutation(len(ids))
    met = replace(content, recent_V=torch.ones(len(ids)))
    one = shared_start(config, met, ids).tower.id.weight.detach()
    other = shared_start(config, met, ids.take(pa.array(order))).tower.id.weight.detach()
    torch.testing.assert_close(one[order], other)
    item = replace(config.item, codes=config.item.codes - 3)
    facets = tuple(
        replace(facet, size=facet.size - 3) if facet.name == item.facet else facet for facet in config.facets
    )
    fewer = shared_start(replace(config, item=item, facets=facets), met, ids)
    grown = shared_start(config, met, ids)
    for (name, few), more in zip(fewer.named_parameters(), grown.parameters(), strict=True):
        alike = torch.cosine_similarity(few.flatten(), more[: len(few)].flatten(), dim=0)
        assert alike > 0.999 or (not few.any() and not more.any()), name


def test_numbers_are_normal_and_of_no_two_weights_alike() -> None:
    key_R = np.arange(2000, dtype=np.uint64)
    one, other = normal("one", key_R, 8), normal("other", key_R, 8)
    for noise in (one, other):
        assert abs(noise.mean()) < 0.03
        assert noise.std() == pytest.approx(1.0, abs=0.03)
        assert (noise**4).mean() == pytest.approx(3.0, abs=0.25)
    together = np.corrcoef(np.concatenate([one, other], axis=1).T)
    assert np.abs(together - np.eye(16)).max() < 0.1
    assert np.array_equal(normal("one", key_R[5:7], 8), one[5:7])


def test_ids_of_every_kind_have_keys_and_no_id_has_none() -> None:
    assert keys_of(pa.array([7, 8])).tolist() == keys_of(pa.array(["7", "8"])).tolist()
    assert len(set(keys_of(pa.array(["a", "b", "ab", ""])).tolist())) == 4
    assert keys_of(pa.array([None], pa.int64())).tolist() == [0]
