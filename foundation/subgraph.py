"""The pretrained model as an ordinary `nn.Module` inside somebody else's model."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import pyarrow as pa
import torch
from torch import Tensor, nn

from foundation.jagged import EventBatch, Requests, requests_now
from foundation.model import FoundationModel, UserStates
from foundation.pretrained import Pretrained, load
from foundation.space import Space
from tokenization.codes.vocabulary import UNKNOWN
from tokenization.corpus.newcomers import with_newcomers
from tokenization.sources.tables import TableLike
from tokenization.tokenizer.tokenizer import Tokenizer


class Subgraph(nn.Module):
    """Events in, user embeddings out; frozen unless `trainable()` is called. Run it once per user.

    >>> subgraph = Subgraph.from_pretrained("run/model")           # doctest: +SKIP
    >>> user_ids, batch = subgraph.tokenize(events)                # doctest: +SKIP
    >>> user_BD = subgraph(batch)                                  # doctest: +SKIP
    """

    def __init__(self, model: FoundationModel, tokenizer: Tokenizer, space: Space) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.space = space

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Read a model directory. Raises ModelError."""
        return cls.of(load(Path(path)))

    @classmethod
    def of(cls, pretrained: Pretrained) -> Self:
        """Wrap a model that is in memory."""
        return cls(pretrained.model, pretrained.tokenizer, pretrained.space)

    def trainable(self) -> Self:
        """Let gradients reach the pretrained weights, for fine-tuning."""
        self.model.requires_grad_(True)
        return self

    def tokenize(self, events: TableLike, users: TableLike | None = None) -> tuple[pa.Array, EventBatch]:
        """Raw events (Arrow, pandas, polars) with the schema's columns → (user ids, batch), one row per user.

        users: what is known of users, as the schema's `users` declares. Whoever stands there and has no event gets a
        row too, and so a vector: that of the attributes, or where nothing is known, that of nobody.
        """
        if users is None:
            return self.pack(self.tokenizer.transform(events))
        return self.pack(with_newcomers(self.tokenizer, events, users))

    def pack(self, tokens: pa.Table) -> tuple[pa.Array, EventBatch]:
        """Rows of a token table → (user ids, batch); items admitted after training read as unknown."""
        config = self.model.config
        batch = EventBatch.from_tokens(tokens, config.facet_names, config.attribute_names)
        item_T = batch.facet_TF[:, config.item_column]
        item_T[item_T >= self.model.tower.codes] = UNKNOWN
        return tokens.column("user_id").combine_chunks(), batch

    def forward(self, batch: EventBatch, at_B: Tensor | None = None) -> Tensor:
        """User embeddings, float32 [B, space.width].

        at_B: float64 epoch seconds [B] for which they are made; None: each user's last event.
        """
        return self.model.user_vectors(self.states(batch, at_B))

    def states(self, batch: EventBatch, at_B: Tensor | None = None, context_BC: Tensor | None = None) -> UserStates:
        """What the model knows of each user at a moment; context_BC: int64 codes [B, C], 0 = not told."""
        states: UserStates = self.model(batch, self.requests(batch, at_B, context_BC))
        return states

    def requests(self, batch: EventBatch, at_B: Tensor | None = None, context_BC: Tensor | None = None) -> Requests:
        """One request per user after the whole history."""
        if context_BC is None:
            shape = (batch.users, len(self.model.config.context))
            context_BC = torch.zeros(shape, dtype=torch.int64, device=batch.offset_B1.device)
        return requests_now(batch, at_B, context_BC)

    def item_vectors(self) -> Tensor:
        """float32 [V, space.width], one row a candidate code; rows 0 and 1 are not candidates."""
        return self.model.item_vectors()

    def score(self, batch: EventBatch, at_B: Tensor | None = None, context_BC: Tensor | None = None) -> Tensor:
        """Logits of each user's next item over all candidates, float32 [B, V], repeat path included."""
        return self.model.scores(self.states(batch, at_B, context_BC), self.item_vectors())
