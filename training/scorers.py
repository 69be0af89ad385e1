"""A trained model as scorers: the same requests as the baselines get, scores of every item out.

`embedding` is what a store of vectors can do: the dot product of the user embedding and the item vectors. `model` is
the whole model: generator and repeat path, conditioned on the request's context.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foundation.jagged import EventBatch
from foundation.subgraph import Subgraph
from training.holdout import Requests, Scorer


def embedding_scorer(subgraph: Subgraph) -> Scorer:
    """Dot products of user embeddings, as of the request, with all item vectors, float32 [n, V]."""
    with torch.inference_mode():
        item_VD = subgraph.item_vectors()

    def score(requests: Requests) -> NDArray[np.float32]:
        batch, at_B, _ = inputs(subgraph, requests)
        with torch.inference_mode():
            return _array(subgraph(batch, at_B) @ item_VD.T)

    return score


def model_scorer(subgraph: Subgraph) -> Scorer:
    """The model's own logits for the next group, float32 [n, V]."""

    def score(requests: Requests) -> NDArray[np.float32]:
        batch, at_B, context_BC = inputs(subgraph, requests)
        with torch.inference_mode():
            return _array(subgraph.score(batch, at_B, context_BC))

    return score


def inputs(subgraph: Subgraph, requests: Requests) -> tuple[EventBatch, Tensor, Tensor]:
    """Requests as the subgraph takes them: (batch, float64 epoch seconds [n], int64 context codes [n, C])."""
    device = next(subgraph.parameters()).device
    batch = subgraph.pack(requests.history)[1].to(device)
    at_B = torch.from_numpy(np.ascontiguousarray(requests.at)).to(device)
    return batch, at_B, torch.from_numpy(requests.context.astype(np.int64)).to(device)


def _array(score_BV: Tensor) -> NDArray[np.float32]:
    return np.asarray(score_BV.float().cpu().numpy(), dtype=np.float32)
