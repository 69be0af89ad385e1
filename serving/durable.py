"""Writing so that what was acknowledged survives a crash, and what was not leaves no trace.

A rename is atomic but not durable until the folder is synced, and a synced folder may still name a file whose
bytes are not on disk: so always file first, folder second (https://danluu.com/file-consistency/).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenization.disk import sync

SCRATCH = ".writing-"
"""Prefix of files and folders under construction; whoever holds the lock may remove them."""


def sync_tree(root: Path) -> None:
    """Sync every file below `root`, then every folder from the deepest up, `root` included."""
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            sync(Path(folder) / name)
        sync(Path(folder))


def sync_up(folder: Path, top: Path) -> None:
    """Sync the names that lead to `folder`: itself and every folder above it up to and including `top`'s parent."""
    while True:
        sync(folder)
        if folder == top.parent or folder == folder.parent:
            return
        folder = folder.parent


def write_file(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: readers and crashes see the old file or the new one, whole."""
    scratch = path.with_name(SCRATCH + path.name)
    scratch.write_bytes(content)
    sync(scratch)
    scratch.replace(path)
    sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty scratch folder that becomes `path`, synced, when the block ends well; else it is removed."""
    scratch = path.with_name(SCRATCH + path.name)
    if scratch.exists():
        shutil.rmtree(scratch)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        sync_tree(scratch)
        scratch.replace(path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    sync(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of the file `path`, waiting for it; the kernel frees it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
