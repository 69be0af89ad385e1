"""Facets → token vectors x_TD, and the item tower that history and candidates share.

An item is its trainable ID row plus what is known of it (metadata, text), so one that was never seen still has a
vector: content through the tower, ID zero. Sharing one tower between input and output follows Press & Wolf,
arXiv:1608.05859; ID ⊕ content follows Pan et al., PinnerFormer/ItemSage, arXiv:2205.11728. How much the row counts may
depend on the item's age (foundation/item_age.py); then whatever reads an item says at which moment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from foundation.config import ItemGate, ModelConfig
from foundation.item_age import FLOOR, NOTHING_HIDDEN, Aged, AgeGate, Hidden, ItemAges, NewPopularity, moments
from foundation.jagged import EventBatch
from tokenization.items.content import ItemTable


@dataclass(frozen=True)
class ItemContent:
    """What is known of every candidate code.

    category_VC: int64 codes of metadata. text_UX: float32 distinct text vectors, text_row_V: int64 the
    row of each item, since many share a text. media_VM: float32 vectors that the user brings, zeros where there are
    none. semantic_VL: int64 semantic IDs, a code a level.
    recent_V: float32 decayed number of meetings before the split; 0 = never met. It starts the popularity bias.
    ages: since when items are met, empty where nobody says; a new model with a gate reads them.
    """

    category_VC: Tensor
    text_UX: Tensor
    text_row_V: Tensor
    recent_V: Tensor
    media_VM: Tensor
    semantic_VL: Tensor
    ages: ItemAges = field(default_factory=lambda: ItemAges.untold(0))

    def __len__(self) -> int:
        return len(self.recent_V)


def item_content(items: ItemTable, recent_V: Tensor | None = None, ages: ItemAges | None = None) -> ItemContent:
    """What the tokenizer knows of every item. recent_V, ages: as in ItemContent, for a new model."""
    codes = len(items)
    columns = [torch.from_numpy(column.astype(np.int64)) for column in items.categories.values()]
    return ItemContent(
        category_VC=torch.stack(columns, dim=1) if columns else torch.zeros(codes, 0, dtype=torch.int64),
        text_UX=torch.from_numpy(np.array(items.distinct_vectors, dtype=np.float32)),
        text_row_V=torch.from_numpy(items.text_of.astype(np.int64)),
        recent_V=torch.zeros(codes) if recent_V is None else recent_V,
        media_VM=_side_by_side([torch.from_numpy(np.array(matrix)) for matrix in items.media.values()], codes),
        semantic_VL=_semantic_ids(items, codes),
        ages=ItemAges.untold(codes) if ages is None else ages,
    )


def _side_by_side(matrices: Sequence[Tensor], rows: int) -> Tensor:
    return torch.cat(list(matrices), dim=1) if matrices else torch.zeros(rows, 0)


def _semantic_ids(items: ItemTable, rows: int) -> Tensor:
    if items.semantic is None:
        return torch.zeros(rows, 0, dtype=torch.int64)
    return torch.from_numpy(items.semantic.embedded.astype(np.int64))


def table_of(size: int, width: int, std: float = 0.1) -> nn.Embedding:
    """A trainable table of `size` codes whose row 0 (absent) starts at zero."""
    table = nn.Embedding(size, width)
    with torch.no_grad():
        table.weight.normal_(std=std)[0].zero_()
    return table


def known_rows(table: nn.Module, code: Tensor) -> Tensor:
    """Rows of an embedding table; codes that it does not have (admitted after training) read as unknown, 1."""
    assert isinstance(table, nn.Embedding)
    rows: Tensor = table(torch.where(code < table.num_embeddings, code, 1))
    return rows


class ItemTower(nn.Module):
    """Code → item vector of D dimensions, and a popularity bias.

    The content is not part of the weights: it is read from the tokenizer's item table, which may have grown.
    """

    def __init__(self, config: ModelConfig, content: ItemContent) -> None:
        super().__init__()
        width = config.width
        # Row-sparse gradients: a step touches only the rows in use.
        self.id = nn.Embedding(config.item.codes, width, sparse=True)
        self.bias = nn.Embedding(config.item.codes, 1, sparse=True)
        self.categories = nn.ModuleList(table_of(size, width) for _, size in config.item.categories)
        self.text = nn.Linear(config.item.text_width, width, bias=False) if config.item.text_width else None
        media, levels = config.item.media_width, config.item.semantic_ids
        self.media = nn.Linear(media, width, bias=False) if media else None
        # A table a level, summed as the centroids are of which a semantic ID is made.
        self.semantic_ids = nn.ModuleList(table_of(size, width) for size in levels)
        self.register_buffer("category_VC", content.category_VC, persistent=False)
        self.register_buffer("media_VM", content.media_VM, persistent=False)
        self.register_buffer("semantic_VL", content.semantic_VL, persistent=False)
        self.register_buffer("text_UX", content.text_UX, persistent=False)
        self.register_buffer("text_row_V", content.text_row_V, persistent=False)
        # Saved with the weights: what the bias starts from, and what the heads call popular.
        log_recent_V = torch.log(content.recent_V[: config.item.codes] + FLOOR)
        self.register_buffer("log_recent_V", log_recent_V)
        gated, ages = config.item_gate is ItemGate.AGE, content.ages
        if gated and not len(ages.since_V):
            ages = ItemAges.untold(len(content))
        self.gate = AgeGate(config.repeat.time_unit, config.item.codes, ages) if gated else None
        self.new_popularity = NewPopularity(config.item, content.category_VC, ages) if gated else None
        self._initialise(content.recent_V[: config.item.codes])

    category_VC: Tensor
    text_UX: Tensor
    text_row_V: Tensor
    media_VM: Tensor
    semantic_VL: Tensor
    log_recent_V: Tensor

    def _initialise(self, recent_V: Tensor) -> None:
        # Rows of items without events never receive a gradient: zero, so that only content speaks for them.
        seen_V1 = (recent_V > 0)[:, None]
        with torch.no_grad():
            self.id.weight.normal_(std=0.02).mul_(seen_V1)
            self.bias.weight.copy_(self.log_recent_V[:, None])

    @property
    def codes(self) -> int:
        """V: codes that have content, which may be more than those that were trained."""
        return len(self.category_VC)

    def forward(self, code_N: Tensor, hidden: Hidden = NOTHING_HIDDEN, at: float | None = None) -> Tensor:
        """float [N, D] vectors of int64 codes.

        at: epoch seconds at which they are read, where items have ages; None: the end of what was learned.
        """
        row_ND = known_rows(self.id, code_N)
        if self.gate is not None or hidden.some:
            row_ND = row_ND * self.shares(code_N, self._moment(at), hidden)[:, None]
        return self._with_content(row_ND, code_N)

    def content(self, code_N: Tensor) -> Tensor:
        """float [N, D] of what is known of the items: their vectors without their own rows."""
        return self._with_content(self.id.weight.new_zeros(code_N.shape[0], self.id.embedding_dim), code_N)

    def _with_content(self, x_ND: Tensor, code_N: Tensor) -> Tensor:
        category_NC = self.category_VC[code_N]
        for column, table in enumerate(self.categories):
            x_ND = x_ND + known_rows(table, category_NC[:, column])
        semantic_NL = self.semantic_VL[code_N]
        for level, table in enumerate(self.semantic_ids):
            x_ND = x_ND + known_rows(table, semantic_NL[:, level])
        if self.media is not None:
            x_ND = x_ND + self.media(self.media_VM[code_N])
        return x_ND if self.text is None else x_ND + self.text(self.text_of(code_N))

    def shares(self, code_N: Tensor, moment_N: Tensor, hidden: Hidden = NOTHING_HIDDEN) -> Tensor:
        """float of the shape that codes and moments (int64 microseconds) broadcast to: how much rows count."""
        if self.gate is None:
            kept_N = hidden.kept(code_N, code_N * 0)
            return kept_N.expand((code_N + moment_N).shape)
        bin_N: Tensor = self.gate.bins(code_N, moment_N)
        share_N: Tensor = self.gate(bin_N) * hidden.kept(code_N, bin_N)
        return share_N

    def aged(self, code_N: Tensor, moment_R: Tensor, hidden: Hidden = NOTHING_HIDDEN) -> tuple[Aged, ...]:
        """What of candidates counts by their age at requests, beside `content` and `popularity_of_new`; nothing where
        rows count alike at all of them."""
        if self.gate is None and not hidden.some:
            return ()
        lead_N = known_rows(self.bias, code_N).squeeze(1) - self.popularity_of_new(code_N)
        id_ND = known_rows(self.id, hidden.row_of(code_N))
        return (Aged(code_N, id_ND, lead_N, moment_R, lambda code, moment: self.shares(code, moment, hidden)),)

    def _moment(self, at: float | None) -> Tensor:
        if at is None and self.gate is not None:
            return self.gate.as_of_1
        return moments(self.id.weight.new_tensor([at or 0.0], dtype=torch.float64))

    def text_of(self, code_N: Tensor) -> Tensor:
        """float32 [N, X] text vectors of the items, zeros where there is no text."""
        return self.text_UX[self.text_row_V[code_N]]

    def popularity(self, code_N: Tensor, at: float | None = None) -> Tensor:
        """float [N]: how likely the item is for anybody, as a logit; learned beside the user's own items, so those
        who have it already count little. at: as in `forward`."""
        own_N = known_rows(self.bias, code_N).squeeze(1)
        if self.gate is None:
            return own_N
        new_N = self.popularity_of_new(code_N)
        return new_N + self.shares(code_N, self._moment(at)) * (own_N - new_N)

    def popularity_of_new(self, code_N: Tensor) -> Tensor:
        """float [N]: the same of an item whose row counts nothing; one for all where there is no gate."""
        if self.new_popularity is None:
            return self.log_recent_V.new_full(code_N.shape, math.log(FLOOR))
        found_N: Tensor = self.new_popularity(self.category_VC[code_N])
        return found_N

    def log_recent(self, code_N: Tensor) -> Tensor:
        """float [N]: log of the item's recent meetings before the split, whoever met it; of none for later items."""
        return self.log_recent_V[torch.where(code_N < len(self.log_recent_V), code_N, 1)]


