"""Thin heads over the imported subgraph: one small module a surface, saved in `heads/` of a model directory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from foundation.errors import ModelError
from foundation.heads.home import HomeHead
from foundation.heads.item_to_item import ItemToItemHead
from foundation.heads.search import SearchHead
from foundation.jagged import EventBatch
from foundation.repeat import FIRST_ITEM
from foundation.subgraph import Subgraph
from foundation.weights import load_weights, save_weights
from tokenization.items.content import encoder_of
from tokenization.items.sentences import Encoder

__all__ = ["Heads", "HomeHead", "ItemToItemHead", "SearchHead"]


@dataclass(frozen=True)
class Heads:
    """The heads of one model; `search` is None where items have no text. Scores: higher is better, −inf = never."""

    subgraph: Subgraph
    home_head: HomeHead
    search_head: SearchHead | None
    item_to_item_head: ItemToItemHead
    item_VD: Tensor

    @classmethod
    def untrained(cls, subgraph: Subgraph) -> Self:
        """Heads that start from what the pretrained model says."""
        config = subgraph.model.config
        search = SearchHead(config.item.text_width) if config.item.text_width else None
        with torch.no_grad():
            item_VD = subgraph.item_vectors()
        return cls(subgraph, HomeHead(), search, ItemToItemHead(config.width), item_VD)

    @classmethod
    def load(cls, model: Path, subgraph: Subgraph) -> Self:
        """Read `heads/` of a model directory; heads that were never fitted start from what the model says.

        Raises ModelError where a bit of a file has changed, or where it is of another model.
        """
        heads = cls.untrained(subgraph)
        for name, module in heads.modules().items():
            path = Path(model) / "heads" / f"{name}.safetensors"
            if path.exists():
                load_weights(module, path, subgraph.space.fingerprint)
            module.eval()
        return heads

    def save(self, model: Path) -> None:
        """Write `heads/` of a model directory."""
        folder = Path(model) / "heads"
        folder.mkdir(exist_ok=True)
        for name, module in self.modules().items():
            save_weights(module, folder / f"{name}.safetensors", self.subgraph.space.fingerprint)

    def modules(self) -> dict[str, torch.nn.Module]:
        """The modules that exist, by the name of their file."""
        found = {"home": self.home_head, "search": self.search_head, "item_to_item": self.item_to_item_head}
        return {name: module for name, module in found.items() if module is not None}

    @cached_property
    def popularity_V(self) -> Tensor:
        """float32 [V]: log of each item's recent meetings. (The popularity in an item's vector is what is left of
        it beside the users' own items.)"""
        tower = self.subgraph.model.tower
        return tower.log_recent(torch.arange(tower.codes, device=self.item_VD.device))

    def home(self, batch: EventBatch, at_B: Tensor | None = None, context_BC: Tensor | None = None) -> Tensor:
        """float32 [B, V]: products for each user at a moment, in a context (int64 codes, 0 = not told)."""
        states = self.subgraph.states(batch, at_B, context_BC)
        logit_BV = self.subgraph.model.reranked(states, self.item_VD)
        dot_BV = self.subgraph.model.user_vectors(states) @ self.item_VD.T
        score_BV: Tensor = self.home_head(logit_BV, dot_BV, self.popularity_V)
        return score_BV

    def search(self, queries: list[str], user_QD: Tensor | None = None) -> Tensor:
        """float32 [Q, V]: products meant by each query, for the user who asked where one is given.

        Raises ModelError where the items have no text; UserfmError where the text encoder is not installed.
        """
        if self.search_head is None:
            raise ModelError("this model's items have no text: declare `items.text` in the schema and train again")
        query_QX = torch.from_numpy(self.encoder.encode(queries))
        taste_QV = None if user_QD is None else user_QD @ self.item_VD.T
        return _candidates_only(self.search_head(query_QX, self._item_text(), self.popularity_V, taste_QV))

    def item_to_item(self, code_I: Tensor) -> Tensor:
        """float32 [I, V]: products that go with each product; never the product itself."""
        vector_VD = self.item_VD[:, :-1]
        score_IV = _candidates_only(self.item_to_item_head(vector_VD[code_I], vector_VD, self.popularity_V))
        score_IV[torch.arange(len(code_I)), code_I] = -torch.inf
        return score_IV

    @property
    def encoder(self) -> Encoder:
        """What item texts were read with, for the queries that are to meet them; UserfmError where its package is
        absent."""
        items = self.subgraph.tokenizer.schema.items
        return _encoder(items.encoder if items else None)

    def _item_text(self) -> Tensor:
        tower = self.subgraph.model.tower
        return tower.text_of(torch.arange(tower.codes))


# Read once a process.
_encoder = cache(encoder_of)


def _candidates_only(score_NV: Tensor) -> Tensor:
    score_NV[:, :FIRST_ITEM] = -torch.inf
    return score_NV
