"""Protobuf ↔ numpy and Arrow, with a sentence for everything a caller can get wrong.

Shapes: N rows, D width of the space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from foundation.space import Space
from serving.errors import InvalidRequest
from serving.ids import INTEGER, TEXT
from serving.rows import Float32s, Float64s
from userfm.v1 import embedding_pb2 as pb

Cell = str | int | float | bool | list[str] | list[float] | None


def ids_from_proto(ids: pb.Ids) -> pa.Array:
    """Canonical ids. Raises InvalidRequest when neither kind is given."""
    kind = ids.WhichOneof("kind")
    if kind == "integers":
        return pa.array(ids.integers.values, INTEGER)
    if kind == "texts":
        return pa.array(ids.texts.values, TEXT)
    raise InvalidRequest("the request names no ids; set ids.integers or ids.texts")


def ids_to_proto(ids: pa.Array) -> pb.Ids:
    """Canonical ids as they came in: text stays text, integers stay integers."""
    if ids.type == INTEGER:
        return pb.Ids(integers=pb.Ids.Integers(values=ids.to_numpy().tolist()))
    return pb.Ids(texts=pb.Ids.Texts(values=ids.to_pylist()))


def matrix_to_proto(matrix: Float32s | Float64s) -> pb.Matrix:
    """A float32 or float64 array of any rank as bytes."""
    wide = matrix.dtype == np.float64
    dtype = pb.DTYPE_FLOAT64 if wide else pb.DTYPE_FLOAT32
    return pb.Matrix(data=matrix.astype("<f8" if wide else "<f4", copy=False).tobytes(), dtype=dtype, dims=matrix.shape)


def vectors_from_proto(matrix: pb.Matrix, width: int) -> Float32s:
    """Query vectors [N, D]. Raises InvalidRequest unless they are finite float32 of the space's width."""
    if matrix.dtype != pb.DTYPE_FLOAT32:
        raise InvalidRequest("query vectors have to be DTYPE_FLOAT32")
    dims = list(matrix.dims)
    if len(dims) != 2 or dims[1] != width:
        raise InvalidRequest(f"query vectors have dims {dims}; this space takes [n, {width}]")
    if len(matrix.data) != 4 * math.prod(dims):
        raise InvalidRequest(f"a float32 matrix of dims {dims} has {4 * math.prod(dims)} bytes, not {len(matrix.data)}")
    vectors_ND = np.frombuffer(matrix.data, dtype="<f4").reshape(dims)
    if not np.isfinite(vectors_ND).all():
        raise InvalidRequest("query vectors have to be finite")
    return vectors_ND


def space_to_proto(space: Space) -> pb.Space:
    """The space as every answer carries it."""
    return pb.Space(
        name=space.name,
        version=space.version,
        fingerprint=space.fingerprint,
        width=space.width,
        metric=pb.METRIC_DOT,
        as_of=space.as_of,
        lineage=space.lineage,
        aligned_to=space.aligned_to,
        frames=space.frames,
    )


def moment(message: pb.EncodeRequest | pb.ScoreRequest.Home) -> float | None:
    """When a request is made, in seconds since 1970 UTC; None if it does not say. Raises InvalidRequest."""
    if not message.HasField("at"):
        return None
    if not math.isfinite(message.at):
        raise InvalidRequest(f"at is {message.at}; send seconds since 1970 UTC, or leave it out")
    return message.at


def events_to_table(events: Sequence[pb.Event]) -> pa.Table:
    """Events as columns; a cell that an event leaves out is null. Raises InvalidRequest for a column of mixed kinds."""
    return _table([event.columns for event in events], "events")


def users_to_table(users: Sequence[pb.User]) -> pa.Table | None:
    """The same of what is known of users; None where the request knows nothing."""
    return _table([user.columns for user in users], "users") if users else None


def context_to_values(context: Mapping[str, pb.Value]) -> dict[str, Cell]:
    """What is known of a request, as plain values."""
    return {name: cell(value) for name, value in context.items()}


def cell(value: pb.Value) -> Cell:
    """The one value that is set, or None. Raises InvalidRequest for a vector that is not whole."""
    match kind := value.WhichOneof("kind"):
        case None:
            return None
        case "texts":
            return list(value.texts.values)
        case "vector":
            if len(value.vector) % 4:
                raise InvalidRequest(f"a vector of {len(value.vector)} bytes is cut off; send float32 values")
            vector: list[float] = np.frombuffer(value.vector, "<f4").tolist()
            return vector
        case _:
            single: str | int | float | bool = getattr(value, kind)
            return single


def _table(rows: Sequence[Mapping[str, pb.Value]], what: str) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    cells = {name: [cell(row[name]) if name in row else None for row in rows] for name in names}
    return pa.table({name: _column(name, column, what) for name, column in cells.items()})


def _column(name: str, values: list[Cell], what: str) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if list in kinds:
        return _lists(name, values, kinds, what)
    if str in kinds and len(kinds) > 1:
        raise InvalidRequest(f"column {name!r} holds text in some {what} and numbers in others; send one of them")
    if bool in kinds and len(kinds) > 1:
        raise InvalidRequest(f"column {name!r} holds flags in some {what} and numbers in others; send one of them")
    if float in kinds:
        return pa.array([float(v) if isinstance(v, int | float) else None for v in values], pa.float64())
    told = {str: pa.string(), bool: pa.bool_(), int: pa.int64()}
    return pa.array(values, told[kinds.pop()] if kinds else pa.null())


def _lists(name: str, values: list[Cell], kinds: set[type], what: str) -> pa.Array:
    if len(kinds) > 1:
        raise InvalidRequest(f"column {name!r} holds lists in some {what} and single values in others; send one kind")
    members = {type(member) for value in values if isinstance(value, list) for member in value}
    if len(members) > 1:
        raise InvalidRequest(f"column {name!r} holds texts in some {what} and vectors in others; send one of them")
    return pa.array(values, pa.list_(pa.float32() if float in members else pa.string()))
