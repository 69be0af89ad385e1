"""User state → semantic ID, code by code: a small recurrent decoder whose state is all that a next code needs.

As Rajput et al., TIGER, arXiv:2305.05065, with the user encoded once by the trunk and a GRU (Cho et al.,
arXiv:1406.1078) instead of a second transformer: three or four codes are no sequence to attend over. Codes are told
and guessed by one table a level (Press & Wolf, arXiv:1608.05859). A logit starts from the code's share of what is met
beneath its prefix, so before training the decoder says what is popular, code by code; a code that leads to no item
has none.

A user's own items return by copying: the distribution over paths is a mixture of the decoder's and of the shares with
which own items return (pointer-generator: See et al., arXiv:1704.04368), which are those of the stored vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.config import ModelConfig
from foundation.embedding import known_rows, table_of
from foundation.jagged import segment_softmax
from foundation.repeat import OwnItems
from foundation.trie import CodeTrie, Copies

PATHS = 8_192  # paths whose logits are held at once


@dataclass(frozen=True)
class Decoding:
    """Where the decoder stands on N paths; what is kept of them between two codes.

    told_ND: of the user, the same at every level. hidden: float [N, D] of each layer.
    """

    told_ND: Tensor
    hidden: tuple[Tensor, ...]

    def picked(self, row_M: Tensor) -> Decoding:
        """Some of the paths, some perhaps more than once."""
        return Decoding(self.told_ND[row_M], tuple(hidden_ND[row_M] for hidden_ND in self.hidden))


class CodeDecoder(nn.Module):
    """P(next code | user, codes before it), level by level."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.sizes = config.item.semantic_ids
        self.start = nn.Linear(width, width)
        self.tables = nn.ModuleList(table_of(size, width) for size in self.sizes)
        self.layers = nn.ModuleList(nn.GRUCell(width, width) for _ in range(config.decoder.layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in self.sizes)
        # How much the share of a code counts, a number a level; and how likely an own item is copied.
        self.popularity_L = nn.Parameter(torch.ones(len(self.sizes)))
        self.copy = nn.Linear(width, 1)

    def begin(self, state_RD: Tensor) -> Decoding:
        """Before the first code."""
        told_RD = self.start(state_RD)
        return Decoding(told_RD, tuple(torch.zeros_like(told_RD) for _ in self.layers))

    def step(self, decoding: Decoding, code_N: Tensor | None, level: int) -> tuple[Decoding, Tensor]:
        """One code further: where the decoder stands then, and float [N, S] what it makes of each code of `level`.

        code_N: int64 codes of the level before; None at the first.
        """
        x_ND = decoding.told_ND
        if code_N is not None:
            x_ND = x_ND + known_rows(self.tables[level - 1], code_N)
        hidden = []
        for cell, hidden_ND in zip(self.layers, decoding.hidden, strict=True):
            x_ND = cell(x_ND, hidden_ND)
            hidden.append(x_ND)
        table = self.tables[level]
        assert isinstance(table, nn.Embedding)
        logit_NS = self.norm(x_ND) @ table.weight.T + self.bias[level]
        return Decoding(decoding.told_ND, tuple(hidden)), logit_NS

    def log_next(self, logit_NS: Tensor, share_NS: Tensor, level: int) -> Tensor:
        """float [N, S]: log P(code), −inf for codes that lead to no item; shares as `TrieLevel.shares` has them."""
        missing_NS = share_NS == -torch.inf
        logit_NS = logit_NS + self.popularity_L[level] * torch.where(missing_NS, 0.0, share_NS)
        return torch.log_softmax(logit_NS.masked_fill(missing_NS, -torch.inf), dim=1)

    def log_paths(self, state_RD: Tensor, trie: CodeTrie, request_E: Tensor, end_E: Tensor) -> Tensor:
        """float [E, L]: log P of each code of these whole paths, the codes before it given (teacher forcing)."""
        path_EL = trie.paths(end_E)
        decoding = self.begin(state_RD).picked(request_E)
        code_E, parent_E, found = None, torch.zeros_like(end_E), []
        for level, of_level in enumerate(trie.levels):
            decoding, logit_ES = self.step(decoding, code_E, level)
            log_ES = self.log_next(logit_ES, of_level.shares(parent_E), level)
            parent_E = path_EL[:, level]
            code_E = of_level.code_N[parent_E]
            found.append(log_ES.gather(1, code_E[:, None]))
        return torch.cat(found, dim=1)

    def copying(self, state_RD: Tensor, copies: Copies) -> tuple[Tensor, Tensor]:
        """log P(an own item is copied) and log P(not), float [R] each; nobody copies who has no own item."""
        logit_R = self.copy(state_RD).squeeze(1)
        has_R = torch.zeros(len(logit_R), dtype=torch.bool, device=logit_R.device)
        has_R[copies.request_P] = True
        yes_R = torch.where(has_R, F.logsigmoid(logit_R), -torch.inf)
        return yes_R, torch.where(has_R, F.logsigmoid(-logit_R), 0.0)


def copies_of(own: OwnItems, repeat_P: Tensor, trie: CodeTrie, requests: int) -> Copies:
    """What may be copied: own items that are in the trie. repeat_P: float, how likely each returns, as a logit."""
    kept_P = trie.end_V[own.code_P] >= 0
    request_P = own.request_P[kept_P]
    return Copies(request_P, own.code_P[kept_P], segment_softmax(repeat_P[kept_P], request_P, requests))
