"""What a corpus writes: new files beside those that are there, and a whole folder in the place of another."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tokenization.corpus.manifest import Manifest, following, make_durable
from tokenization.corpus.opened import NOTHING, Onward, write_keys, write_open
from tokenization.corpus.parts import write_parts
from tokenization.disk import sync
from tokenization.errors import CorpusError
from tokenization.tokenizer.tokenizer import Tokenizer


def with_part(
    folder: Path,
    manifest: Manifest,
    tables: Iterable[pa.Table],
    tokenizer: Tokenizer | None = None,
    quarantine: pa.Table | None = None,
    onward: Onward = NOTHING,
) -> Manifest:
    """Write what is new beside what is there, durably. It counts once the manifest returned is written."""
    new = write_parts(folder / "tokens", following(manifest.parts), tables, manifest.format)
    parts = (*manifest.parts, *(f"tokens/{path.name}" for path in new))
    kept = folder / "open" / f"{following(manifest.parts):05}.parquet"
    is_open = write_open(kept, onward.opened)
    paths = (f"open/{kept.name}" if is_open else "",) * len(new)
    new += [kept] if is_open else []
    manifest = replace(manifest, parts=parts, open=(*manifest.open, *paths))
    known = folder / "keys" / f"{following(manifest.keys):05}.parquet"
    if write_keys(known, onward.keys):
        new.append(known)
        manifest = replace(manifest, keys=(*manifest.keys, f"keys/{known.name}"))
    if tokenizer is not None:
        new.append(folder / "tokenizers" / f"{following([manifest.tokenizer]):05}")
        tokenizer.save(new[-1])
        manifest = replace(manifest, tokenizer=f"tokenizers/{new[-1].name}")
    if (quarantine is not None and quarantine.num_rows) or not manifest.quarantine:
        new.append(folder / "quarantine" / f"{following(manifest.quarantine):05}.parquet")
        new[-1].parent.mkdir(exist_ok=True)
        empty = pa.table({"reason": pa.array([], pa.string())})
        pq.write_table(empty if quarantine is None else quarantine, new[-1])
        manifest = replace(manifest, quarantine=(*manifest.quarantine, f"quarantine/{new[-1].name}"))
    for path in new:
        make_durable(path)
    sync(folder)
    return manifest


def check_growth(folder: Path, old: Tokenizer, tokenizer: Tokenizer) -> None:
    """A code that is in the corpus must go on to mean what it meant."""
    for name, vocabulary in old.vocabularies.items():
        later = tokenizer.vocabularies.get(name, vocabulary)
        if len(later) < len(vocabulary) or later.prefix_hash(len(vocabulary)) != vocabulary.prefix_hash():
            raise CorpusError(f"{folder}: this tokenizer gives {name!r} other codes; append with the corpus's own")
    for name, codec in old.numbers.items():
        if tokenizer.numbers.get(name, codec) != codec:
            raise CorpusError(f"{folder}: this tokenizer bins {name!r} otherwise; append with the corpus's own")


def beside(folder: Path, what: str) -> Path:
    """Where a corpus is while it is written, or while another takes its place."""
    return folder.parent / f".{folder.name}.{what}"


def put_in_place(folder: Path, fresh: Path) -> None:
    """Give a folder the place of another, which goes."""
    old = beside(folder, "old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    fresh.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
