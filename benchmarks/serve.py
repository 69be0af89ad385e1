"""A server in a process of its own, beside a bare gRPC echo that takes and gives the very same bytes.

What the echo costs is the wire's and Python's; what a lookup costs on top is ours. Both servers have one core and the
caller another where there are two, and they are asked in turns.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.measure import Estimate, Measured, at_least, estimate, in_turns
from foundation.space import Space
from serving.rows import Entity, VectorBatch
from serving.store import EmbeddingStore
from serving.supervisor import ServerProcess
from userfm.client import EmbeddingClient
from userfm.v1 import embedding_pb2 as pb

LOOKUP_OVER_ECHO = 0.70
USERS, ITEMS, WIDTH = 100_000, 30_000, 128
IDS = 64
"""Users looked up in one request."""
IN_FLIGHT = 16
REQUESTS = 1_000
"""Requests of one turn."""
LATENCIES = 2_000
SEARCHES = 200
METHOD = "/userfm.v1.EmbeddingService/Lookup"
_UNLIMITED = [("grpc.max_receive_message_length", -1)]

Progress = Callable[[str, int, int], None]


def run(progress: Progress) -> Measured:
    """Figures: rates of requests and their ratio, latencies of one caller, and what push and publish take."""
    with tempfile.TemporaryDirectory() as folder:
        store, rows_per_second, publish_seconds = _filled(EmbeddingStore(Path(folder) / "store"))
        with _on_core(0):
            server = ServerProcess(store.root)
        with server, _on_core(1):
            request, answer = _exchange(server.address)
            with _echo(answer) as echo:
                ratio, lookups, echoes = _rates(server.address, echo, request, progress)
                latencies = _latencies(server.address, echo, request, progress)
            searches = _search_latencies(server.address, progress)
    figures = {
        "lookup_over_echo": ratio.median,
        "lookup_over_echo_low": ratio.low,
        "lookup_over_echo_high": ratio.high,
        "lookups_per_second": lookups,
        "echoes_per_second": echoes,
        **latencies,
        "search_p50_ms": float(np.percentile(searches, 50)),
        "search_p99_ms": float(np.percentile(searches, 99)),
        "push_rows_per_second": rows_per_second,
        "publish_seconds": publish_seconds,
        "users": USERS,
        "items": ITEMS,
        "width": WIDTH,
        "ids_per_lookup": IDS,
        "in_flight": IN_FLIGHT,
    }
    return Measured(figures, (at_least("lookup_over_echo", ratio, LOOKUP_OVER_ECHO),))


def _filled(store: EmbeddingStore) -> tuple[EmbeddingStore, float, float]:
    """The store with random vectors, rows pushed in a second, and seconds of the publish."""
    space = Space(name="benchmark", version=1, fingerprint="b" * 64, width=WIDTH, as_of=0.0)
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for entity, ids in ((Entity.USER, [_user(i) for i in range(USERS)]), (Entity.ITEM, list(range(ITEMS)))):
        n = len(ids)
        vectors = rng.standard_normal((n, WIDTH), dtype=np.float32)
        store.push(space, entity, [VectorBatch(pa.array(ids), vectors, np.zeros(n), np.ones(n, np.int64))])
    pushed = time.perf_counter()
    store.publish(space)
    return store, (USERS + ITEMS) / (pushed - start), time.perf_counter() - pushed


def _user(number: int) -> str:
    return f"household-{number}"


def _exchange(address: str) -> tuple[bytes, bytes]:
    """One lookup's request and answer, as they go over the wire."""
    numbers = np.random.default_rng(1).integers(0, USERS, IDS)
    ids = pb.Ids(texts=pb.Ids.Texts(values=[_user(i) for i in numbers]))
    request = pb.LookupRequest(entity=pb.ENTITY_USER, ids=ids).SerializeToString()
    with grpc.insecure_channel(address, options=_UNLIMITED) as channel:
        return request, channel.unary_unary(METHOD)(request)


def _rates(address: str, echo: str, request: bytes, progress: Progress) -> tuple[Estimate, float, float]:
    """Lookups a second ÷ echoes a second, and both, with IN_FLIGHT requests on the way."""
    lookups, echoes = in_turns(
        lambda: asyncio.run(_send(address, request)),
        lambda: asyncio.run(_send(echo, request)),
        progress=lambda done, total: progress("pairs", done, total),
    )
    return estimate(echoes / lookups), float(np.median(REQUESTS / lookups)), float(np.median(REQUESTS / echoes))


async def _send(address: str, request: bytes) -> None:
    async with grpc.aio.insecure_channel(address, options=_UNLIMITED) as channel:
        call = channel.unary_unary(METHOD)

        async def caller() -> None:
            for _ in range(REQUESTS // IN_FLIGHT):
                await call(request)

        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))


def _latencies(address: str, echo: str, request: bytes, progress: Progress) -> dict[str, float]:
    """Milliseconds that one caller waits, lookup and echo in turns."""
    seconds = np.zeros((2, LATENCIES))
    with (
        grpc.insecure_channel(address, options=_UNLIMITED) as served,
        grpc.insecure_channel(echo, options=_UNLIMITED) as echoed,
    ):
        calls = [channel.unary_unary(METHOD) for channel in (served, echoed)]
        for turn in range(LATENCIES):
            for side, call in enumerate(calls):
                seconds[side, turn] = _timed(partial(call, request))
            if turn % 100 == 0:
                progress("latencies", turn, LATENCIES)
    percentiles = np.percentile(seconds[:, 100:] * 1e3, (50, 99), axis=1)
    names = (("lookup_p50_ms", "echo_p50_ms"), ("lookup_p99_ms", "echo_p99_ms"))
    return {
        name: float(value)
        for row, values in zip(names, percentiles, strict=True)
        for name, value in zip(row, values, strict=True)
    }


def _search_latencies(address: str, progress: Progress) -> NDArray[np.float64]:
    """Milliseconds of the 10 items nearest to one stored user, over all items."""
    rng = np.random.default_rng(2)
    seconds = np.zeros(SEARCHES)
    with EmbeddingClient(address) as client:
        for turn in range(SEARCHES):
            user = _user(int(rng.integers(USERS)))
            seconds[turn] = _timed(partial(client.search, 10, users=[user]))
            progress("searches", turn, SEARCHES)
    return seconds[10:] * 1e3


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def _echo(answer: bytes) -> Iterator[str]:
    """The address of a server that answers everything with `answer`."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    with _on_core(0):
        process = spawn.Process(target=_serve_echo, args=(answer, there), daemon=True)
        process.start()
    yield here.recv()
    process.terminate()
    process.join()


def _serve_echo(answer: bytes, ready: Connection) -> None:
    async def reply(request: bytes, context: Any) -> bytes:
        return answer

    async def serve() -> None:
        server = grpc.aio.server()
        service, name = METHOD[1:].split("/")
        handlers = {name: grpc.unary_unary_rpc_method_handler(reply)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ready.send(f"127.0.0.1:{port}")
        await server.wait_for_termination()

    asyncio.run(serve())


@contextmanager
def _on_core(number: int) -> Iterator[None]:
    """What is started or done in the block runs on one core, if there are two and the system lets us choose."""
    if not hasattr(os, "sched_setaffinity") or len(cores := sorted(os.sched_getaffinity(0))) < 2:
        yield
        return
    os.sched_setaffinity(0, {cores[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
