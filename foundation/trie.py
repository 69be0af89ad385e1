"""All items by their semantic IDs, as one tree of code prefixes in sorted arrays.

Decoding code by code may only go where items are (constrained decoding: De Cao et al., GENRE, arXiv:2010.00904). Items
stand in the order of their codes, so the children of a prefix lie side by side, and those of many prefixes are found at
once by their offsets. Items that content can't tell apart have one path and share its end; where nothing is known of an
item, its codes are those of the unknown, so every item has a path.

Shapes beside those of jagged.py: L levels, I items, N prefixes of one length, S codes of one level, Q own paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.errors import ModelError
from foundation.jagged import ranges_of, ranges_owner, segment_sum


@dataclass(frozen=True)
class TrieLevel:
    """The N distinct prefixes of one length, in order.

    code_N: int64, the last code of each. key_N: int64, parent × S + code, ascending. begin_P1: int64 [parents + 1],
    where the children of each prefix one code shorter begin among the N. log_share_N: float32 log share that each has
    of its parent's weight. S is `size`.
    """

    code_N: Tensor
    key_N: Tensor
    begin_P1: Tensor
    log_share_N: Tensor
    size: int

    def __len__(self) -> int:
        return len(self.code_N)

    def shares(self, parent_N: Tensor) -> Tensor:
        """float [parents asked, S]: log share of each code among the children of the prefixes, −inf where there is
        none."""
        begin_N = self.begin_P1[parent_N]
        length_N = self.begin_P1[parent_N + 1] - begin_N
        owner_E = ranges_owner(length_N)
        child_E = ranges_of(begin_N, length_N, owner_E)
        found_NS = self.log_share_N.new_full((len(parent_N), self.size), -torch.inf)
        found_NS[owner_E, self.code_N[child_E]] = self.log_share_N[child_E]
        return found_NS

    def child(self, parent_N: Tensor, code_N: Tensor) -> Tensor:
        """int64, the place of each (prefix, next code) that exists; of one that doesn't, some place."""
        return torch.searchsorted(self.key_N, parent_N * self.size + code_N).clamp(max=len(self) - 1)

    def parents(self) -> Tensor:
        """int64 [N]: the prefix one code shorter."""
        return self.key_N // self.size


