"""Where tables lie: a file or a folder, on a disk or behind any URL that pyarrow or fsspec knows."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.fs

from tokenization.errors import SourceError, first_line

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".feather": "ipc",
    ".ipc": "ipc",
    ".csv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".lance": "lance",
}
_BLOCK = 1 << 20
"""Bytes that are read at a time."""
_ONE_OF = ", ".join(FORMATS)


@dataclass(frozen=True)
class File:
    """One table on a disk or behind a URL.

    name: as whoever gave it would write it. path: the same as `system` knows it. format: how it is written. size: in
    bytes; 0 where the format is a folder. stamp: changes when the file does.
    """

    name: str
    system: pyarrow.fs.FileSystem
    path: str
    format: str
    size: int
    stamp: str

    @property
    def is_local(self) -> bool:
        """Whether it can be mapped into memory."""
        return isinstance(self.system, pyarrow.fs.LocalFileSystem)


def files(source: str | Path) -> list[File]:
    """The tables that a path or URL names: one file, or all of a folder in the order of their names.

    Files and folders whose names begin with a dot or an underscore are left out, and so is what has no known ending.

    Raises:
        SourceError: there is nothing, nothing with a known ending, or no package that reads such a URL.
    """
    system, path = _located(source)
    try:
        (found,) = system.get_file_info([path])
        if found.type == pyarrow.fs.FileType.NotFound:
            raise SourceError(
                f"{source} doesn't exist; give a file or folder of Parquet, Arrow, CSV, JSON lines or Lance"
            )
        if found.type == pyarrow.fs.FileType.File or _format(path) == "lance":
            return [_file(str(source), system, found)]
        inside = system.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    except OSError as error:
        raise SourceError(f"{source} can't be looked into: {first_line(error)}") from error
    tables = _tables(inside, path)
    if not tables:
        raise SourceError(f"{source} is a folder without a file named {_ONE_OF}; give another")
    root = str(source).rstrip("/")
    return [_file(f"{root}/{_below(info.path, path)}", system, info) for info in tables]


def stamps(source: str | Path) -> list[list[object]]:
    """Name, size and date of everything that a path or URL holds, to tell whether anything changed; nothing where
    there is nothing."""
    system, known = _inside(source)
    local = isinstance(system, pyarrow.fs.LocalFileSystem)
    return [[str(Path(i.path).resolve()) if local else i.path, i.size, _stamp(system, i)] for i in known]


def stamp(source: str | Path) -> str:
    """SHA-256 (hex) of the `stamps`."""
    return hashlib.sha256(json.dumps(stamps(source)).encode()).hexdigest()


def digest(source: str | Path) -> str:
    """SHA-256 (hex) of the bytes of all that a path or URL holds, whatever it is called.

    Raises:
        SourceError: there is nothing, or it can't be read.
    """
    system, known = _inside(source)
    if not known:
        raise SourceError(f"{source} doesn't exist; give a file or folder of Parquet, Arrow, CSV, JSON lines or Lance")
    found = hashlib.sha256()
    for info in known:
        try:
            with system.open_input_stream(info.path, compression=None) as stream:
                while block := stream.read(_BLOCK):
                    found.update(block)
        except OSError as error:
            raise SourceError(f"{info.path} can't be read: {first_line(error)}") from error
    return found.hexdigest()


def _inside(source: str | Path) -> tuple[pyarrow.fs.FileSystem, list[pyarrow.fs.FileInfo]]:
    """Every file of a path or URL, by name; none where there is nothing."""
    system, path = _located(source)
    (found,) = system.get_file_info([path])
    inside = [found]
    if found.type == pyarrow.fs.FileType.Directory:
        inside = system.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    return system, sorted((info for info in inside if info.is_file), key=lambda info: str(info.path))


def _located(source: str | Path) -> tuple[pyarrow.fs.FileSystem, str]:
    """The filesystem of a path or URL, and the path in it. Arrow's own go first: they need no other package."""
    if isinstance(source, Path) or "://" not in source:
        return pyarrow.fs.LocalFileSystem(), str(Path(source).absolute())
    try:
        system, path = pyarrow.fs.FileSystem.from_uri(source)
    except pa.ArrowInvalid:
        return _through_fsspec(source)
    except OSError as error:
        raise SourceError(f"{source} can't be reached: {first_line(error)}") from error
    return system, path


def _through_fsspec(source: str) -> tuple[pyarrow.fs.FileSystem, str]:
    protocol = source.split("://")[0]
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(source)
    except ImportError as error:
        raise SourceError(f"{source}: reading {protocol}:// needs one more package: {first_line(error)}") from error
    except ValueError as error:
        raise SourceError(f"{source}: nothing here reads {protocol}://: {first_line(error)}") from error
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(system)), path


def _tables(inside: Iterable[pyarrow.fs.FileInfo], root: str) -> list[pyarrow.fs.FileInfo]:
    """Those of a folder's files that are tables; a Lance table is a folder itself."""
    found: list[pyarrow.fs.FileInfo] = []
    lance: list[tuple[str, ...]] = []
    for info in sorted(inside, key=lambda info: str(info.path)):
        parts = PurePosixPath(_below(info.path, root)).parts
        if parts[-1].startswith((".", "_")) or any(parts[: len(folder)] == folder for folder in lance):
            continue
        kind = _format(info.path)
        if kind == "lance" and not info.is_file:
            lance.append(parts)
            found.append(info)
        elif kind and kind != "lance" and info.is_file:
            found.append(info)
    return found


def _below(path: str, root: str) -> str:
    """A path without the folder it lies in; some systems lead with a slash and some don't."""
    return path.strip("/").removeprefix(root.strip("/")).strip("/")


def _format(path: str) -> str | None:
    suffixes = [suffix for suffix in PurePosixPath(path).suffixes[-2:] if suffix != ".gz"]
    return FORMATS.get(suffixes[-1].lower()) if suffixes else None


def _file(name: str, system: pyarrow.fs.FileSystem, info: pyarrow.fs.FileInfo) -> File:
    kind = _format(info.path)
    if kind is None:
        raise SourceError(f"{name}: the name must end in one of {_ONE_OF} so that its format is known")
    return File(name, system, info.path, kind, info.size or 0, _stamp(system, info))


def _stamp(system: pyarrow.fs.FileSystem, info: pyarrow.fs.FileInfo) -> str:
    """Changes when the file does: its date, or what fsspec knows instead (a checksum, a generation)."""
    if info.mtime_ns is not None:
        return str(info.mtime_ns)
    if isinstance(system, pyarrow.fs.PyFileSystem) and isinstance(system.handler, pyarrow.fs.FSSpecHandler):
        return str(system.handler.fs.ukey(info.path))
    return uuid.uuid4().hex  # nothing tells, so it may have changed
