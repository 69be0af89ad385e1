"""The immutable files a server maps into memory: one raw matrix, the hashes of its ids, the ids.

Lance pages are compressed and scattered, so a published version is written out once more as plain arrays,
every row at the place of its id's hash. Opening maps the files; nothing is parsed or copied, and processes on
one host share the pages.

    snapshot.json     what the files are, their lengths and SHA-256
    vectors.f32       [N, D] float32, little-endian, row after row
    keys.u64          [N] uint64 hashes of the ids, ascending
    rows.arrow        [N] id, as_of, event_seq: an uncompressed Arrow file of one batch
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from serving.errors import CorruptStore
from serving.ids import IdIndex, canonical, hash_ids, longest_run
from serving.rows import Entity, Float32s, Float64s, Int64s, Rows

FORMAT = 1
HEADER, VECTORS, KEYS, COLUMNS = "snapshot.json", "vectors.f32", "keys.u64", "rows.arrow"
WRITTEN_AT_ONCE = 65_536


@dataclass(frozen=True)
class Snapshot:
    """Vectors of one entity in one space, mapped: N rows of width D.

    `fingerprint` of the space; `vectors_ND` float32; `index` from ids to rows; `as_of_N` seconds since 1970
    UTC; `event_seq_N` events each vector has seen.
    """

    entity: Entity
    fingerprint: str
    vectors_ND: Float32s
    index: IdIndex
    as_of_N: Float64s
    event_seq_N: Int64s

    @property
    def ids(self) -> pa.Array:
        """The id of each row, `int64` or `large_string`."""
        return self.index.ids

    @classmethod
    def open(cls, folder: Path) -> Snapshot:
        """Map a snapshot after comparing every file with its header. Raises CorruptStore, naming the file."""
        header = _header(folder)
        for name, expected in header["files"].items():
            if _seal(folder / name) != expected:
                raise CorruptStore(
                    f"{folder / name} is not what was written there; roll back, or publish this space again"
                )
        n, width = header["rows"], header["width"]
        with pa.memory_map(str(folder / COLUMNS)) as source:
            columns = pa.ipc.open_file(source).get_batch(0)
        return cls(
            entity=Entity(header["entity"]),
            fingerprint=header["fingerprint"],
            vectors_ND=_mapped(folder / VECTORS, "<f4", (n, width)),
            index=IdIndex(
                keys_N=_mapped(folder / KEYS, "<u8", (n,)),
                ids=columns["id"],
                longest_run=header["longest_run"],
            ),
            as_of_N=columns["as_of"].to_numpy(),
            event_seq_N=columns["event_seq"].to_numpy(),
        )


def write_snapshot(folder: Path, rows: Rows, entity: Entity, fingerprint: str) -> None:
    """Write the files of a snapshot into an existing empty folder. The caller syncs."""
    keys_N = hash_ids(rows.ids)
    order_N = np.argsort(keys_N, kind="stable")
    keys_N = keys_N[order_N]
    keys_N.astype("<u8").tofile(folder / KEYS)
    with (folder / VECTORS).open("wb") as file:
        for start in range(0, len(order_N), WRITTEN_AT_ONCE):
            rows.vectors_ND[order_N[start : start + WRITTEN_AT_ONCE]].astype("<f4").tofile(file)
    columns = pa.table(
        {
            "id": canonical(rows.ids.take(pa.array(order_N))),
            "as_of": rows.as_of_N[order_N],
            "event_seq": rows.event_seq_N[order_N],
        }
    )
    with pa.ipc.new_file(folder / COLUMNS, columns.schema) as writer:
        writer.write_table(columns)
    header = {
        "format": FORMAT,
        "entity": str(entity),
        "fingerprint": fingerprint,
        "rows": len(rows.ids),
        "width": rows.vectors_ND.shape[1],
        "longest_run": longest_run(keys_N),
        "files": {name: _seal(folder / name) for name in (VECTORS, KEYS, COLUMNS)},
    }
    (folder / HEADER).write_text(json.dumps(header, indent=2) + "\n")


def _mapped(path: Path, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    # A plain array over the map: numpy's subclass of its own makes every indexing five times dearer.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=shape))


def _seal(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"bytes": file.tell(), "sha256": digest}
    except FileNotFoundError as error:
        raise CorruptStore(f"{path} is gone; roll back, or publish this space again") from error


def _header(folder: Path) -> dict[str, Any]:
    path = folder / HEADER
    try:
        header: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise CorruptStore(f"{path} is missing or torn; roll back, or publish this space again") from error
    if header.get("format") != FORMAT:
        raise CorruptStore(f"{path} has format {header.get('format')}; this version reads format {FORMAT}")
    return header
