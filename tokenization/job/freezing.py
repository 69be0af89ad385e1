"""Events in a file, as they are in memory: mapped back they are there at once, and take memory where they are read.

What the arrays mean stays in this process; the file holds their bytes and nothing else, so no reading of it runs code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from tokenization.events.events import Events

_ALIGNED = 64


@dataclass(frozen=True, eq=False)
class Frozen:
    """Events that lie in a file."""

    path: Path
    shape: Any

    def thaw(self) -> Events:
        """The events with their groups; their arrays can't be written to."""
        with pa.memory_map(str(self.path)) as source:
            whole = source.read_buffer()
        events, groups = _thawed(self.shape, whole)
        vars(events)["groups"] = groups  # where `cached_property` would put them
        return events  # type: ignore[no-any-return]


def freeze(events: Events, path: Path) -> Frozen:
    """Write events, and their groups, which take long to find."""
    with path.open("wb") as file:
        file.write(bytes(_ALIGNED))  # an empty file can't be mapped
        shape = _frozen((events, events.groups), file)
    return Frozen(path, shape)


@dataclass(frozen=True)
class _Numbers:
    """A NumPy array in the file."""

    dtype: np.dtype[Any]
    size: tuple[int, ...]
    place: int


@dataclass(frozen=True)
class _Column:
    """An Arrow array in the file: places and lengths of its buffers."""

    kind: pa.DataType
    rows: int
    begin: int
    buffers: tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class _Fields:
    """A dataclass and what its fields hold."""

    of: type
    values: dict[str, Any]


def _frozen(value: object, file: IO[bytes]) -> Any:
    """The same with a place in the file instead of each array."""
    if isinstance(value, np.ndarray):
        return _Numbers(value.dtype, value.shape, _put(pa.py_buffer(np.ascontiguousarray(value)), file))
    if isinstance(value, pa.Array):
        assert value.type.num_fields == 0, f"{value.type} is nested"
        buffers = tuple(None if data is None else (_put(data, file), data.size) for data in value.buffers())
        return _Column(value.type, len(value), value.offset, buffers)
    if isinstance(value, Mapping):
        return {name: _frozen(inner, file) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_frozen(inner, file) for inner in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _Fields(type(value), {name: _frozen(inner, file) for name, inner in inside.items()})
    return value


def _put(data: pa.Buffer, file: IO[bytes]) -> int:
    file.write(bytes(-file.tell() % _ALIGNED))
    place = file.tell()
    file.write(data)
    return place


def _thawed(shape: Any, whole: pa.Buffer) -> Any:
    match shape:
        case _Numbers(dtype, size, place):
            count = int(np.prod(size))
            flat = np.frombuffer(whole, dtype, count, place) if count else np.empty(0, dtype)
            return flat.reshape(size)
        case _Column(kind, rows, begin, buffers):
            found = [None if place is None else whole.slice(*place) for place in buffers]
            return pa.Array.from_buffers(kind, rows, found, offset=begin)
        case _Fields(of, values):
            return of(**{name: _thawed(inner, whole) for name, inner in values.items()})
        case dict():
            return {name: _thawed(inner, whole) for name, inner in shape.items()}
        case tuple():
            return tuple(_thawed(inner, whole) for inner in shape)
        case _:
            return shape
