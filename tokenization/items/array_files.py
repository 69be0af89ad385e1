"""Named arrays of any shape as one Arrow file, which runs no code when read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
from numpy.typing import NDArray

from tokenization.errors import VocabularyError, first_line


def save_arrays(arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    """A row an array: its bytes, little-endian, beside type and shape."""
    little = {name: array.astype(array.dtype.newbyteorder("<"), copy=False) for name, array in arrays.items()}
    table = pa.table(
        {
            "name": list(little),
            "type": [array.dtype.name for array in little.values()],
            "shape": pa.array([list(array.shape) for array in little.values()], pa.list_(pa.int64())),
            "data": pa.array([array.tobytes() for array in little.values()], pa.large_binary()),
        }
    )
    pyarrow.feather.write_feather(table, path, compression="zstd")


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what `save_arrays` wrote.

    Raises:
        VocabularyError: no such file, or not such a file.
    """
    try:
        rows = pyarrow.feather.read_table(path).to_pylist()
        return {
            row["name"]: np.frombuffer(row["data"], np.dtype(row["type"]).newbyteorder("<"))
            .reshape(row["shape"])
            .astype(row["type"])
            for row in rows
        }
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise VocabularyError(f"{path} holds no arrays: {first_line(error)}") from error
