"""The pretrained model as an ordinary `nn.Module` inside somebody else's model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from foundation.alignment import UNALIGNED, Alignment
from foundation.bands import cut
from foundation.errors import ModelError
from foundation.jagged import EventBatch, Requests, requests_now
from foundation.model import FoundationModel, UserStates
from foundation.pretrained import Pretrained, load
from foundation.space import Space
from tokenization.codes.vocabulary import UNKNOWN
from tokenization.corpus.newcomers import with_newcomers
from tokenization.sources.tables import TableLike
from tokenization.tokenizer.tokenizer import Tokenizer

# Weights that only scores and losses read: no gradient of a user embedding reaches them, and DDP waits for every weight
# that is to be trained.
UNREAD = (
    *("tower.bias", "tower.new_popularity", "conditioning", "told_repeat", "affinity", "horizons"),
    *("facet_heads", "category_heads", "gap_head", "target_attention", "decoder", "interests"),
)
# What stands behind the trunk, and is read for a user embedding.
BEHIND = ("empty_D", "recent", "attributes", "intents", "bare_repeat", "pooling")


class Subgraph(nn.Module):
    """Events in, user embeddings out; frozen unless told otherwise. Run it once per user, not once per candidate.

    It takes the model over: its weights are frozen, and its item tables get dense gradients, which every optimiser and
    every way of spreading a model over processes knows. `space` is that of the weights as they were loaded or last
    saved; weights that were trained further are in no space until `save_pretrained`. All of it is unaligned: where the
    model directory has a map into the directions of an earlier space, it is `alignment`, `aligned` applies it, and
    `aligned_space` is the space in which stores and services have this model's vectors.

    >>> subgraph = Subgraph.from_pretrained("run/model")           # doctest: +SKIP
    >>> user_ids, batch = subgraph.tokenize(events)                # doctest: +SKIP
    >>> user_BD = subgraph(batch)                                  # doctest: +SKIP
    """

    def __init__(
        self,
        model: FoundationModel,
        tokenizer: Tokenizer,
        space: Space,
        card: str = "",
        alignment: Alignment = UNALIGNED,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.space = space
        self.card = card
        self.alignment = alignment
        self.frozen().eval()
        for table in _tables(model):
            table.sparse = False

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Read a model directory. Raises ModelError."""
        return cls.of(load(Path(path)))

    @classmethod
    def of(cls, pretrained: Pretrained) -> Self:
        """Wrap a model that is in memory."""
        return cls(pretrained.model, pretrained.tokenizer, pretrained.space, pretrained.card, pretrained.alignment)

    def save_pretrained(self, path: str | Path, learned: str = "", as_of: float | None = None) -> Space:
        """Write a model directory, as `Pretrained.save_pretrained` says, and return its space, from now on its own."""
        held = Pretrained(self.model, self.tokenizer, self.space, self.card, self.alignment)
        saved = held.save_pretrained(path, learned, as_of)
        self.space, self.card, self.alignment = saved.space, saved.card, saved.alignment
        return saved.space

    @property
    def aligned_space(self) -> Space:
        """The space of `aligned` vectors; `space` where there is no map."""
        return self.alignment.space(self.space)

    def aligned(self, vectors_ND: Tensor) -> Tensor:
        """User embeddings or item vectors of this subgraph, float [N, space.width], as they leave in `aligned_space`;
        once, and not those that a store or a service gave."""
        return self.alignment(vectors_ND)

    def first(self, vectors_ND: Tensor, band: int) -> Tensor:
        """The first `band` dimensions of user embeddings or item vectors, and popularity's, float [N, band + 1].

        Products of these compare with one another and with no others. Raises ModelError for a band that the model has
        not learned to be usable alone.
        """
        learned = (*self.model.config.bands, self.model.config.width)
        if band not in learned:
            told = ", ".join(map(str, learned))
            raise ModelError(f"{band} dimensions of {self.space.id} were not learned to be usable alone: take {told}")
        return cut(vectors_ND, band)

    def frozen(self) -> Self:
        """Let no gradient reach the pretrained weights: what is put on top learns alone. Eval mode stays, too."""
        self.model.requires_grad_(False)
        return self.train(self.training)

    def trainable(self) -> Self:
        """Let gradients reach all weights that a user embedding is made of, tables included.

        Who trains on `score` or `item_vectors` as well calls `subgraph.model.requires_grad_(True)` instead.
        """
        return self._learning(lambda name: not name.startswith(UNREAD))

    def trainable_from(self, layer: int) -> Self:
        """Let gradients reach the trunk's layers from this one on, and what stands behind them; no table moves.

        layer: from 0, or from the end if negative: −1 is the last one. Raises ModelError where there is no such layer.
        """
        layers = self.model.config.layers
        if not -layers <= layer < layers:
            raise ModelError(f"the trunk has {layers} layers, 0 to {layers - 1}, none is {layer}")
        blocks = tuple(f"trunk.blocks.{number}." for number in range(layers)[layer:])
        return self._learning(lambda name: name.startswith((*blocks, "trunk.mix", "trunk.norm", *BEHIND)))

    def trainable_pooling(self) -> Self:
        """Let gradients reach only what turns the trunk's states into the user embedding."""
        return self._learning(lambda name: name.startswith(BEHIND))

    def sparse_tables(self) -> Self:
        """Give the item tables row-sparse gradients, as in pretraining: for catalogues of millions of items, with
        torch.optim.SparseAdam for them. DDP and FSDP take none."""
        for table in _tables(self.model):
            table.sparse = table in (self.model.tower.id, self.model.tower.bias)
        return self

    def train(self, mode: bool = True) -> Self:
        """As any module; but a frozen model stays in eval mode, whatever is called on the module around it."""
        super().train(mode)
        self.model.train(mode and any(weight.requires_grad for weight in self.model.parameters()))
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Weights of its own; the tokenizer, which nothing changes and which may be large, is shared."""
        memo[id(self.tokenizer)] = self.tokenizer
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def _learning(self, learns: Callable[[str], bool]) -> Self:
        for name, weight in self.model.named_parameters():
            weight.requires_grad_(learns(name))
        return self.train(self.training)

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

    def interests(self, batch: EventBatch, at_B: Tensor | None = None) -> Tensor:
        """Several vectors of each user, float32 [B, I, space.width], each used as a user embedding is: an item's best
        product with them is its score. Raises ModelError where the model has one vector a user."""
        return self.model.interest_vectors(self.states(batch, at_B))

    def layers(self, batch: EventBatch, at_B: Tensor | None = None) -> Tensor:
        """What each earlier layer of the trunk says of each user, and last the state, which knows attributes too,
        float32 [B, L, D]: for whoever would read another layer, or weigh them anew."""
        states, earlier = self.model.with_layers(batch, self.requests(batch, at_B))
        return torch.stack([*earlier, states.bare_RD], dim=1)

    def item_vectors(self) -> Tensor:
        """float32 [V, space.width], one row a candidate code; rows 0 and 1 are not candidates."""
        return self.model.item_vectors()

    def score(self, batch: EventBatch, at_B: Tensor | None = None, context_BC: Tensor | None = None) -> Tensor:
        """Logits of each user's next item over all candidates, float32 [B, V], repeat path included."""
        return self.model.scores(self.states(batch, at_B, context_BC), self.item_vectors())


def rows_of(user_ids: pa.Array, asked: pa.Array | Sequence[Any]) -> Tensor:
    """int64 [N]: where each of the users asked for stands in a batch, so that user_BD[rows] repeats no encoding.

    user_ids: as `Subgraph.tokenize` gives them. asked: one id a row, of a candidate or an impression, say.
    Raises ModelError where users have no row.
    """
    wanted = asked if isinstance(asked, pa.Array | pa.ChunkedArray) else pa.array(asked)
    row_N = pc.index_in(wanted.cast(user_ids.type), value_set=user_ids)
    if row_N.null_count:
        raise ModelError(f"{row_N.null_count} rows are of users who are not in the batch: tokenize their events too")
    return torch.from_numpy(np.array(row_N, dtype=np.int64))


def _tables(model: FoundationModel) -> list[nn.Embedding]:
    return [module for module in model.modules() if isinstance(module, nn.Embedding)]
