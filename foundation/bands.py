"""The first dimensions of a vector, usable alone: Kusupati et al., Matryoshka Representation Learning,
arXiv:2205.13147.

A model that is told `bands=16,32` learns its stored vectors' first 16 and first 32 dimensions to find what whole
vectors find, so whoever has little room keeps the first ones of users and items alike. The last dimension is
popularity's and belongs to every cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from foundation.errors import ModelError


def cut(vector_ND: Tensor, width: int) -> Tensor:
    """float [N, width + 1]: the first dimensions of stored vectors, float [N, D + 1], and popularity's, which is last.

    Raises ModelError where there are fewer.
    """
    if not 1 <= width < vector_ND.shape[1]:
        raise ModelError(f"vectors of {vector_ND.shape[1] - 1} dimensions can't be cut to {width}")
    return torch.cat([vector_ND[:, :width], vector_ND[:, -1:]], dim=1)


def widths_between(bands: Sequence[int], width: int) -> tuple[int, ...]:
    """Widths of the parts that must stay among themselves for each band to stay usable alone: bands 16 and 32 of 64
    dimensions leave 16, 16 and 32. Raises ModelError unless bands ascend and stay below the width."""
    widths = tuple(end - begin for begin, end in pairwise((0, *bands, width)))
    if min(widths) < 1:
        told = ", ".join(map(str, bands))
        raise ModelError(f"bands must ascend and stay below the width {width}, got {told}")
    return widths
