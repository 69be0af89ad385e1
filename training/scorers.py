"""A trained model as scorers: the same requests as the baselines get, scores of every item out.

`embedding` is what a store of vectors can do: the dot product of the user embedding and the item vectors. `model` is
the whole model: generator and repeat path, conditioned on the request's context. `target_aware` is the same with the
best candidates of each request scored by their own look at the user's states. `interests` is each item's best product
with the several vectors of a user.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foundation.jagged import EventBatch
from foundation.model import UserStates
from foundation.subgraph import Subgraph
from training.holdout import Requests, Scorer


def model_scorers(subgraph: Subgraph) -> dict[str, Scorer]:
    """The scorers `embedding`, `model` and, where the model has them, `target_aware` and `interests`, float32 [n, V]
    each.

    Reading the histories is most of the work and the same for all, so they share it: whoever is asked later about the
    same `Requests` object uses what the first computed. Only the latest chunk is kept.
    """
    latest: list[tuple[Requests, UserStates]] = []
    with torch.inference_mode():
        item_VD = subgraph.item_vectors()

    def states(requests: Requests) -> UserStates:
        if not latest or latest[0][0] is not requests:
            latest[:] = [(requests, subgraph.states(*inputs(subgraph, requests)))]
        return latest[0][1]

    def embedding(requests: Requests) -> NDArray[np.float32]:
        with torch.inference_mode():
            return _array(subgraph.model.user_vectors(states(requests)) @ item_VD.T)

    def model(requests: Requests) -> NDArray[np.float32]:
        with torch.inference_mode():
            return _array(subgraph.model.scores(states(requests), item_VD))

    def target_aware(requests: Requests) -> NDArray[np.float32]:
        with torch.inference_mode():
            return _array(subgraph.model.reranked(states(requests), item_VD))

    def interests(requests: Requests) -> NDArray[np.float32]:
        with torch.inference_mode():
            found_BID = subgraph.model.interest_vectors(states(requests))
            best_BV = found_BID[:, 0] @ item_VD.T
            for vector_BD in found_BID[:, 1:].unbind(1):
                torch.maximum(best_BV, vector_BD @ item_VD.T, out=best_BV)
            return _array(best_BV)

    config, found = subgraph.model.config, dict[str, Scorer](embedding=embedding, model=model)
    found |= {"target_aware": target_aware} if config.candidates.layers else {}
    return found | ({"interests": interests} if config.interests else {})


def inputs(subgraph: Subgraph, requests: Requests) -> tuple[EventBatch, Tensor, Tensor]:
    """Requests as the subgraph takes them: (batch, float64 epoch seconds [n], int64 context codes [n, C])."""
    device = next(subgraph.parameters()).device
    batch = subgraph.pack(requests.history)[1].to(device)
    at_B = torch.from_numpy(np.ascontiguousarray(requests.at)).to(device)
    return batch, at_B, torch.from_numpy(requests.context.astype(np.int64)).to(device)


def _array(score_BV: Tensor) -> NDArray[np.float32]:
    return np.asarray(score_BV.float().cpu().numpy(), dtype=np.float32)
