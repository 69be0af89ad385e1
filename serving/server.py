"""One serving process: bind, load, answer, drain.

`python -m serving.server STORE` runs it by itself; `userfm serve` and `serving.supervisor` call the same
function.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving.engine import Engine
from serving.errors import ServerError
from serving.interceptors import Guard
from serving.service import EmbeddingService, Limits
from serving.store import EmbeddingStore
from tokenization.errors import UserfmError
from userfm.v1.embedding_pb2_grpc import add_EmbeddingServiceServicer_to_server

SERVICE = "userfm.v1.EmbeddingService"
DRAIN_SECONDS = 10.0
SETTLE_SECONDS = 0.2
END_SECONDS = 5.0

log = logging.getLogger("userfm.serving")


def serve(
    store: str | Path,
    host: str = "127.0.0.1",
    port: int = 50051,
    *,
    limits: Limits | None = None,
    drain_seconds: float = DRAIN_SECONDS,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve what `store` has current until SIGTERM or SIGINT, then drain: finish what was accepted, refuse
    what is new.

    `port` 0 takes a free one; `on_ready` hears the address (`host:port`) once requests are answered. Blocks,
    and needs the main thread for its signals. Raises ServerError when the port can't be had, StoreError when
    there is nothing to serve.
    """
    asyncio.run(_serve(EmbeddingStore(store), host, port, limits or Limits(), drain_seconds, on_ready))


async def _serve(
    store: EmbeddingStore,
    host: str,
    port: int,
    limits: Limits,
    drain_seconds: float,
    on_ready: Callable[[str], None] | None,
) -> None:
    _see_that_free(host, port)
    engine = Engine.open(store)
    server = _server(limits)
    service = EmbeddingService(engine, limits)
    add_EmbeddingServiceServicer_to_server(service, server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    await healthy.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    bound = _bind(server, host, port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start()
    address = _address(host, bound)
    log.info("serving %s, epoch %d, on %s", engine.publication.space.id, engine.publication.epoch, address)
    if on_ready is not None:
        on_ready(address)
    await stop.wait()
    log.info("draining")
    await healthy.enter_graceful_shutdown()
    # gRPC cancels what has arrived and was not handed to us yet, so the loop gets a moment to take it.
    await asyncio.sleep(SETTLE_SECONDS)
    await server.stop(drain_seconds)
    await _others_to_end()
    service.close()


async def _others_to_end() -> None:
    """Wait for the requests that were cut off: stopping tells them to end, and doesn't wait until they have.

    A loop that closes over them makes each leave the traceback of its cancellation in the log.
    """
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=END_SECONDS)


def _server(limits: Limits) -> grpc.aio.Server:
    options = [
        ("grpc.max_receive_message_length", limits.request_bytes),
        ("grpc.max_send_message_length", -1),
        # Else a second server on the same port would silently take half of the requests.
        ("grpc.so_reuseport", 0),
    ]
    return grpc.aio.server(interceptors=[Guard()], options=options)


def _see_that_free(host: str, port: int) -> None:
    """Try the address first: gRPC only says that binding failed, and a model takes seconds to load."""
    if not 0 <= port < 2**16:
        raise ServerError(f"{port} is no port; choose one from 1 to 65535, or 0 for any that is free")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServerError(f"port {port} of {host} is in use; stop what listens there or choose another") from error
        raise ServerError(f"can't listen on {host} port {port}: {error.strerror}; choose another") from error


def _bind(server: grpc.aio.Server, host: str, port: int) -> int:
    try:
        return int(server.add_insecure_port(_address(host, port)))
    except RuntimeError as error:
        raise ServerError(f"port {port} of {host} was taken while the model was loaded; choose another") from error


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def main(arguments: list[str] | None = None) -> int:
    """`python -m serving.server STORE [--host H] [--port P]`: prints `listening on ADDRESS`, then serves."""
    parser = argparse.ArgumentParser(prog="serving.server", description=serve.__doc__)
    parser.add_argument("store")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=50051)
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_SECONDS)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        serve(
            given.store,
            given.host,
            given.port,
            drain_seconds=given.drain_seconds,
            on_ready=lambda address: print(f"listening on {address}", flush=True),
        )
    except UserfmError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
