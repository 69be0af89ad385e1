"""Names of array types. In shapes, [n] counts events, [t] tokens, [g] groups, [u] users, [V] item codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Codes = NDArray[np.int32]
Mask = NDArray[np.bool_]
Vectors = NDArray[np.float32]
Integers = NDArray[Any]
"""Integers of any width."""