class EventEmbedding(nn.Module):
    """One vector a token: the sum of its facets' embeddings, the item's taken from the tower."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.item_column = config.item_column
        self.item_projection = nn.Linear(config.width, config.width, bias=False)
        # Named by the first column that reads it.
        self.columns = {str(columns[0]): columns for columns in config.tables.values()}
        self.tables = nn.ModuleDict(
            {name: table_of(config.facets[int(name)].size, config.width) for name in self.columns}
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, batch: EventBatch, tower: ItemTower, hidden: Hidden = NOTHING_HIDDEN) -> Tensor:
        """float [T, D]. Items are read as of their events: a model that is told of the past is told how it was then."""
        code_N, place_T = torch.unique(batch.facet_TF[:, self.item_column], return_inverse=True)
        if tower.gate is None and not hidden.some:
            x_TD: Tensor = self.item_projection(tower(code_N)).index_select(0, place_T)
        else:
            moment_T = moments(batch.time_T + batch.start_B[batch.user_T])
            share_T = tower.shares(batch.facet_TF[:, self.item_column], moment_T, hidden)
            content_ND, row_ND = tower.content(code_N), known_rows(tower.id, code_N)
            both_2ND = self.item_projection(torch.stack([content_ND, row_ND]))
            x_TD = both_2ND[0].index_select(0, place_T) + share_T[:, None] * both_2ND[1].index_select(0, place_T)
        for name, table in self.tables.items():
            first, *more = self.columns[name]
            x_TD = x_TD + known_rows(table, batch.facet_TF[:, first])
            for column in more:  # members of a set: what is not there adds nothing
                code_T = batch.facet_TF[:, column]
                x_TD = x_TD + (code_T > 0)[:, None] * known_rows(table, code_T)
        hidden_TD: Tensor = self.dropout(x_TD)
        return hidden_TD
