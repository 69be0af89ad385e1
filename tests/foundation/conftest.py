"""A small model of the kiosk whose weights are all drawn, so that no part hides behind a zero it starts from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foundation.config import AttentionConfig, DecoderConfig, FacetConfig, ItemConfig, ModelConfig, RepeatConfig
from foundation.embedding import item_content
from foundation.heads import Heads
from foundation.jagged import EventBatch, Requests, group_offsets
from foundation.model import FoundationModel
from foundation.pretrained import save
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus

DAY = 86_400.0
Shake = Callable[[torch.nn.Module], torch.nn.Module]


@pytest.fixture(scope="session")
def config(kiosk_corpus: Corpus) -> ModelConfig:
    tokenizer = kiosk_corpus.tokenizer
    items = tokenizer.items
    return ModelConfig(
        facets=tuple(FacetConfig(facet.name, facet.size, str(facet.role)) for facet in tokenizer.facets),
        item=ItemConfig("product", len(items), tuple(items.category_sizes.items()), items.distinct_vectors.shape[1]),
        repeat=RepeatConfig(half_lives=(10 * DAY, 40 * DAY, math.inf), time_unit=DAY, width=8),
        targets=(("quantity", 0.1), ("action", 0.1)),
        width=16,
        layers=2,
        heads=2,
        attention=AttentionConfig(windows=(12,)),
        horizons=3,
    )


@pytest.fixture(scope="session")
def shake() -> Shake:
    """Adds noise to every weight of a module, the same each time."""

    def _shake(module: torch.nn.Module) -> torch.nn.Module:
        noise = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in module.parameters():
                weight += 0.1 * torch.randn(weight.shape, generator=noise)
        return module

    return _shake


@pytest.fixture(scope="session")
def model(config: ModelConfig, kiosk_corpus: Corpus, shake: Shake) -> FoundationModel:
    torch.manual_seed(0)
    items = kiosk_corpus.tokenizer.items
    counts = torch.from_numpy(items.count).float()
    model = shake(FoundationModel(config, item_content(items, counts)))
    assert isinstance(model, FoundationModel)
    return model.eval()


@pytest.fixture(scope="session")
def batch(config: ModelConfig, kiosk_corpus: Corpus) -> EventBatch:
    """All histories of the kiosk."""
    return EventBatch.from_tokens(kiosk_corpus.tokens(), [facet.name for facet in config.facets])


@pytest.fixture(scope="session")
def asked(config: ModelConfig, batch: EventBatch) -> Requests:
    """A request at every group that has an earlier group of its user, told the context of the group's first token."""
    user = batch.user_T.tolist()
    first = [token for token in group_offsets(batch)[:-1].tolist() if token and user[token] == user[token - 1]]
    rows = torch.tensor(first)
    return Requests(batch.user_T[rows], rows, batch.time_T[rows], batch.facet_TF[rows][:, list(config.context_columns)])


@pytest.fixture(scope="session")
def folder(model: FoundationModel, kiosk_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's directory, heads included."""
    path = tmp_path_factory.mktemp("pretrained") / "model"
    save(model, kiosk_corpus.tokenizer, path, "kiosk", 1, 5.0, "# Card\n")
    Heads.untrained(Subgraph.from_pretrained(path)).save(path)
    return path


@pytest.fixture(scope="session")
def coded(config: ModelConfig, kiosk_corpus: Corpus, shake: Shake) -> FoundationModel:
    """The model with semantic IDs of two levels, several items a path and some items without, and their decoder."""
    torch.manual_seed(0)
    items = kiosk_corpus.tokenizer.items
    draw = torch.Generator().manual_seed(2)
    semantic_VL = torch.randint(2, 6, (len(items), 2), generator=draw)
    semantic_VL[-1] = 0
    content = replace(item_content(items, torch.from_numpy(items.count).float()), semantic_VL=semantic_VL)
    shape = replace(config, item=replace(config.item, semantic_ids=(6, 6)), decoder=DecoderConfig(layers=2))
    model = shake(FoundationModel(shape, content))
    assert isinstance(model, FoundationModel)
    return model.eval()
