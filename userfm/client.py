"""Vectors and rankings from an embedding server. Needs numpy, grpcio and protobuf, nothing of the model.

    with EmbeddingClient("127.0.0.1:50051") as client:
        users = client.lookup_users([17, 42])            # users.vectors: float32 [2, width]
        home = client.score_home(events, k=10)           # home.rankings[0].ids, .scores

Ids are text or integers and come back as they were given: integers as int64 arrays, text as object arrays of
`str`. Events are mappings of the schema's column names to values, or a pandas, polars or Arrow table of them; so is
what is known of users (`users`), a row a user, and whoever stands there is answered, with or without events.
Times are seconds since 1970 UTC. Every answer says its `space`; vectors meet only within one.

    ClientError
    ├── InvalidRequest      the request is wrong: mend it
    ├── UnknownId           an id that has to be stored is not
    ├── WrongSpace          vectors of another space, or a store without a model
    ├── Overloaded          too much at once: try again, or ask for less
    ├── DeadlineExceeded    no answer within the client's timeout
    ├── Unavailable         no server at this address, or one that is ending
    └── ServerFailure       the server made a mistake; its log has the number
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from userfm.v1 import embedding_pb2 as pb
from userfm.v1.embedding_pb2_grpc import EmbeddingServiceStub

Floats = npt.NDArray[np.float32]
Ids = Sequence[int] | Sequence[str] | npt.NDArray[Any]
Events = Iterable[Mapping[str, object]] | Any


class ClientError(Exception):
    """A request that was not answered; the message is one sentence."""


class InvalidRequest(ClientError):
    """The server can't take this request: INVALID_ARGUMENT."""


class UnknownId(ClientError):
    """An id of the request has no stored vector: NOT_FOUND."""


class WrongSpace(ClientError):
    """The vectors are of another space, or the store has no model: FAILED_PRECONDITION."""


class Overloaded(ClientError):
    """The server has too much to do, or the request is too large: RESOURCE_EXHAUSTED."""


class DeadlineExceeded(ClientError):
    """No answer within the timeout: DEADLINE_EXCEEDED."""


class Unavailable(ClientError):
    """No server answers at the address (UNAVAILABLE), or it ended before it did (CANCELLED)."""


class ServerFailure(ClientError):
    """Any other status."""


_ERRORS = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: UnknownId,
    grpc.StatusCode.FAILED_PRECONDITION: WrongSpace,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,  # by a server that ends: this client cancels nothing
}


