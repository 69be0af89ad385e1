"""Search: query text → products, with or without a user."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SearchHead(nn.Module):
    """A query meets an item in the space of text, scaled by what the items are bought like.

    Query and item text share one linear map of static word vectors, as in two-tower retrieval (Huang et al.,
    DSSM, CIKM 2013); popularity and, where a user is known, the user's own taste are added.
    """

    def __init__(self, text_width: int, width: int = 64) -> None:
        super().__init__()
        self.query = nn.Linear(text_width, width, bias=False)
        self.item = nn.Linear(text_width, width, bias=False)
        self.item.weight = nn.Parameter(self.query.weight.detach().clone())
        self.sharpness = nn.Parameter(torch.tensor(20.0))
        self.popularity = nn.Parameter(torch.tensor(0.5))
        self.taste = nn.Parameter(torch.tensor(0.0))

    def forward(
        self, query_QX: Tensor, item_NX: Tensor, popularity_N: Tensor, taste_QN: Tensor | None = None
    ) -> Tensor:
        """float [Q, N]. query_QX, item_NX: text vectors. taste_QN: dot products of users and items, if known."""
        query_QK = nn.functional.normalize(self.query(query_QX), dim=1)
        item_NK = nn.functional.normalize(self.item(item_NX), dim=1)
        score_QN = self.sharpness * query_QK @ item_NK.T + self.popularity * popularity_N
        return score_QN if taste_QN is None else score_QN + self.taste * taste_QN
