"""Facets → token vectors x_TD, and the item tower that history and candidates share.

An item is its trainable ID row plus what is known of it (metadata, text), so one that was never seen still has a
vector: content through the tower, ID zero. Sharing one tower between input and output follows Press & Wolf,
arXiv:1608.05859; ID ⊕ content follows Pan et al., PinnerFormer/ItemSage, arXiv:2205.11728.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from foundation.config import ModelConfig
from foundation.jagged import EventBatch
from tokenization.items.content import ItemTable


@dataclass(frozen=True)
class ItemContent:
    """What is known of every candidate code.

    category_VC: int64 codes of metadata. text_UX: float32 distinct text vectors, text_row_V: int64 the
    row of each item, since many share a text. media_VM: float32 vectors that the user brings, zeros where there are
    none. semantic_VL: int64 semantic IDs, a code a level.
    recent_V: float32 decayed number of meetings before the split; 0 = never met. It starts the popularity bias.
    """

    category_VC: Tensor
    text_UX: Tensor
    text_row_V: Tensor
    recent_V: Tensor
    media_VM: Tensor
    semantic_VL: Tensor

    def __len__(self) -> int:
        return len(self.recent_V)


def item_content(items: ItemTable, recent_V: Tensor | None = None) -> ItemContent:
    """What the tokenizer knows of every item. recent_V: as in ItemContent, for a new model."""
    codes = len(items)
    columns = [torch.from_numpy(column.astype(np.int64)) for column in items.categories.values()]
    return ItemContent(
        category_VC=torch.stack(columns, dim=1) if columns else torch.zeros(codes, 0, dtype=torch.int64),
        text_UX=torch.from_numpy(np.array(items.distinct_vectors, dtype=np.float32)),
        text_row_V=torch.from_numpy(items.text_of.astype(np.int64)),
        recent_V=torch.zeros(codes) if recent_V is None else recent_V,
        media_VM=_side_by_side([torch.from_numpy(np.array(matrix)) for matrix in items.media.values()], codes),
        semantic_VL=_semantic_ids(items, codes),
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
        log_recent_V = torch.log(content.recent_V[: config.item.codes] + 0.1)
        self.register_buffer("log_recent_V", log_recent_V)
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

    def forward(self, code_N: Tensor) -> Tensor:
        """float [N, D] vectors of int64 codes."""
        x_ND = known_rows(self.id, code_N)
        category_NC = self.category_VC[code_N]
        for column, table in enumerate(self.categories):
            x_ND = x_ND + known_rows(table, category_NC[:, column])
        semantic_NL = self.semantic_VL[code_N]
        for level, table in enumerate(self.semantic_ids):
            x_ND = x_ND + known_rows(table, semantic_NL[:, level])
        if self.media is not None:
            x_ND = x_ND + self.media(self.media_VM[code_N])
        return x_ND if self.text is None else x_ND + self.text(self.text_of(code_N))

    def text_of(self, code_N: Tensor) -> Tensor:
        """float32 [N, X] text vectors of the items, zeros where there is no text."""
        return self.text_UX[self.text_row_V[code_N]]

    def popularity(self, code_N: Tensor) -> Tensor:
        """float [N]: how likely the item is for anybody, as a logit; learned beside the user's own items, so those
        who have it already count little."""
        return known_rows(self.bias, code_N).squeeze(1)

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

    def forward(self, batch: EventBatch, tower: ItemTower) -> Tensor:
        """float [T, D]."""
        code_N, place_T = torch.unique(batch.facet_TF[:, self.item_column], return_inverse=True)
        x_TD: Tensor = self.item_projection(tower(code_N)).index_select(0, place_T)
        for name, table in self.tables.items():
            first, *more = self.columns[name]
            x_TD = x_TD + known_rows(table, batch.facet_TF[:, first])
            for column in more:  # members of a set: what is not there adds nothing
                code_T = batch.facet_TF[:, column]
                x_TD = x_TD + (code_T > 0)[:, None] * known_rows(table, code_T)
        hidden_TD: Tensor = self.dropout(x_TD)
        return hidden_TD
