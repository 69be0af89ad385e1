"""Real stores of a few vectors, and a real server over one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from foundation.space import Space
from serving.rows import Entity, VectorBatch
from serving.store import EmbeddingStore
from serving.supervisor import ServerProcess

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
