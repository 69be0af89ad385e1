"""Codes as a language of items: from a text to the semantic ID it stands for, and from a semantic ID back to the text.

Text takes the place of a user: a projection of its vector is the state from which a decoder says codes. It starts as
the one that learned from users and goes its own way, since what users want next says little of what words mean. The way
back reads codes by the same tables and is scored by likeness to texts. Such linking tasks are how language models are
taught semantic IDs (Zheng et al., LC-Rec, arXiv:2311.09049); here they are a short fit over items.

Shapes beside those of trie.py: X width of a text vector, N texts, each with its path.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.decoder import CodeDecoder
from foundation.embedding import ItemTower, known_rows
from foundation.errors import ModelError
from foundation.objectives.softmax import chunks
from foundation.trie import CodeTrie

_SHARPNESS = 20.0  # of cosines in the softmax over the texts of a batch


@dataclass(frozen=True)
class Fit:
    """How long and how fast a linking is fitted. epochs over the texts, batch of so many, rate of AdamW at its
    highest."""

    epochs: int = 30
    batch: int = 1_024
    rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or not 0 < self.rate < math.inf:
            raise ModelError(
                f"a fit takes at least 1 epoch, a batch of at least 2 and a rate above 0, got {self.epochs}, "
                f"{self.batch} and {self.rate}"
            )


@dataclass(frozen=True)
class Named:
    """N distinct pairs of a text and the path that items of this text have. text_NX: float32 text vectors. end_N: int64
    whole paths of a trie."""

    text_NX: Tensor
    end_N: Tensor

    def picked(self, row_M: Tensor) -> Named:
        """Some of them."""
        return Named(self.text_NX[row_M], self.end_N[row_M])

    def __len__(self) -> int:
        return len(self.end_N)


class Linking(nn.Module):
    """Texts ↔ codes, by a decoder of its own that starts as the one given."""

    def __init__(self, text_width: int, decoder: CodeDecoder) -> None:
        super().__init__()
        width, levels = decoder.start.in_features, len(decoder.sizes)
        self.decoder = copy.deepcopy(decoder).requires_grad_(True)
        self.read = nn.Sequential(nn.Linear(text_width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.say = nn.Sequential(nn.Linear(levels * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, text_width))

    def states(self, text_NX: Tensor) -> Tensor:
        """float [N, D] states to decode from; texts count by their direction."""
        state_ND: Tensor = self.read(math.sqrt(text_NX.shape[1]) * F.normalize(text_NX, dim=1))
        return state_ND

    def texts(self, trie: CodeTrie, end_N: Tensor) -> Tensor:
        """float [N, X] of length 1: what the codes of these whole paths mean, as a text vector."""
        path_NL = trie.paths(end_N)
        told = [
            known_rows(table, of_level.code_N[path_NL[:, level]])
            for level, (table, of_level) in enumerate(zip(self.decoder.tables, trie.levels, strict=True))
        ]
        text_NX: Tensor = F.normalize(self.say(torch.cat(told, dim=1)), dim=1)
        return text_NX


def named(tower: ItemTower, trie: CodeTrie) -> Named:
    """The distinct pairs of a text and a path among the items of a trie; items without text are left out."""
    row_I, end_I = tower.text_row_V[trie.item_I], trie.end_V[trie.item_I]
    pair_N = torch.unique(row_I * len(trie.levels[-1]) + end_I)
    row_N, end_N = pair_N // len(trie.levels[-1]), pair_N % len(trie.levels[-1])
    text_NX = tower.text_UX[row_N]
    told_N = text_NX.any(dim=1) if text_NX.shape[1] else torch.zeros(0, dtype=torch.bool)
    if not told_N.any():
        raise ModelError("these items have no text to link codes with; declare `text` of items in the schema")
    return Named(text_NX[told_N], end_N[told_N])


def fit_linking(decoder: CodeDecoder, trie: CodeTrie, texts: Named, fit: Fit) -> Linking:
    """A linking fitted to these texts; the decoder stays as it is. The same for the same seed.

    Learns the path of a text by cross-entropy, and its text of a path by a softmax of cosines over the batch.
    """
    device = texts.text_NX.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fit.seed)
        linking = Linking(texts.text_NX.shape[1], decoder).to(device)
    draw = torch.Generator().manual_seed(fit.seed)
    optimiser = torch.optim.AdamW(
        [weight for name, weight in linking.named_parameters() if "copy" not in name], lr=fit.rate
    )
    steps = fit.epochs * math.ceil(len(texts) / fit.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, fit.rate, total_steps=steps)
    for _ in range(fit.epochs):
        order_N = torch.randperm(len(texts), generator=draw).to(device)
        for part in chunks(len(texts), fit.batch):
            optimiser.zero_grad()
            torch.autograd.backward(_loss(linking, trie, texts.picked(order_N[part])))
            optimiser.step()
            schedule.step()
    return linking.eval()


def _loss(linking: Linking, trie: CodeTrie, some: Named) -> Tensor:
    row_M = torch.arange(len(some), device=some.end_N.device)
    log_ML = linking.decoder.log_paths(linking.states(some.text_NX), trie, row_M, some.end_N)
    cosine_MM = _SHARPNESS * linking.texts(trie, some.end_N) @ F.normalize(some.text_NX, dim=1).T
    return F.cross_entropy(cosine_MM, row_M) - log_ML.sum(1).mean()
