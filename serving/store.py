"""The embedding store: vectors pushed into Lance, published as snapshots that servers map.

    store/
      current.json                      what is served: users, items and model together
      publications/00000001.json ...    every publication there has been
      spaces/journey-v1/
        space.json                      the space, the model folder pushed last, and when
        user.lance/  item.lance/        the system of record: one dataset for each entity
        snapshots/user-3/ item-2/       raw arrays of one Lance version
        models/5f0c.../                 a copy of the model, so the store alone can be served

Lance starts threads that a fork does not carry over: processes that use a store are spawned, never forked.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from foundation.errors import ModelError
from foundation.space import Space
from serving.durable import SCRATCH, locked, new_folder, sync_tree, sync_up, write_file
from serving.errors import CorruptStore, NothingPublished, SpaceConflict, StoreError
from serving.ids import canonical, kind_name
from serving.publication import Base, Publication, make_current, next_epoch, read_current, read_epoch
from serving.rows import Entity, Rows, VectorBatch, check_servable
from serving.snapshot import Snapshot, write_snapshot

ROWS_A_COMMIT = 65_536
"""Small batches are gathered to about this many rows: each commit is a Lance version with files of its own."""
NEWER = (
    "source.event_seq > target.event_seq"
    " OR (source.event_seq = target.event_seq AND source.checksum <> target.checksum)"
)
"""When a pushed row replaces a stored one: it has seen more events, or as many with another outcome."""

Progress = Callable[[int], None]


class EmbeddingStore:
    """The store in the folder `root`, which the first push creates.

    Any number of readers; writers of one dataset queue for its lock.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def spaces(self) -> list[Space]:
        """Every space there is, the one whose model was pushed last at the end; those still without a model first.

        Raises CorruptStore.
        """
        found = [_read_space(path.parent) for path in self.root.glob("spaces/*/space.json")]
        return [held.space for held in sorted(found, key=lambda held: (held.pushed_at, held.space.version))]

    def numbered(self, space: Space) -> Space:
        """The space under the version that it has in this store, for every push into it.

        A fingerprint that the store knows keeps its version. A new one keeps the version it comes with where that is
        free, and takes the one after the highest of its name where it is not: training can't know what the store
        holds. The version is taken when this returns. Raises StoreError, CorruptStore.
        """
        self._space_folder(space)  # says so where the name is none, before there is a folder for the lock
        with locked(self.root / "spaces.lock"):
            held = [other for other in self.spaces() if other.name == space.name]
            versions = {other.fingerprint: other.version for other in held}
            free = max(versions.values()) + 1 if space.version in versions.values() else space.version
            known = replace(space, version=versions.get(space.fingerprint, free))
            self._claim(known)
        return known

    def push(
        self, space: Space, entity: Entity, batches: Iterable[VectorBatch], progress: Progress | None = None
    ) -> int:
        """Insert or update vectors of one entity and return how many rows were sent.

        Sending the same rows again changes nothing, and a row never replaces one that has seen more events
        (`event_seq`), so an interrupted push is repeated, or resumed by leaving out what is in `pushed`. On
        return every row is on disk; `progress` hears the number of rows committed so far. Raises StoreError,
        SpaceConflict.
        """
        self._claim(space)
        path = self._dataset(space, entity)
        rows = 0
        with locked(self._space_folder(space) / f"{entity}.lock"):
            for table in _commits(batches, space.width):
                _upsert(path, table)
                rows += table.num_rows
                if progress is not None:
                    progress(rows)
            if path.exists():
                sync_tree(path)
                sync_up(path.parent, self.root)
        return rows

    def push_model(self, space: Space, model: str | Path) -> Path:
        """Copy a model directory into the space's folder, for the next `publish` to name. Returns the copy, in which
        space.json is this very `space`, version and all.

        Raises StoreError when `model` is no model directory, SpaceConflict when it is of another space.
        """
        source = Path(model)
        if not (source / "space.json").is_file():
            raise StoreError(f"{source} is no model directory: it has no space.json")
        found = Space.from_json((source / "space.json").read_text())
        if found.fingerprint != space.fingerprint:
            raise SpaceConflict(_conflict(f"the model in {source}", found, space))
        self._claim(space)
        folder = self._space_folder(space)
        with locked(folder / "space.lock"):
            described = space.to_json().encode()
            copy = folder / "models" / _digest(source, described)
            if not _unchanged(copy):
                shutil.rmtree(copy, ignore_errors=True)
                copy.parent.mkdir(exist_ok=True)
                with new_folder(copy) as scratch:
                    shutil.copytree(source, scratch, dirs_exist_ok=True)
                    (scratch / "space.json").write_bytes(described)
            _write_space(folder, _Held(space, str(copy.relative_to(self.root)), time.time()))
        return copy

    def pushed_model(self, space: Space) -> Path:
        """The model directory pushed last to this space, published or not. Raises StoreError where none was,
        CorruptStore where a file of it is not what was pushed."""
        folder = self._space_folder(space)
        held = _read_space(folder)
        if held.model is None:
            raise StoreError(f"{folder} has vectors and no model; push its run again")
        return self._sound(self.root / held.model)

    def pushed(self, space: Space, entity: Entity) -> pa.Table:
        """What already has a vector in this space, and how many events that vector has seen: columns id (text or
        int64) and event_seq (int64), to leave out of a push what it would not change."""
        path = self._dataset(space, entity)
        if not _exists(path):
            return pa.table({"id": pa.array([], pa.large_string()), "event_seq": pa.array([], pa.int64())})
        stored = _open(path).to_table(columns=["id", "event_seq"])
        return pa.table({"id": canonical(stored["id"]), "event_seq": stored["event_seq"]})

    def publish(self, space: Space) -> Publication:
        """Make what has been pushed to `space` current, all of it or nothing.

        Checks the vectors (count, width, finite, norms, checksums) and the model, writes snapshots, syncs them, then
        moves one pointer. Publishing what is already current changes nothing. Raises PublishRefused, CorruptStore
        or StoreError, and then what was served before still is.
        """
        folder = self._space_folder(space)
        held = _read_space(folder)
        claimed = held.space
        if claimed.fingerprint != space.fingerprint:
            raise SpaceConflict(_conflict("the space to publish", space, claimed))
        with locked(self.root / "publish.lock"):
            _sweep(folder / "snapshots")
            bases = [self._freeze(space, entity) for entity in (Entity.USER, Entity.ITEM)]
            before = self._current_or_none()
            publication = Publication(
                epoch=next_epoch(self.root),
                previous=before.epoch if before else None,
                space=claimed,
                user=bases[0],
                item=bases[1],
                model=held.model,
                published_at=time.time(),
            )
            self.model(publication)  # raises where it is damaged
            if before and before.serves_the_same(publication):
                return before
            make_current(self.root, publication)
            return publication

    def rollback(self) -> Publication:
        """Serve again what was served before the current publication. Raises StoreError when there was nothing."""
        self.current()  # says so where there is no store, instead of making a folder for the lock
        with locked(self.root / "publish.lock"):
            now = self.current()
            if now.previous is None:
                raise StoreError(f"nothing was published to {self.root} before epoch {now.epoch}")
            target = read_epoch(self.root, now.previous)
            publication = replace(target, epoch=next_epoch(self.root), published_at=time.time())
            make_current(self.root, publication)
            return publication

    def current(self) -> Publication:
        """What is served now. Raises NothingPublished, StoreError, CorruptStore."""
        return read_current(self.root)

    def snapshot(self, publication: Publication, entity: Entity) -> Snapshot:
        """The published vectors of one entity, mapped and checked. Raises CorruptStore."""
        return Snapshot.open(self.root / publication.base(entity).snapshot)

    def model(self, publication: Publication) -> Path | None:
        """The folder of the published model with its heads, if there is one. Raises CorruptStore where a file of it is
        not what was pushed."""
        if publication.model is None:
            return None
        return self._sound(self.root / publication.model)

    def _sound(self, folder: Path) -> Path:
        if not _unchanged(folder):
            raise CorruptStore(f"{folder} is not the model that was pushed there; push its run again, or roll back")
        return folder

    def _current_or_none(self) -> Publication | None:
        try:
            return self.current()
        except NothingPublished:
            return None

    def _space_folder(self, space: Space) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", space.id):
            raise StoreError(f"a space can't be called {space.name!r}; use letters, digits, dots and dashes")
        return self.root / "spaces" / space.id

    def _dataset(self, space: Space, entity: Entity) -> Path:
        return self._space_folder(space) / f"{entity}.lance"

    def _claim(self, space: Space) -> None:
        """Give the space its folder, or see that the folder is of this very space."""
        folder = self._space_folder(space)
        with locked(folder / "space.lock"):
            if not (folder / "space.json").exists():
                (folder / "snapshots").mkdir(exist_ok=True)
                _write_space(folder, _Held(space, None, 0.0))
            claimed = _read_space(folder).space
        if claimed.fingerprint != space.fingerprint or claimed.width != space.width:
            raise SpaceConflict(_conflict("the vectors to push", space, claimed))

    def _freeze(self, space: Space, entity: Entity) -> Base:
        """The newest Lance version of one entity as a checked snapshot."""
        path = self._dataset(space, entity)
        if not _exists(path):
            raise StoreError(f"no {entity} vectors have been pushed to {space.id}; push users and items first")
        dataset = _open(path)
        folder = self._space_folder(space) / "snapshots" / f"{entity}-{dataset.version}"
        if not _intact(folder):
            rows = Rows.from_table(dataset.to_table(), str(path))
            check_servable(rows, space.width, str(path))
            with new_folder(folder) as scratch:
                write_snapshot(scratch, rows, entity, space.fingerprint)
        return Base(dataset.version, str(folder.relative_to(self.root)), dataset.count_rows())


