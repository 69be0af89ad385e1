"""`userfm serve`: a published store behind gRPC."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer


def serve(
    store: Annotated[Path, typer.Argument(help="Folder with something published.", show_default=False)],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 50051,
    drain_seconds: Annotated[float, typer.Option(help="How long to wait for open requests when stopped.")] = 10.0,
) -> None:
    """Serve a store: lookups, encoding of fresh events, nearest items, and the heads.

    Prints the address once it answers. SIGTERM or Ctrl-C drains: what was
    accepted is finished, what is new refused. The protocol is protos/userfm/v1,
    the client `userfm.client`; the standard gRPC health service is there too.

    \b
    Example:
      userfm serve store --port 50051
      userfm query space --address 127.0.0.1:50051
    """
    from serving.server import serve as run

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    run(
        store,
        host,
        port,
        drain_seconds=drain_seconds,
        on_ready=lambda address: print(f"listening on {address}", flush=True),
    )
