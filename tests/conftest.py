"""A kiosk's log, small enough to train on in a test, with every kind of facet once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch is imported, here and in every process that a test starts: on tensors so small more threads than one
# only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings

from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer

# Whoever shares the machine decides how long an example takes. CI draws the same examples every time;
# HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("userfm", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "userfm"))

DAY = 86_400
CUSTOMERS, DAYS, ARTICLES = 30, 120, 40
KINDS = ("apple", "bread", "cheese", "milk", "pasta")

DECLARATION: dict[str, Any] = {
    "schema": 1,
    "name": "kiosk",
    "user": "customer",
    "time": {"column": "time"},
    "action": {"column": "action"},
    "group": "visit",
    "entities": {"product": {"column": "article", "candidates": True}, "coupon": {"column": "coupon"}},
    "context": {"store": {"kind": "category"}},
    "outcome": {"quantity": {"kind": "number"}, "shelf": {"kind": "category"}},
    "items": {"id": "article", "categories": ["kind", "brand"], "text": ["kind", "brand"]},
    "merge": {"same_item_in_group": True},
    "targets": {"product": 1.0, "quantity": 0.1, "action": 0.1},
    "split": {"time": "1970-04-11", "validation": "1970-03-22"},
}


@dataclass(frozen=True)
class Kiosk:
    """What somebody brings: a declaration, a log and a table of items; `users` is what is known of them."""

    schema: EventSchema
    events: pa.Table
    items: pa.Table
    users: pa.Table


def _visit(draw: np.random.Generator, customer: int, day: int) -> list[dict[str, Any]]:
    """One to four products, mostly of the kind that the customer likes; now and then a coupon beside them."""
    about = {
        "customer": f"c{customer:02d}",
        "time": float(day * DAY + 3600 * draw.integers(8, 20)),
        "visit": f"{customer}-{day}",
        "action": "buy",
        "store": f"s{draw.integers(3)}",
    }
    liked = draw.random() < 0.8
    shelf = np.arange(customer % len(KINDS), ARTICLES, len(KINDS)) if liked else np.arange(ARTICLES)
    lines: list[dict[str, Any]] = [
        {
            **about,
            "article": 100 + int(number),
            "quantity": float(draw.integers(1, 5)),
            "shelf": draw.choice(["a", "b"]),
        }
        for number in draw.choice(shelf, draw.integers(1, 5))
    ]
    if draw.random() < 0.2:
        lines.append({**about, "action": "redeem", "store": None, "coupon": f"k{draw.integers(4)}"})
    return lines


@pytest.fixture(scope="session")
def kiosk() -> Kiosk:
    """30 customers over 120 days, a visit every ten days or so; every fifth article is of one kind."""
    draw = np.random.default_rng(0)
    columns = ("customer", "time", "visit", "action", "store", "article", "coupon", "quantity", "shelf")
    days = [np.sort(draw.choice(DAYS, draw.integers(6, 16), replace=False)) for _ in range(CUSTOMERS)]
    lines = [line for customer in range(CUSTOMERS) for day in days[customer] for line in _visit(draw, customer, day)]
    events = pa.table({name: [line.get(name) for line in lines] for name in columns})
    number = np.arange(ARTICLES + 5)  # five that nobody has bought yet
    items = pa.table(
        {
            "article": 100 + number,
            "kind": [KINDS[n % len(KINDS)] for n in number],
            "brand": [("plain", "fancy")[n // len(KINDS) % 2] for n in number],
        }
    )
    return Kiosk(EventSchema.from_dict(DECLARATION), events, items, pa.table({"customer": pa.array([], pa.string())}))


@pytest.fixture(scope="session")
def kiosk_corpus(kiosk: Kiosk, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The kiosk's log as a corpus."""
    tokenizer = Tokenizer.fit(kiosk.schema, kiosk.events, kiosk.items)
    return _corpus(tokenizer, tokenizer.transform(kiosk.events), tmp_path_factory.mktemp("kiosk") / "corpus")


@pytest.fixture(scope="session")
def club(kiosk: Kiosk) -> Kiosk:
    """The kiosk with a members' file: what kind each likes, and an age. The last two customers are no members; of one
    kind there is a member who has bought nothing yet (new-apple, ..)."""
    schema = EventSchema.from_dict({**DECLARATION, "users": {"categories": ["likes"], "numbers": ["age"]}})
    members = CUSTOMERS - 2
    users = pa.table(
        {
            "customer": [f"c{n:02d}" for n in range(members)] + [f"new-{kind}" for kind in KINDS],
            "likes": [KINDS[n % len(KINDS)] for n in range(members)] + list(KINDS),
            "age": pa.array([20.0 + n for n in range(members)] + [None] * len(KINDS), pa.float64()),
        }
    )
    return Kiosk(schema, kiosk.events, kiosk.items, users)


@pytest.fixture(scope="session")
def club_corpus(club: Kiosk, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The same log as a corpus that has what is known of its users."""
    tokenizer = Tokenizer.fit(club.schema, club.events, club.items, users=club.users)
    tokens = tokenizer.transform(club.events, club.users)
    return _corpus(tokenizer, tokens, tmp_path_factory.mktemp("club") / "corpus")


def _corpus(tokenizer: Tokenizer, tokens: pa.Table, folder: Path) -> Corpus:
    count = len(tokens["events"].combine_chunks().flatten())
    events = int(np.sum(tokens["events"].combine_chunks().flatten().to_numpy()))
    summary = {"events": events, "tokens": count, "users": tokens.num_rows, "items": len(tokenizer.items.ids)}
    return write_corpus(folder, [tokens], tokenizer, summary)