@dataclass(frozen=True)
class _Held:
    """A space of the store. model: the folder pushed last, below the store's root; pushed_at: when, in seconds since
    1970 UTC, 0 where none was."""

    space: Space
    model: str | None
    pushed_at: float


def _commits(batches: Iterable[VectorBatch], width: int) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for batch in batches:
        waiting.append(batch.to_table(width))
        if sum(table.num_rows for table in waiting) >= ROWS_A_COMMIT:
            yield _one_row_an_id(waiting)
            waiting = []
    if waiting:
        yield _one_row_an_id(waiting)


def _one_row_an_id(tables: list[pa.Table]) -> pa.Table:
    """The tables as one; of rows with the same id the one with the most events, the later among equals.

    Lance refuses, or silently doubles, an id that comes twice in one upsert.
    """
    if len({table.schema.field("id").type for table in tables}) > 1:
        raise StoreError("some batches have text ids and some integers; an entity's ids are all of one kind")
    table = pa.concat_tables(tables).combine_chunks()
    codes = table["id"].combine_chunks().dictionary_encode().indices.to_numpy()
    newest_first = np.lexsort((np.arange(len(codes)), table["event_seq"].to_numpy()))[::-1]
    _, first = np.unique(codes[newest_first], return_index=True)
    return table if len(first) == len(codes) else table.take(pa.array(np.sort(newest_first[first])))


