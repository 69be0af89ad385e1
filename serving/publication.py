"""The one file that says what is being served.

A publication names the user vectors, the item vectors and the model together, so no reader can see the users
of one version beside the items of another. Publications are numbered and never change; `current.json` is a
copy of one of them, replaced in one step. A rollback is a new publication with the content of an older one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foundation.space import Space
from serving.durable import write_file
from serving.errors import CorruptStore, NothingPublished, StoreError
from serving.rows import Entity

FORMAT = 1
CURRENT = "current.json"
HISTORY = "publications"


@dataclass(frozen=True)
class Base:
    """Published vectors of one entity: a Lance `version`, its `snapshot` folder below the store's root, its rows."""

    version: int
    snapshot: str
    rows: int


@dataclass(frozen=True)
class Publication:
    """What is served together.

    `epoch` grows by one with every publish and rollback; `previous` is the epoch a rollback returns to;
    `model` is a folder below the store's root, or None; `published_at` is in seconds since 1970 UTC.
    """

    epoch: int
    previous: int | None
    space: Space
    user: Base
    item: Base
    model: str | None
    published_at: float

    def base(self, entity: Entity) -> Base:
        """The published vectors of `entity`."""
        return self.user if entity is Entity.USER else self.item

    def serves_the_same(self, other: Publication) -> bool:
        """Whether a reader could tell the two apart only by their epochs."""
        return (self.space, self.user, self.item, self.model) == (
            other.space,
            other.user,
            other.item,
            other.model,
        )

    def to_json(self) -> str:
        """One JSON object with the format's number."""
        content = {
            "format": FORMAT,
            "epoch": self.epoch,
            "previous": self.previous,
            "space": json.loads(self.space.to_json()),
            "user": asdict(self.user),
            "item": asdict(self.item),
            "model": self.model,
            "published_at": self.published_at,
        }
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Publication:
        """Read what `to_json` wrote. Raises ValueError, TypeError or KeyError for anything else."""
        content: dict[str, Any] = json.loads(text)
        if content.pop("format") != FORMAT:
            raise ValueError("format")
        content["space"] = Space.from_json(json.dumps(content["space"]))
        content["user"] = Base(**content["user"])
        content["item"] = Base(**content["item"])
        return cls(**content)


def read_current(root: Path) -> Publication:
    """What the store at `root` serves. Raises NothingPublished, StoreError or CorruptStore."""
    if not root.is_dir():
        raise StoreError(f"there is no embedding store at {root}; `userfm push` makes one")
    path = root / CURRENT
    if not path.exists():
        raise NothingPublished(f"the store at {root} has nothing published yet; run `userfm publish`")
    return _read(path)


def read_epoch(root: Path, epoch: int) -> Publication:
    """One publication of the past, by its number."""
    return _read(_path(root, epoch))


def make_current(root: Path, publication: Publication) -> None:
    """Enter a publication into the history and point to it; when this returns both are on disk."""
    (root / HISTORY).mkdir(exist_ok=True)
    text = publication.to_json().encode()
    write_file(_path(root, publication.epoch), text)
    write_file(root / CURRENT, text)


def next_epoch(root: Path) -> int:
    """A number no publication of this store has had, counting one that was written but never pointed to."""
    return 1 + max((int(path.stem) for path in (root / HISTORY).glob("[0-9]*.json")), default=0)


def _path(root: Path, epoch: int) -> Path:
    return root / HISTORY / f"{epoch:08d}.json"


def _read(path: Path) -> Publication:
    try:
        return Publication.from_json(path.read_text())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptStore(
            f"{path} can't be read as a publication of format {FORMAT}; publish again, or use the version that wrote it"
        ) from error
