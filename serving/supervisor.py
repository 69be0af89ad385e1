"""A server in a process of its own: started, waited for, drained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from serving.errors import ServerError
from serving.server import DRAIN_SECONDS

_READY = "listening on "


class ServerProcess:
    """`serving.server` over a store, in a fresh process; a context manager that drains it.

    `address` is what a client takes, `pid` the process. `drain_seconds`: what is still running so long after
    SIGTERM is cut off. Raises ServerError with the server's own sentence when it does not start.
    """

    def __init__(
        self, store: str | Path, host: str = "127.0.0.1", port: int = 0, drain_seconds: float = DRAIN_SECONDS
    ) -> None:
        # -P, because the folder we are in may own a package called serving.
        command = [sys.executable, "-P", "-m", "serving.server", str(store), "--host", host, "--port", str(port)]
        command += ["--drain-seconds", str(drain_seconds)]
        # A file and not a pipe: nobody reads it while the server runs, and a full pipe would stop it.
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=_environment()
        )
        self.pid = self._process.pid
        self.address = self._wait_until_ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def drain(self) -> None:
        """Ask the server to finish what it has accepted and then to end."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, 0 after a drain, once the server has ended."""
        return self._process.wait(timeout)

    def stop(self, timeout: float = 30.0) -> int:
        """Drain and wait; end the process by force after `timeout` seconds. Returns the exit code."""
        if self._process.poll() is None:
            self.drain()
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self.wait()
        finally:
            self._close()

    def log(self) -> str:
        """What the server has written to its log so far."""
        return os.pread(self._errors.fileno(), 2**20, 0).decode(errors="replace")

    def _wait_until_ready(self) -> str:
        output = self._process.stdout
        line = output.readline() if output else ""
        if line.startswith(_READY):
            return line.removeprefix(_READY).strip()
        self._process.kill()
        self._process.wait()
        said = self.log().strip().splitlines() or ["it said nothing"]
        self._close()
        raise ServerError(said[-1])

    def _close(self) -> None:
        self._errors.close()
        if self._process.stdout:
            self._process.stdout.close()


def _environment() -> dict[str, str]:
    """Ours, and where this package was imported from: the parent may run from a checkout that is not installed."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": root if not path else os.pathsep.join([root, path])}
