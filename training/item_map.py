"""Item embeddings on a plane, to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from training.metrics import Floats


def item_map(
    vector_VD: NDArray[np.float32],
    group: Sequence[str],
    label: Sequence[str],
    count_V: NDArray[np.int64],
    shown: int = 1500,
    seed: int = 0,
) -> pa.Table:
    """The most frequent items as points: columns x, y (float64), group and label (string), one row an item.

    Vectors are normalised first, so near means a like direction; their length is mostly popularity. The projection
    is t-SNE (van der Maaten and Hinton, JMLR 9, 2008): neighbourhoods are kept, distances between far clusters not.

    Args:
        vector_VD: item vectors.
        group: what to colour by, one for each row.
        label: what to call each row.
        count_V: how often each item occurs; the rows to show are those with the highest counts, never one with 0.
        shown: at most so many points; the time grows a little faster than this (1,500 points take about 5 s).
        seed: of the projection.
    """
    rows = np.argsort(-count_V, kind="stable")[:shown]
    rows = rows[count_V[rows] > 0]
    length = np.linalg.norm(vector_VD[rows], axis=1, keepdims=True)
    unit = vector_VD[rows] / np.maximum(length, 1e-12)
    place = _project(unit.astype(np.float64), seed)
    return pa.table(
        {
            "x": place[:, 0],
            "y": place[:, 1],
            "group": [group[row] for row in rows.tolist()],
            "label": [label[row] for row in rows.tolist()],
        }
    )


def _project(unit: Floats, seed: int) -> Floats:
    if len(unit) < 3:  # nothing to project: t-SNE needs neighbours
        return np.stack([np.arange(len(unit)), np.zeros(len(unit))], axis=1).astype(np.float64)
    perplexity = min(30.0, (len(unit) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="random", max_iter=500, random_state=seed)
    with threadpool_limits(1):  # on busy cores its threads wait for one another far longer than they work
        return np.asarray(tsne.fit_transform(unit), dtype=np.float64)