@dataclass(frozen=True)
class Space:
    """The embedding space of an answer: vectors of two spaces may meet only if their fingerprints are equal."""

    name: str
    version: int
    fingerprint: str
    width: int
    as_of: float
    lineage: tuple[str, ...]
    aligned_to: str | None
    frames: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Name and version as one word."""
        return f"{self.name}-v{self.version}"

    def accepts(self, offered: Space) -> bool:
        """Whether what was fitted on vectors of this space, and is frozen, may be given vectors of the offered one: of
        this very space, or of a successor that is aligned to it."""
        return self.width == offered.width and self.fingerprint in (offered.fingerprint, *offered.frames)


@dataclass(frozen=True)
class Served:
    """What a server serves: its `space`, the `epoch` of the publication, how much, and whether it can encode."""

    space: Space
    epoch: int
    users: int
    items: int
    encodes: bool


@dataclass(frozen=True)
class Vectors:
    """Stored vectors in the order asked.

    `vectors` float32 [n, width], zeros where `found` (bool [n]) is False; `as_of` float64 [n], the moment
    each vector describes.
    """

    space: Space
    ids: npt.NDArray[Any]
    vectors: Floats
    found: npt.NDArray[np.bool_]
    as_of: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Encoded:
    """Vectors computed from what was sent: `users` [n] and `vectors` float32 [n, width]."""

    space: Space
    users: npt.NDArray[Any]
    vectors: Floats


@dataclass(frozen=True)
class Ranking:
    """Items, best first: `ids` [k] and `scores` float32 [k]."""

    ids: npt.NDArray[Any]
    scores: Floats


@dataclass(frozen=True)
class Rankings:
    """One ranking for each query; `users` says whose they are when events were sent, and is empty otherwise."""

    space: Space
    users: npt.NDArray[Any]
    rankings: list[Ranking]


class EmbeddingClient:
    """A connection to the server at `address` (`host:port`); a context manager, safe to share between threads.

    `timeout` in seconds bounds every call. Errors are the tree at the top of this module.
    """

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.address = address
        self.timeout = timeout
        self._channel = grpc.insecure_channel(address, options=options)
        self._stub = EmbeddingServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def space(self) -> Served:
        """What the server serves."""
        answer = self._call(self._stub.GetSpace, pb.GetSpaceRequest())
        return Served(_space(answer.space), answer.epoch, answer.users, answer.items, answer.encodes)

    def lookup_users(self, ids: Ids) -> Vectors:
        """Stored user vectors."""
        return self._lookup(pb.ENTITY_USER, ids)

    def lookup_items(self, ids: Ids) -> Vectors:
        """Stored item vectors."""
        return self._lookup(pb.ENTITY_ITEM, ids)

    def encode(self, events: Events = (), at: float | None = None, users: Events = ()) -> Encoded:
        """Vectors of the users in `events` (whole histories) and `users` (what is known of them) at the moment `at`;
        None: each user's last event."""
        request = pb.EncodeRequest(events=_events(events), at=at, users=_events(users, pb.User))
        answer = self._call(self._stub.Encode, request)
        return Encoded(_space(answer.space), _ids_from(answer.users), _matrix_from(answer.vectors))

    def search(
        self,
        k: int = 10,
        *,
        items: Ids | None = None,
        users: Ids | None = None,
        vectors: npt.ArrayLike | None = None,
        space: Space | None = None,
    ) -> Rankings:
        """The `k` items with the largest dot product, for stored `items`, stored `users` or `vectors` [n, width].

        Give one of the three; `vectors` come with the `space` of the answer they are from. An item is not its
        own neighbour. Raises ValueError when none or several are given.
        """
        if sum(query is not None for query in (items, users, vectors)) != 1:
            raise ValueError("search takes one of items, users and vectors")
        request = pb.SearchRequest(k=_count(k))
        if vectors is not None:
            if space is None:
                raise ValueError("search by vectors needs the space they are in: pass space=answer.space")
            request.vectors.matrix.CopyFrom(_matrix(vectors))
            request.vectors.fingerprint = space.fingerprint
        elif items is not None:
            request.items.CopyFrom(_ids(items))
        else:
            request.users.CopyFrom(_ids(users if users is not None else []))
        return _rankings(self._call(self._stub.Search, request))

    def score_home(
        self,
        events: Events = (),
        k: int = 10,
        *,
        at: float | None = None,
        context: Mapping[str, object] | None = None,
        users: Events = (),
    ) -> Rankings:
        """What the users in `events` (whole histories) and `users` (what is known of them) want at the moment `at`.

        `context`: what is known of the request, by name of the schema's context facets (store, device).
        """
        told, known = _events(events), _events(users, pb.User)
        home = pb.ScoreRequest.Home(events=told, at=at, context=_cells(context or {}), users=known)
        return _rankings(self._call(self._stub.Score, pb.ScoreRequest(home=home, k=_count(k))))

    def score_search(self, queries: Sequence[str], k: int = 10) -> Rankings:
        """The items meant by each query."""
        search = pb.ScoreRequest.Search(queries=[queries] if isinstance(queries, str) else queries)
        return _rankings(self._call(self._stub.Score, pb.ScoreRequest(search=search, k=_count(k))))

    def score_item_to_item(self, items: Ids, k: int = 10) -> Rankings:
        """What goes with each item."""
        request = pb.ScoreRequest(item_to_item=pb.ScoreRequest.ItemToItem(items=_ids(items)), k=_count(k))
        return _rankings(self._call(self._stub.Score, request))

    def _lookup(self, entity: pb.Entity, ids: Ids) -> Vectors:
        request = pb.LookupRequest(entity=entity, ids=_ids(ids))
        answer = self._call(self._stub.Lookup, request)
        return Vectors(
            space=_space(answer.space),
            ids=_ids_from(request.ids),
            vectors=_matrix_from(answer.vectors),
            found=np.frombuffer(answer.found, np.bool_),
            as_of=_matrix_from(answer.as_of),
        )

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            status, details = error.code(), error.details()
            if _ERRORS.get(status) is Unavailable:
                details = f"no server answers at {self.address}, or it is ending; start one with `userfm serve`"
            if status is grpc.StatusCode.DEADLINE_EXCEEDED:
                details = f"{self.address} did not answer within {self.timeout:g} s"
            raise _ERRORS.get(status, ServerFailure)(details) from error


def _ids(ids: Ids) -> pb.Ids:
    values: list[Any] = ids.tolist() if isinstance(ids, np.ndarray) else [_plain(value) for value in ids]
    try:
        if all(isinstance(value, str) for value in values):
            return pb.Ids(texts=pb.Ids.Texts(values=values))
        return pb.Ids(integers=pb.Ids.Integers(values=values))
    except (TypeError, ValueError) as error:
        raise InvalidRequest("ids are all text or all integers of 64 bits; convert them to one kind") from error