@dataclass(frozen=True)
class CodeTrie:
    """Items by their codes. levels: from one code to all of them.

    item_I: int64 item codes in the order of their paths. begin_N1: where the items of each whole path begin among them.
    end_V: int64, each item's whole path; −1 for one that is not in the trie.
    """

    levels: tuple[TrieLevel, ...]
    item_I: Tensor
    begin_N1: Tensor
    end_V: Tensor

    @classmethod
    def of(cls, semantic_VL: Tensor, log_weight_V: Tensor, first: int, sizes: Sequence[int]) -> Self:
        """The trie of all items from code `first` on.

        semantic_VL: int64 codes of all items. log_weight_V: how often each is met, as a logarithm. sizes: number of
        codes of each level. Raises ModelError where there is no item, or no level.
        """
        item_I = torch.arange(first, len(semantic_VL), device=semantic_VL.device)
        if not len(item_I) or not sizes:
            raise ModelError("a trie takes at least one item and one level of codes: declare `semantic_ids` of items")
        for level in reversed(range(len(sizes))):
            item_I = item_I[torch.argsort(semantic_VL[item_I, level], stable=True)]
        weight_I = log_weight_V[item_I].double().exp()
        node_I, total_P = torch.zeros_like(item_I), weight_I.sum()[None]
        levels = []
        for level, size in enumerate(sizes):
            key_N, node_I = torch.unique_consecutive(node_I * size + semantic_VL[item_I, level], return_inverse=True)
            weight_N = segment_sum(weight_I, node_I, len(key_N))
            share_N = torch.log(weight_N / total_P[key_N // size]).float()
            levels.append(_level(key_N, share_N, len(total_P), size))
            total_P = weight_N
        return cls(tuple(levels), item_I, *_ends(item_I, node_I, len(total_P), len(semantic_VL)))

    def only(self, item_J: Tensor) -> Self:
        """The trie of some of its items, int64 codes, distinct: of those sold now, say, or not met yet. Paths
        that lead to none of them are gone; the others keep their shares, so they stay as likely beside one another.

        Raises ModelError where none is left.
        """
        kept_V = torch.zeros_like(self.end_V, dtype=torch.bool)
        kept_V[item_J] = True
        item_I = self.item_I[kept_V[self.item_I]]
        if not len(item_I):
            raise ModelError("none of these items is in the trie: give codes of items that have semantic IDs")
        path_IL = self.paths(self.end_V[item_I])
        above_I, parents, levels = torch.zeros_like(item_I), 1, []
        for level, old in enumerate(self.levels):
            kept_N, node_I = torch.unique_consecutive(path_IL[:, level], return_inverse=True)
            parent_N = above_I.new_zeros(len(kept_N)).index_put((node_I,), above_I)
            key_N = parent_N * old.size + old.code_N[kept_N]
            levels.append(_level(key_N, old.log_share_N[kept_N], parents, old.size))
            above_I, parents = node_I, len(kept_N)
        begin_N1, end_V = _ends(item_I, above_I, parents, len(self.end_V))
        return replace(self, levels=tuple(levels), item_I=item_I, begin_N1=begin_N1, end_V=end_V)

    def __len__(self) -> int:
        return len(self.item_I)

    def items(self, end_N: Tensor) -> tuple[Tensor, Tensor]:
        """(row, item code) of all items at the ends of these paths, int64 [A] each; rows ascend."""
        begin_N = self.begin_N1[end_N]
        length_N = self.begin_N1[end_N + 1] - begin_N
        owner_A = ranges_owner(length_N)
        return owner_A, self.item_I[ranges_of(begin_N, length_N, owner_A)]

    def paths(self, end_N: Tensor) -> Tensor:
        """int64 [N, L]: which prefix of each level leads to these ends."""
        found = [end_N]
        for level in reversed(self.levels[1:]):
            found.append(level.parents()[found[-1]])
        return torch.stack(found[::-1], dim=1)


@dataclass(frozen=True)
class Copies:
    """How likely each request repeats one of its user's own items, spread over the trie.

    request_P, item_P: int64, ascending by request, then item; share_P: float, summing to 1 over each request that has
    any. trie: in which all of them are.
    """

    request_P: Tensor
    item_P: Tensor
    share_P: Tensor

    def at(self, trie: CodeTrie, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """(request, prefix, share) of the own prefixes of that many codes and one, each pair once, in order."""
        node_P = trie.paths(trie.end_V[self.item_P])[:, level]
        size = len(trie.levels[level])
        pair_Q, place_P = torch.unique(self.request_P * size + node_P, return_inverse=True)
        return pair_Q // size, pair_Q % size, segment_sum(self.share_P, place_P, len(pair_Q))

    def of_ends(self, trie: CodeTrie, request_E: Tensor, end_E: Tensor) -> Tensor:
        """float [E]: the share of each (request, whole path); 0 where the user has no item there."""
        request_Q, end_Q, share_Q = self.at(trie, len(trie.levels) - 1)
        size = len(trie.levels[-1])
        return _looked_up(request_Q * size + end_Q, share_Q, request_E * size + end_E)

    def of_items(self, request_A: Tensor, item_A: Tensor, codes: int) -> Tensor:
        """float [A]: the share of each (request, item); codes: more than the largest item code."""
        return _looked_up(self.request_P * codes + self.item_P, self.share_P, request_A * codes + item_A)


def _level(key_N: Tensor, log_share_N: Tensor, parents: int, size: int) -> TrieLevel:
    begin_P1 = torch.searchsorted(key_N // size, torch.arange(parents + 1, device=key_N.device))
    return TrieLevel(key_N % size, key_N, begin_P1, log_share_N, size)


def _ends(item_I: Tensor, end_I: Tensor, ends: int, codes: int) -> tuple[Tensor, Tensor]:
    """`begin_N1` and `end_V` of a trie whose items end there."""
    begin_N1 = torch.searchsorted(end_I, torch.arange(ends + 1, device=end_I.device))
    return begin_N1, end_I.new_full((codes,), -1).index_put((item_I,), end_I)


def _looked_up(key_Q: Tensor, value_Q: Tensor, wanted_E: Tensor) -> Tensor:
    """The value of each wanted key among ascending ones, 0 where it is not there."""
    place_E = torch.searchsorted(key_Q, wanted_E)
    hit_E = F.pad(key_Q, (0, 1), value=-1)[place_E] == wanted_E
    return torch.where(hit_E, F.pad(value_Q, (0, 1))[place_E], 0.0)
