"""Real stores of a few vectors, and a real server over one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation.config import AttentionConfig, FacetConfig, ItemConfig, ModelConfig, RepeatConfig
from foundation.embedding import item_content
from foundation.model import FoundationModel
from foundation.pretrained import save
from foundation.space import Space
from foundation.subgraph import Subgraph
from serving.rows import Entity, VectorBatch
from serving.store import EmbeddingStore
from serving.supervisor import ServerProcess
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer

WIDTH = 8
Batch = Callable[..., VectorBatch]
Fill = Callable[..., None]


@pytest.fixture(scope="session")
def space() -> Space:
    return Space(name="shop", version=1, fingerprint="f" * 64, width=WIDTH, as_of=1_500_000_000.0)


@pytest.fixture(scope="session")
def batch() -> Batch:
    """A batch of random vectors for the given ids; `seed` decides the vectors."""

    def make(ids: list[int] | list[str], seed: int = 0, event_seq: int = 1, width: int = WIDTH) -> VectorBatch:
        n = len(ids)
        vectors = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
        return VectorBatch(pa.array(ids), vectors, np.full(n, 1e9 + seed), np.full(n, event_seq))

    return make


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path / "store")


@pytest.fixture(scope="session")
def fill(space: Space, batch: Batch) -> Fill:
    """Push 100 users with text ids and 50 items with integer ids into a store, and publish."""

    def push(store: EmbeddingStore, into: Space = space, seed: int = 0) -> None:
        store.push(into, Entity.USER, [batch([f"user-{i}" for i in range(100)], seed)])
        store.push(into, Entity.ITEM, [batch(list(range(1000, 1050)), seed + 1)])
        store.publish(into)

    return push


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, fill: Fill) -> EmbeddingStore:
    store = EmbeddingStore(tmp_path_factory.mktemp("published") / "store")
    fill(store)
    return store


@pytest.fixture(scope="session")
def address(published: EmbeddingStore) -> Iterator[str]:
    """A server without a model, in a process of its own."""
    with ServerProcess(published.root) as server:
        yield server.address


SCHEMA = {
    "schema": 1,
    "name": "shop",
    "user": "user",
    "time": {"column": "time", "zone": "UTC"},
    "action": {"column": "action"},
    "entities": {"product": {"column": "product", "candidates": True}},
    "context": {"shop": {"column": "shop", "kind": "category"}},
    "outcome": {"amount": {"kind": "number"}},
    "items": {"id": "product", "categories": ["kind"], "text": ["kind"]},
    "targets": {"product": 1.0, "action": 0.1},
}
PRODUCTS = 40


@pytest.fixture(scope="session")
def log() -> pa.Table:
    """600 events of 30 users: integer ids, seconds since 1970."""
    rng = np.random.default_rng(0)
    n = 600
    return pa.table(
        {
            "user": rng.integers(0, 30, n),
            "time": 1.5e9 + np.sort(rng.integers(0, 10_000_000, n)).astype(np.float64),
            "action": rng.choice(["buy", "view"], n),
            "product": rng.integers(100, 100 + PRODUCTS, n),
            "shop": rng.choice(["north", "south"], n),
            "amount": rng.random(n) * 10,
        }
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, log: pa.Table) -> Path:
    """A model directory with random weights."""
    rng = np.random.default_rng(1)
    items = pa.table(
        {"product": np.arange(100, 100 + PRODUCTS), "kind": rng.choice(["apple", "bread", "milk"], PRODUCTS)}
    )
    tokenizer = Tokenizer.fit(EventSchema.from_dict(SCHEMA), log, items)
    config = ModelConfig(
        facets=tuple(FacetConfig(facet.name, facet.size, str(facet.role)) for facet in tokenizer.facets),
        item=ItemConfig(
            "product",
            len(tokenizer.items),
            tuple(tokenizer.items.category_sizes.items()),
            tokenizer.items.vectors.shape[1],
        ),
        repeat=RepeatConfig(half_lives=(604_800.0, float("inf")), time_unit=86_400.0, width=8),
        targets=(("action", 0.1),),
        width=16,
        layers=1,
        attention=AttentionConfig(windows=(16,)),
        horizons=2,
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("pretrained") / "model"
    save(FoundationModel(config, item_content(tokenizer.items)), tokenizer, path, "shop", 1, 1.51e9, "# A test\n")
    return path


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory, model: Path, log: pa.Table) -> EmbeddingStore:
    """A store with that model, its user and its item vectors, published."""
    subgraph = Subgraph.from_pretrained(model)
    store = EmbeddingStore(tmp_path_factory.mktemp("with-model") / "store")
    users, batch = subgraph.tokenize(log)
    seen = np.diff(batch.offset_B1.numpy())
    with torch.inference_mode():
        user_BD, item_VD = subgraph(batch).numpy(), subgraph.item_vectors().numpy()[2:]
    as_of = subgraph.space.as_of
    items = subgraph.tokenizer.items.ids.ids
    store.push(subgraph.space, Entity.USER, [VectorBatch(users, user_BD, np.full(len(users), as_of), seen)])
    counts = subgraph.tokenizer.items.ids.counts
    store.push(subgraph.space, Entity.ITEM, [VectorBatch(items, item_VD, np.full(len(items), as_of), counts)])
    store.push_model(subgraph.space, model)
    store.publish(subgraph.space)
    return store


@pytest.fixture(scope="session")
def encoding_address(pretrained: EmbeddingStore) -> Iterator[str]:
    """A server with a model, in a process of its own."""
    with ServerProcess(pretrained.root) as server:
        yield server.address