def _ids_from(ids: pb.Ids) -> npt.NDArray[Any]:
    if ids.WhichOneof("kind") == "integers":
        return np.array(ids.integers.values, dtype=np.int64)
    # Objects: numpy's own text type cuts trailing NULs, and the id would not be the id that was sent.
    return np.array(ids.texts.values, dtype=object)


def _matrix(vectors: npt.ArrayLike) -> pb.Matrix:
    matrix = np.ascontiguousarray(vectors, dtype="<f4")
    matrix = matrix[None] if matrix.ndim == 1 else matrix
    return pb.Matrix(data=matrix.tobytes(), dtype=pb.DTYPE_FLOAT32, dims=matrix.shape)


def _matrix_from(matrix: pb.Matrix) -> npt.NDArray[Any]:
    dtype = "<f8" if matrix.dtype == pb.DTYPE_FLOAT64 else "<f4"
    return np.frombuffer(matrix.data, dtype).reshape(tuple(matrix.dims))


def _space(space: pb.Space) -> Space:
    aligned_to = space.aligned_to if space.HasField("aligned_to") else None
    told = (space.name, space.version, space.fingerprint, space.width, space.as_of)
    return Space(*told, tuple(space.lineage), aligned_to, tuple(space.frames))


def _rankings(answer: pb.SearchResponse | pb.ScoreResponse) -> Rankings:
    users = _ids_from(answer.users) if isinstance(answer, pb.ScoreResponse) else np.array([], dtype=object)
    rankings = [Ranking(_ids_from(r.items), _matrix_from(r.scores)) for r in answer.rankings]
    return Rankings(_space(answer.space), users, rankings)


def _events(rows: Events, kind: Callable[..., Any] = pb.Event) -> list[Any]:
    return [kind(columns=_cells(row)) for row in _rows(rows)]


def _cells(row: Mapping[str, object]) -> dict[str, pb.Value]:
    return {name: _value(value) for name, value in row.items() if not _absent(value)}


def _rows(events: Events) -> Iterable[Mapping[str, object]]:
    """Rows of whatever holds events; tables are told by their methods, so that none of their packages is needed."""
    if hasattr(events, "to_pylist"):  # Arrow
        return events.to_pylist()  # type: ignore[no-any-return]
    if hasattr(events, "to_dicts"):  # polars
        return events.to_dicts()  # type: ignore[no-any-return]
    if hasattr(events, "to_dict") and hasattr(events, "columns"):  # pandas
        return events.to_dict("records")  # type: ignore[no-any-return]
    return events


def _absent(value: object) -> bool:
    """None, NaN, NaT and pandas' NA: the only values that are not equal to themselves, or say so."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating) and math.isnan(value)


def _value(value: object) -> pb.Value:
    value = _plain(value)
    if isinstance(value, bool):
        return pb.Value(flag=value)
    if isinstance(value, int):
        try:
            return pb.Value(integer=value)
        except ValueError as error:
            raise InvalidRequest(f"{value} does not fit into 64 bits; send it as text") from error
    if isinstance(value, float):
        return pb.Value(number=value)
    if isinstance(value, str):
        return pb.Value(text=value)
    if isinstance(value, dt.datetime):  # in UTC, and without a fraction where there is none: an id is one text
        value = value if value.tzinfo is None else value.astimezone(dt.UTC)
        return pb.Value(text=value.isoformat(timespec="microseconds" if value.microsecond else "seconds"))
    if isinstance(value, dt.date):
        return pb.Value(text=value.isoformat())
    if isinstance(value, Sequence | set | frozenset | np.ndarray):
        return _list(list(value))
    raise InvalidRequest(f"a cell holds a {type(value).__name__}; cells are text, numbers, times, sets or vectors")


def _list(members: list[object]) -> pb.Value:
    """A vector, where all members are floats; else a set of texts, or of whole numbers written as text."""
    members = [_plain(member) for member in members]
    if members and all(isinstance(member, float) for member in members):
        return pb.Value(vector=np.array(members, "<f4").tobytes())
    if not all(isinstance(member, str | int) for member in members):
        raise InvalidRequest("a list holds neither texts nor floats alone; a set is texts, a vector is floats")
    # A truth value is written as a log has it.
    texts = [str(member).lower() if isinstance(member, bool) else str(member) for member in members]
    return pb.Value(texts=pb.Texts(values=texts))


def _plain(value: object) -> object:
    """A numpy scalar as the Python value it stands for; times keep their microseconds."""
    if isinstance(value, np.datetime64):
        return value.astype("datetime64[us]").item()
    return value.item() if isinstance(value, np.generic) else value


def _count(k: int) -> int:
    if not 0 <= k < 2**32:
        raise InvalidRequest(f"k is {k}; ask for at least 1")
    return k
