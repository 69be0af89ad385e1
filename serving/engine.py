"""What one published version can answer: immutable, so a server swaps versions by swapping engines.

Shapes: Q queries, N ids, D width of the space, K results.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from serving.errors import NoModel, SpaceConflict, UnknownId, WrongSpace
from serving.index import ExactIndex, Hits, Ranking
from serving.publication import Publication
from serving.rows import Entity, Float32s, Float64s
from serving.snapshot import Snapshot
from serving.store import EmbeddingStore

if TYPE_CHECKING:
    from serving.encoder import Encoder


@dataclass(frozen=True)
class Found:
    """Stored vectors [N, D] in the order asked; rows of unknown ids are zeros, with `known_N` False and `as_of_N` 0."""

    vectors_ND: Float32s
    known_N: npt.NDArray[np.bool_]
    as_of_N: Float64s


@dataclass(frozen=True)
class Engine:
    """One publication with its files mapped and, if it has a model, the model loaded."""

    publication: Publication
    users: Snapshot
    items: Snapshot
    index: ExactIndex
    _encoder: Encoder | None

    @classmethod
    def open(cls, store: EmbeddingStore) -> Engine:
        """Load what `store` has current. Raises NothingPublished, CorruptStore or SpaceConflict."""
        publication = store.current()
        users = store.snapshot(publication, Entity.USER)
        items = store.snapshot(publication, Entity.ITEM)
        folder = store.model(publication)
        encoder = None if folder is None else _load_encoder(folder)
        spaces = {users.fingerprint, items.fingerprint, publication.space.fingerprint}
        if encoder is not None:
            spaces.add(encoder.space.fingerprint)
        if len(spaces) > 1:
            raise SpaceConflict(f"epoch {publication.epoch} of {store.root} mixes {len(spaces)} spaces; publish again")
        return cls(publication, users, items, ExactIndex(items.vectors_ND), encoder)

    @property
    def encodes(self) -> bool:
        """Whether a model is loaded."""
        return self._encoder is not None

    @property
    def encoder(self) -> Encoder:
        """The loaded model. Raises NoModel."""
        if self._encoder is None:
            raise NoModel(
                "this store was published without a model, so it can't encode or score; push the model and publish"
            )
        return self._encoder

    def lookup(self, entity: Entity, ids: pa.Array) -> Found:
        """Stored vectors of canonical ids. Raises InvalidRequest for ids of the other kind."""
        stored = self._stored(entity)
        rows_N = stored.index.rows(ids)
        known_N = rows_N >= 0
        vectors_ND, as_of_N = stored.vectors_ND[rows_N], stored.as_of_N[rows_N]
        vectors_ND[~known_N] = 0
        as_of_N[~known_N] = 0
        return Found(vectors_ND, known_N, as_of_N)

    def near_items(self, ids: pa.Array, k: int) -> list[Ranking]:
        """The items nearest to each item, itself left out. Raises UnknownId."""
        rows_Q = self._rows(Entity.ITEM, ids)
        found = self.index.search(self.items.vectors_ND[rows_Q], k + 1)
        return [self._ranking(_without(hits, row, k)) for hits, row in zip(found, rows_Q, strict=True)]

    def near_users(self, ids: pa.Array, k: int) -> list[Ranking]:
        """The items nearest to each stored user. Raises UnknownId."""
        vectors_QD = self.users.vectors_ND[self._rows(Entity.USER, ids)]
        return [self._ranking(hits) for hits in self.index.search(vectors_QD, k)]

    def near_vectors(self, vectors_QD: Float32s, fingerprint: str, k: int) -> list[Ranking]:
        """The items nearest to the caller's vectors. Raises WrongSpace when they are of another space."""
        served = self.publication.space.fingerprint
        if fingerprint != served:
            raise WrongSpace(f"the vectors are in space {fingerprint or '(none given)'}, served is {served}")
        return [self._ranking(hits) for hits in self.index.search(vectors_QD, k)]

    def _stored(self, entity: Entity) -> Snapshot:
        return self.users if entity is Entity.USER else self.items

    def _rows(self, entity: Entity, ids: pa.Array) -> npt.NDArray[np.int64]:
        rows_Q = self._stored(entity).index.rows(ids)
        unknown = np.flatnonzero(rows_Q < 0)
        if len(unknown):
            # The place in the request and not the id: messages end up in logs.
            raise UnknownId(f"{entity} {unknown[0]} of the request (counted from 0) has no stored vector")
        return rows_Q

    def _ranking(self, hits: Hits) -> Ranking:
        return Ranking(self.items.ids.take(pa.array(hits.rows_K)), hits.scores_K)


def _load_encoder(folder: Path) -> Encoder:
    # Late, because a store without a model is served without torch.
    from serving.encoder import Encoder

    return Encoder.load(folder)


def _without(hits: Hits, row: int, k: int) -> Hits:
    kept = np.flatnonzero(hits.rows_K != row)[:k]
    return Hits(hits.rows_K[kept], hits.scores_K[kept])
