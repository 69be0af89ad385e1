"""What makes files a corpus: the one file that names them, and the order in which things reach the disk."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenization.corpus.parts import Format
from tokenization.disk import sync
from tokenization.errors import CorpusError

FORMAT = 3
_FRESH = "corpus.json.new"
_FIRST_FORMAT = ("tokens.parquet", "tokens.lance", "tokenizer", "quarantine.parquet")


@dataclass(frozen=True)
class Manifest:
    """corpus.json: paths below the folder, and what is told of them.

    parts: tokens, in the order of writing. open: of each part, the events of groups that were open when it was
    written; "" where there are none. tokenizer: the newest. quarantine: what was refused, a file an append. keys: of
    event ids, likewise.
    appended: digests of the inputs that appends took in.
    """

    schema: str
    format: Format
    parts: tuple[str, ...]
    open: tuple[str, ...]
    tokenizer: str
    quarantine: tuple[str, ...]
    keys: tuple[str, ...]
    appended: tuple[str, ...]
    summary: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Of this format or an earlier one: the first had one part only, and neither kept what was open."""
        try:
            told = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CorpusError(f"{folder} is no corpus; make one with `userfm tokenize`") from error
        found = told.get("format") if isinstance(told, dict) else None
        if found not in range(1, FORMAT + 1):
            raise CorpusError(f"{folder} has corpus format {found}, this userfm reads 1 to {FORMAT}")
        try:
            name, format, summary = told["schema"], told["tokens"], told["summary"]
            if found == 1:
                part, refused = f"tokens.{format}", "quarantine.parquet"
                return cls(name, format, (part,), ("",), "tokenizer", (refused,), (), (), summary)
            parts, quarantine, appended = (tuple(told[key]) for key in ("parts", "quarantine", "appended"))
            opened, keys = (("",) * len(parts), ()) if found == 2 else (tuple(told["open"]), tuple(told["keys"]))
            return cls(name, format, parts, opened, told["tokenizer"], quarantine, keys, appended, summary)
        except KeyError as error:
            raise CorpusError(f"{folder} is damaged: its corpus.json has no {error}; tokenize again") from None

    def write(self, folder: Path) -> None:
        """Replace corpus.json: from then on the folder is what this says, whatever happens before and after."""
        told = {
            "format": FORMAT,
            "schema": self.schema,
            "tokens": self.format,
            "parts": self.parts,
            "open": self.open,
            "tokenizer": self.tokenizer,
            "quarantine": self.quarantine,
            "keys": self.keys,
            "appended": self.appended,
            "summary": dict(self.summary),
        }
        fresh = folder / _FRESH
        fresh.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        sync(fresh)
        fresh.replace(folder / "corpus.json")
        sync(folder)

    def clear(self, folder: Path) -> None:
        """Remove what a corpus has written and this does not name: what a crash left, or what was replaced."""
        named = {*self.parts, *self.open, *self.quarantine, *self.keys, self.tokenizer}
        kinds = ("tokens", "open", "tokenizers", "quarantine", "keys")
        found = [path for kind in kinds for path in folder.glob(f"{kind}/*")]
        for path in (*found, *(folder / name for name in (*_FIRST_FORMAT, _FRESH))):
            if str(path.relative_to(folder)) not in named and path.exists():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def following(paths: Iterable[str]) -> int:
    """The number after those that paths are called by."""
    return 1 + max((int(stem) for stem in (Path(path).stem for path in paths) if stem.isdigit()), default=-1)


def make_durable(path: Path) -> None:
    """Bring a file, or a folder and all in it, to the disk, and its name: Lance and Parquet writers do not."""
    for inner in path.rglob("*") if path.is_dir() else ():
        sync(inner)
    sync(path)
    sync(path.parent)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only process that changes a corpus; the lock goes with the process, however it ends.

    Raises:
        CorpusError: another one is at it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CorpusError(f"another process is writing to {folder}; try again when it is done") from None
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the disk refuses, as a sentence."""
    try:
        yield
    except OSError as error:
        raise CorpusError(f"{folder} can't be written: {error.strerror or error}") from error
