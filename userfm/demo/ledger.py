"""What of a demo is done, how long it took and how much memory: so that one that was cut off goes on."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

Figures = dict[str, Any]
SAMPLE_SECONDS = 0.5
"""Between two looks at the memory."""
SAVE_SECONDS = 5.0
"""Of the time of a run that crashes, at most so much is not counted."""


class Ledger:
    """The file stages.json: figures of each finished stage, seconds of all attempts, memory at most.

    A ledger of another key (other settings, other code) or of a demo that came to its end is begun anew; `fresh` says
    that it was, so the caller can throw away what lies beside it.
    """

    def __init__(self, path: Path, key: str, began: float) -> None:
        """began: `time.monotonic()` from which this attempt counts."""
        self._path, self._key, self._began = path, key, began
        self._lock = threading.Lock()
        found = _read(path)
        self.fresh = found is None or found["key"] != key or found["finished"]
        self._stages: dict[str, Figures] = {} if self.fresh or found is None else found["stages"]
        self._seconds_before: float = 0.0 if self.fresh or found is None else found["wall_seconds"]
        self.peak_rss_gib: float = 0.0 if self.fresh or found is None else found["peak_rss_gib"]

    @property
    def wall_seconds(self) -> float:
        """Seconds of this attempt and of those before it."""
        return self._seconds_before + time.monotonic() - self._began

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each finished stage."""
        return {name: stage["seconds"] for name, stage in self._stages.items()}

    def done(self, name: str) -> bool:
        """Whether a stage is finished."""
        return name in self._stages

    def stage(self, name: str, work: Callable[[], Figures]) -> Figures:
        """The figures of a stage, which is done unless it was before."""
        if name not in self._stages:
            began = time.monotonic()
            figures = work()
            self._stages[name] = {"seconds": time.monotonic() - began, "figures": figures}
            self.save()
        found: Figures = self._stages[name]["figures"]
        return found

    def save(self, finished: bool = False) -> None:
        """Write the file, in one step."""
        told = {
            "key": self._key,
            "finished": finished,
            "wall_seconds": self.wall_seconds,
            "peak_rss_gib": self.peak_rss_gib,
            "stages": self._stages,
        }
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._path.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
            unfinished.replace(self._path)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the memory of this process and of all it starts, until the block ends."""
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stop,), name="memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _watch(self, stop: threading.Event) -> None:
        saved = time.monotonic()
        while not stop.wait(SAMPLE_SECONDS):
            self.peak_rss_gib = max(self.peak_rss_gib, resident_bytes(psutil.Process()) / 2**30)
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()


def resident_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and of its descendants; pages they share are counted in each of them."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it ended while we counted, and holds nothing any more
            total += one.memory_info().rss
    return total


def key_of(root: Path, settings: object) -> str:
    """Changes whenever the settings or the sources of these packages do: stages of two programs don't mix."""
    digest = hashlib.sha256(repr(settings).encode())
    for package in ("tokenization", "foundation", "serving", "training", "userfm"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> Figures | None:
    try:
        found: Figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if {"key", "finished", "wall_seconds", "peak_rss_gib", "stages"} <= found.keys() else None
