"""What a client of the demo's server sees, and how fast: everything here goes over the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serving.store import EmbeddingStore
from serving.supervisor import ServerProcess
from training.metrics import Floats
from userfm.client import EmbeddingClient, Rankings, Unavailable
from userfm.demo.households import Products

LOOKUPS, SEARCHES, ENCODED = 1_000, 200, 40
WARM_UP = 5
Say = Callable[[str], None]


def serve_and_ask(store: Path, events: Path, households: list[int], products: Products, say: Say) -> dict[str, Any]:
    """Start a server, ask it everything it answers, measure, and end it by SIGTERM.

    Args:
        events: the log, from which the histories of `households` are sent as a live service would.
        say: told in words what came back.

    Returns:
        The figures of `serving`: latencies of one caller in milliseconds, and what was found.
    """
    known = EmbeddingStore(store).current()
    say(f"{known.user.rows:,} households and {known.item.rows:,} products of {known.space.id}, epoch {known.epoch}")
    histories = _histories(events, households[:ENCODED])
    with ServerProcess(store) as server, EmbeddingClient(server.address, timeout=60.0) as client:
        figures = _latencies(client, histories, products)
        figures |= _one_household(client, histories[0], products, say)
        _heads(client, histories[0], products, say)
        figures |= _drain(client, server, households)
    return figures


def _histories(events: Path, households: list[int]) -> list[pa.Table]:
    log = pq.read_table(events, filters=pc.field("household_id").isin(households))
    return [log.filter(pc.equal(log["household_id"], household)) for household in households]


def _latencies(client: EmbeddingClient, histories: list[pa.Table], products: Products) -> dict[str, Any]:
    users = [history["household_id"][0].as_py() for history in histories]
    bought = pa.concat_tables(histories)["product_id"].drop_null().to_pylist()
    lookups = _timed(LOOKUPS, lambda turn: client.lookup_users([users[turn % len(users)]]))
    searches = _timed(SEARCHES, lambda turn: client.search(10, items=[bought[turn % len(bought)]]))
    encodes = _timed(len(histories), lambda turn: client.encode(histories[turn % len(histories)]))
    homes = _timed(len(histories), lambda turn: client.score_home(histories[turn % len(histories)], 10))
    return {
        "lookup_p50_ms": _percentile(lookups, 50),
        "lookup_p99_ms": _percentile(lookups, 99),
        "encode_p50_ms": _percentile(encodes, 50),
        "encode_p99_ms": _percentile(encodes, 99),
        "search_p50_ms": _percentile(searches, 50),
        "search_p99_ms": _percentile(searches, 99),
        "home_p50_ms": _percentile(homes, 50),
        "events_per_encode": float(np.median([history.num_rows for history in histories])),
    }


def _timed(turns: int, ask: Callable[[int], object]) -> Floats:
    """Milliseconds of each turn, after a few that don't count."""
    for turn in range(min(WARM_UP, turns)):
        ask(turn)
    taken = np.empty(turns)
    for turn in range(turns):
        began = time.perf_counter()
        ask(turn)
        taken[turn] = 1e3 * (time.perf_counter() - began)
    return taken


def _percentile(taken: Floats, percent: float) -> float:
    return round(float(np.percentile(taken, percent)), 4)


def _one_household(client: EmbeddingClient, history: pa.Table, products: Products, say: Say) -> dict[str, Any]:
    """The same events give the vector that batch inference stored; one more basket moves it."""
    household = history["household_id"][0].as_py()
    stored = client.lookup_users([household]).vectors[0]
    now = client.encode(history).vectors[0]
    basket = _fresh_basket(history)
    after = client.encode(pa.concat_tables([history, basket])).vectors[0]
    moved = 1.0 - float(now @ after / (np.linalg.norm(now) * np.linalg.norm(after)))
    apart = float(np.abs(now - stored).max() / np.abs(stored).max())
    names = ", ".join(products.name(product) for product in basket["product_id"].to_pylist())
    say(f"household {household} encoded live differs from its stored vector by {apart:.0e} of the largest value")
    say(f"after a basket of {names} its vector has turned by a cosine distance of {moved:.4f}")
    return {"live_minus_stored": apart, "vector_moved": moved}


def _fresh_basket(history: pa.Table) -> pa.Table:
    """The first basket of the history once more, an hour after the last event."""
    purchases = history.filter(pc.equal(history["action"], "purchase")).sort_by("time")
    basket = purchases.filter(pc.equal(purchases["basket_id"], purchases["basket_id"][0])).slice(0, 4)
    last = pc.max(history["time"]).value
    columns = {
        "time": pa.array([last + 3_600_000_000 + 86_400_000_000] * basket.num_rows).cast(history["time"].type),
        "basket_id": pa.array([-1] * basket.num_rows, history["basket_id"].type),
    }
    for name, column in columns.items():
        basket = basket.set_column(basket.column_names.index(name), name, column)
    return basket


def _heads(client: EmbeddingClient, history: pa.Table, products: Products, say: Say) -> None:
    product = history["product_id"].drop_null()[0].as_py()
    name = products.name(product)
    say(f"home: {_first(client.score_home(history, 4), products)}")
    say(f"search for 'organic milk': {_first(client.score_search(['organic milk'], 4), products)}")
    say(f"goes with {name}: {_first(client.score_item_to_item([product], 4), products)}")
    say(f"nearest to {name}: {_first(client.search(4, items=[product]), products)}")


def _first(found: Rankings, products: Products) -> str:
    return "; ".join(products.name(product) for product in found.rankings[0].ids.tolist())


def _drain(client: EmbeddingClient, server: ServerProcess, households: list[int]) -> dict[str, Any]:
    """SIGTERM while requests keep coming: each is answered or refused, none is lost, and the server ends by itself."""

    def ask() -> tuple[int, int]:
        answered = 0
        while True:
            try:
                client.lookup_users(households[:64])
            except Unavailable:
                return answered, 1
            answered += 1

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        time.sleep(0.2)
        server.drain()
        answered, refused = asking.result(60)
    return {"drain": {"answered": answered, "refused": refused, "exit_code": server.wait(60)}}
