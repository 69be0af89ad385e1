"""Checkpoints of a run: atomic, checksummed, private to it.

They hold tensors and numbers only and are read with `weights_only`, so loading one runs no code.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from tokenization.disk import sync
from tokenization.errors import first_line
from training.errors import RunError

log = logging.getLogger("userfm.training")

Kept = Callable[[Tensor, Tensor], Tensor]
"""(weight, something that is kept of it) → the same as it is written, or as it is read: on disk everything is whole,
also where weights lie in parts on ranks."""

KEPT = 2  # the newest and the one before it, should the newest prove torn
# What reading raises: the disk; the checksum; torch, for bytes that are whole but nothing it would load.
_UNREADABLE = (OSError, ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError)


def as_it_is(_: Tensor, value: Tensor) -> Tensor:
    """Of weights that every rank has whole."""
    return value


def save(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write `state` as the newest checkpoint; returns its path. The folder is closed to other users (mode 0700)."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    path = folder / f"step-{step:09d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    fresh = path.with_suffix(".tmp")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError:
        fresh.unlink(missing_ok=True)  # on a full disk the half of it takes room that the next one needs
        raise
    sync(folder)
    # Later steps are torn, or of a life of the run that was given up: they take nobody's place.
    before = [other for other in _newest_first(folder) if other.name < f"step-{step:09d}"]
    for other in {*folder.glob("step-*")} - {path, *before[: KEPT - 1]}:
        other.unlink()
    return path


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same with tensors of its own, on the CPU."""
    return tree_map_only(Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), dict(state))  # type: ignore[no-any-return]


class Saver:
    """Writes checkpoints of a run while it goes on, one at a time, on a thread of its own; the first rank's does.

    One that can't be written (a full disk) is a warning: the one before it stands, and the next one is tried. The last
    one is not: what a run ends with must be there.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self._folder, self._writes = folder, writes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[Path] | None = None

    def begin(self, step: int, state: Mapping[str, Any]) -> None:
        """Start to write a checkpoint, after the one before it. state: must not change any more (`copied`)."""
        if not self._writes:
            return
        self._settle()
        self._writing = self._thread.submit(save, self._folder, step, state)

    def last(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the checkpoint with which a run ends. Raises OSError where it can't be written."""
        if not self._writes:
            return
        self._settle()
        save(self._folder, step, state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *of_error: object) -> None:
        self._settle()
        self._thread.shutdown()

    def _settle(self) -> None:
        if self._writing is None:
            return
        try:
            self._writing.result()
        except OSError as error:
            log.warning("no checkpoint was written, the one before it stands: %s", error)
        finally:
            self._writing = None


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, its tensors on the CPU; None where there is none.

    One that is damaged is passed over with a warning in the log. Raises RunError where checkpoints exist and none is
    whole.
    """
    newest = _newest(folder)
    return None if newest is None else newest[1]


def newest_step(folder: Path) -> int:
    """The step after which a run goes on that continues from `load_newest`: 0 where it begins. Raises RunError as that
    does."""
    newest = _newest(folder)
    return 0 if newest is None else newest[0]


def _newest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    paths = _newest_first(folder)
    for path in paths:
        try:
            return int(path.name.split("-")[1]), _read(path)
        except _UNREADABLE as error:
            log.warning("%s is damaged, the checkpoint before it is taken: %s", path, first_line(error))
    if paths:
        raise RunError(f"no checkpoint in {folder} is whole: start the run anew with --restart")
    return None


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest()[:16] != path.stem.rsplit("-", 1)[1]:
        raise ValueError("its bytes are not those that were written")
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"), reverse=True)
