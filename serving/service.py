"""EmbeddingService: protobuf in, one call on the engine, protobuf out. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from serving.engine import Engine
from serving.errors import InvalidRequest
from serving.index import Ranking
from serving.rows import Entity
from serving.wire import (
    context_to_values,
    events_to_table,
    ids_from_proto,
    ids_to_proto,
    matrix_to_proto,
    moment,
    space_to_proto,
    users_to_table,
    vectors_from_proto,
)
from serving.worker import Worker
from userfm.v1 import embedding_pb2 as pb
from userfm.v1.embedding_pb2_grpc import EmbeddingServiceServicer

_ENTITIES = {pb.ENTITY_USER: Entity.USER, pb.ENTITY_ITEM: Entity.ITEM}


@dataclass(frozen=True)
class Limits:
    """The largest request that is answered.

    `ids` of a Lookup; `queries` of a Search or Score; `k` results for each; `events` of an Encode or Score, with
    the rows of users; `request_bytes` of any; `waiting` requests to compute, beyond which new ones are refused.
    """

    ids: int = 4_096
    queries: int = 256
    k: int = 1_000
    events: int = 20_000
    request_bytes: int = 4 * 2**20
    waiting: int = 64


class EmbeddingService(EmbeddingServiceServicer):  # type: ignore[misc]
    """Answers from `engine`; searching and the model each have a thread, so a lookup waits for neither."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._space = space_to_proto(engine.publication.space)
        self._searching = Worker("search", limits.waiting)
        self._encoding = Worker("encode", limits.waiting)

    def close(self) -> None:
        """End the computing threads."""
        self._searching.close()
        self._encoding.close()

    async def Lookup(self, request: pb.LookupRequest, context: Any) -> pb.LookupResponse:
        """Stored vectors, straight from the mapped matrix."""
        entity = _ENTITIES.get(request.entity)
        if entity is None:
            raise InvalidRequest("the request says no entity; set ENTITY_USER or ENTITY_ITEM")
        ids = ids_from_proto(request.ids)
        _at_most(len(ids), self._limits.ids, "ids")
        found = self._engine.lookup(entity, ids)
        return pb.LookupResponse(
            space=self._space,
            vectors=matrix_to_proto(found.vectors_ND),
            found=found.known_N.tobytes(),
            as_of=matrix_to_proto(found.as_of_N),
        )

    async def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        """Vectors of the users in the request."""
        encoder, at = self._engine.encoder, moment(request)
        asked = self._asked(request)
        encoded = await self._encoding.run(lambda: encoder.encode(*asked(), at))
        return pb.EncodeResponse(
            space=self._space, users=ids_to_proto(encoded.users), vectors=matrix_to_proto(encoded.vectors_BD)
        )

    async def Search(self, request: pb.SearchRequest, context: Any) -> pb.SearchResponse:
        """Nearest items of stored items, of stored users or of the caller's vectors."""
        engine, k, kind = self._engine, self._k(request.k), request.WhichOneof("query")
        if kind == "vectors":
            vectors_QD = vectors_from_proto(request.vectors.matrix, engine.publication.space.width)
            _at_most(len(vectors_QD), self._limits.queries, "query vectors")
            fingerprint = request.vectors.fingerprint
            rankings = await self._searching.run(lambda: engine.near_vectors(vectors_QD, fingerprint, k))
        elif kind in ("items", "users"):
            ids = ids_from_proto(getattr(request, kind))
            _at_most(len(ids), self._limits.queries, "queries")
            near = engine.near_items if kind == "items" else engine.near_users
            rankings = await self._searching.run(lambda: near(ids, k))
        else:
            raise InvalidRequest("the request has no query; set items, users or vectors")
        return pb.SearchResponse(space=self._space, rankings=_rankings(rankings))

    async def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:
        """Items ranked by the head of one surface."""
        encoder, k, surface = self._engine.encoder, self._k(request.k), request.WhichOneof("surface")
        if surface == "home":
            asked = self._asked(request.home)
            at, values = moment(request.home), context_to_values(request.home.context)
            scored = await self._encoding.run(lambda: encoder.home(*asked(), at, values, k))
            return pb.ScoreResponse(
                space=self._space, users=ids_to_proto(scored.users), rankings=_rankings(scored.rankings)
            )
        if surface == "search":
            queries = list(request.search.queries)
            _at_most(len(queries), self._limits.queries, "queries")
            rankings = await self._encoding.run(lambda: encoder.search(queries, k))
        elif surface == "item_to_item":
            ids = ids_from_proto(request.item_to_item.items)
            _at_most(len(ids), self._limits.queries, "items")
            rankings = await self._encoding.run(lambda: encoder.item_to_item(ids, k))
        else:
            raise InvalidRequest("the request says no surface; set home, search or item_to_item")
        return pb.ScoreResponse(space=self._space, rankings=_rankings(rankings))

    async def GetSpace(self, request: pb.GetSpaceRequest, context: Any) -> pb.GetSpaceResponse:
        """What is served."""
        publication = self._engine.publication
        return pb.GetSpaceResponse(
            space=self._space,
            epoch=publication.epoch,
            users=publication.user.rows,
            items=publication.item.rows,
            encodes=self._engine.encodes,
        )

    def _asked(
        self, request: pb.EncodeRequest | pb.ScoreRequest.Home
    ) -> Callable[[], tuple[pa.Table, pa.Table | None]]:
        """What makes the tables of events and of users, off the event loop."""
        what = "events and users" if request.users else "events"
        _at_most(len(request.events) + len(request.users), self._limits.events, what)
        return lambda: (events_to_table(request.events), users_to_table(request.users))

    def _k(self, k: int) -> int:
        _at_most(k, self._limits.k, "results (k)")
        return k


def _at_most(count: int, limit: int, what: str) -> None:
    if not 1 <= count <= limit:
        raise InvalidRequest(f"the request has {count} {what}; 1 to {limit} are answered")


def _rankings(rankings: Sequence[Ranking]) -> list[pb.Ranking]:
    return [pb.Ranking(items=ids_to_proto(r.ids), scores=matrix_to_proto(r.scores_K)) for r in rankings]
