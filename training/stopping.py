"""A run that is asked to stop: it keeps a checkpoint and ends, and the same command goes on from there.

SIGTERM is how schedulers ask (Kubernetes before it takes a pod, Slurm before it takes a node). Workers of a Ray cluster
are other processes on other machines, so the driver passes the wish on as a file in the run's folder, which they share.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

Wish = Callable[[], bool]
"""Whether the run should stop after the step that is being made."""

FILE = "stop"


@contextmanager
def on_sigterm() -> Iterator[Wish]:
    """Whether SIGTERM has come, while this lasts; the handler before is put back at the end. Off the main thread, where
    no handler can be set, it has not."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def note(number: int, frame: FrameType | None) -> None:
        came.set()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def pass_on(folder: Path) -> None:
    """Ask whoever trains in this run folder, on whatever machine, to stop."""
    (folder / FILE).touch()


def passed_on(folder: Path) -> Wish:
    """Whether somebody asked the run in this folder to stop."""
    return (folder / FILE).exists


def take_back(folder: Path) -> None:
    """Forget an earlier wish: whoever starts the run again wants it to go on."""
    (folder / FILE).unlink(missing_ok=True)
