"""A small shop's log, and everything that the command line makes of it, made once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from userfm.cli import main

SCHEMA = """\
schema: 1
name: shop
user: customer
time: {column: time, zone: Europe/Berlin}
action: {column: action}
group: receipt
entities:
  product: {column: article, candidates: true}
context:
  till: {kind: category}
outcome:
  price: {kind: number}
items:
  categories: [kind]
  text: [label]
targets: {product: 1.0, action: 0.1}
split: {fraction: 0.8}
"""
KINDS = ("apple", "bread", "cheese", "milk", "pasta")
CUSTOMERS, VISITS, ARTICLES = 40, 12, 40


Command = Callable[..., int]


@dataclass(frozen=True)
class Shop:
    """Files of a log, and the folders that the commands write beside them."""

    folder: Path

    @property
    def schema(self) -> Path:
        return self.folder / "schema.yaml"

    @property
    def events(self) -> Path:
        return self.folder / "events.parquet"

    @property
    def items(self) -> Path:
        return self.folder / "items.parquet"

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def store(self) -> Path:
        return self.folder / "store"


def shop_events() -> pa.Table:
    """Each customer likes one kind: 3 articles a visit, most of them of that kind."""
    draw = np.random.default_rng(0)
    lines = CUSTOMERS * VISITS * 3
    customer = np.repeat(np.arange(CUSTOMERS), VISITS * 3)
    receipt = np.repeat(np.arange(CUSTOMERS * VISITS), 3)
    hour = draw.permutation(CUSTOMERS * VISITS)[receipt]
    liked = (customer + len(KINDS) * draw.integers(0, ARTICLES // len(KINDS), lines)) % ARTICLES
    article = 100 + np.where(draw.random(lines) < 0.8, liked, draw.integers(0, ARTICLES, lines))
    return pa.table(
        {
            "customer": [f"c{number:02d}" for number in customer],
            "time": pa.array(1_600_000_000 + 7200 * hour, pa.int64()).cast(pa.timestamp("s")),
            "action": draw.choice(["buy", "return"], lines, p=[0.9, 0.1]),
            "receipt": receipt,
            "article": article,
            "till": draw.choice(["left", "right"], CUSTOMERS * VISITS)[receipt],
            "price": draw.random(lines).round(2) * 10,
        }
    )


def shop_items() -> pa.Table:
    number = np.arange(ARTICLES)
    kinds = [KINDS[n % len(KINDS)] for n in number]
    labels = [f"{kind} {n}" for kind, n in zip(kinds, number, strict=True)]
    return pa.table({"article": 100 + number, "kind": kinds, "label": labels})


@pytest.fixture(scope="session")
def shop_files(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """schema.yaml, events.parquet and items.parquet."""
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.schema.write_text(SCHEMA)
    pq.write_table(shop_events(), shop.events)
    pq.write_table(shop_items(), shop.items)
    return shop


def _command(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="session")
def command() -> Command:
    """Runs a command in this process and returns its exit code."""
    return _command


@pytest.fixture(scope="session")
def shop(shop_files: Shop) -> Shop:
    """The shop tokenized, trained, pushed and published, by the commands that a user types."""
    os.environ["OMP_NUM_THREADS"] = "1"
    files = shop_files
    assert _command("tokenize", files.schema, files.events, "--items", files.items, "--out", files.corpus) == 0
    train = ("train", files.corpus, "--out", files.run, "--recipe", "small", "--set", "epochs=3", "--no-ray")
    assert _command(*train) == 0
    assert _command("push", files.run, "--store", files.store) == 0
    assert _command("publish", files.store) == 0
    return files