def _upsert(path: Path, table: pa.Table) -> None:
    if not _exists(path):
        lance.write_dataset(table, str(path), mode="create")
        return
    dataset = _open(path)
    stored, pushed = (kind_name(each.schema.field("id").type) for each in (dataset, table))
    if stored != pushed:
        raise StoreError(f"the ids in {path} are {stored}, those pushed are {pushed}; convert them to {stored}")
    upsert = dataset.merge_insert("id").when_matched_update_all(NEWER).when_not_matched_insert_all()
    upsert.execute(table)


def _exists(path: Path) -> bool:
    """Whether a first commit was made; a crash before it leaves files that the next push overwrites."""
    return any((path / "_versions").glob("*.manifest"))


def _open(path: Path) -> Any:
    try:
        return lance.dataset(str(path))
    except (OSError, ValueError) as error:
        raise CorruptStore(f"{path} can't be opened; push this space into an empty store") from error


def _intact(snapshot: Path) -> bool:
    """Whether a snapshot is there and holds; a damaged one is removed, to be written again."""
    if not snapshot.exists():
        return False
    try:
        Snapshot.open(snapshot)
    except CorruptStore:
        shutil.rmtree(snapshot)
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove what a crashed publish left half-written. Needs the lock."""
    for left in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(left)


def _digest(model: Path, described: bytes) -> str:
    """A name for a model's content: 16 hex digits of SHA-256 over names and bytes of its files, space.json being
    `described`."""
    digest = hashlib.sha256()
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        name = str(path.relative_to(model))
        with io.BytesIO(described) if name == "space.json" else path.open("rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _unchanged(model: Path) -> bool:
    """Whether a copied model is there, every file of it as it was pushed."""
    described = model / "space.json"
    return described.is_file() and _digest(model, described.read_bytes()) == model.name


def _write_space(folder: Path, held: _Held) -> None:
    content = {"space": json.loads(held.space.to_json()), "model": held.model, "pushed_at": held.pushed_at}
    write_file(folder / "space.json", (json.dumps(content, indent=2) + "\n").encode())


def _read_space(folder: Path) -> _Held:
    path = folder / "space.json"
    if not path.exists():
        raise StoreError(f"nothing has been pushed to {folder}; run `userfm push` first")
    try:
        content = json.loads(path.read_text())
        space = Space.from_json(json.dumps(content["space"]))
        return _Held(space, content["model"], content.get("pushed_at", 0.0))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ModelError) as error:
        raise CorruptStore(f"{path} can't be read; push this space into an empty store") from error


def _conflict(what: str, offered: Space, held: Space) -> str:
    return (
        f"{what} has fingerprint {offered.fingerprint[:12]} (width {offered.width}), the store holds {held.id} with"
        f" {held.fingerprint[:12]} (width {held.width}); `EmbeddingStore.numbered` gives the new model the next version"
    )
