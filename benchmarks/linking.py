"""Text ↔ semantic ID for products that the link has not seen: a part of `benchmarks generation`.

A tenth of the distinct texts is held out; the link is fitted to the others. Where codes are made of text alone, they
are a function of it, which the quantiser computes exactly: what is measured is how much of that a decoder of codes
learns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.errors import ModelError
from foundation.generation import best_paths
from foundation.linking import Fit, Linking, Named, fit_linking, named
from foundation.model import FoundationModel
from foundation.trie import CodeTrie

HELD_OUT = 10
"""One text in so many."""
BEAM = 10
FIT = Fit(epochs=12, rate=0.01)


def linked(model: FoundationModel) -> dict[str, float]:
    """Figures of a link that was fitted to nine tenths of the texts, on the others."""
    if model.decoder is None:
        raise ModelError("this model has no decoder to link texts with: train one with `--set decoder.layers=1`")
    trie = model.trie()
    texts = named(model.tower, trie)
    order_N = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    held, told = (texts.picked(part) for part in order_N.tensor_split([len(texts) // HELD_OUT]))
    linking = fit_linking(model.decoder, trie, told, FIT)
    return {
        "linking.texts": len(told),
        "linking.held_out": len(held),
        **_codes_of_texts(linking, trie, held, told),
        **_texts_of_codes(linking, trie, held, texts),
    }


def _codes_of_texts(linking: Linking, trie: CodeTrie, held: Named, told: Named) -> dict[str, float]:
    """How often the first codes, so many, are right, and the whole path among the best 10; beside the codes of the
    nearest text and the commonest."""
    with torch.no_grad():
        beams = best_paths(linking.decoder, linking.states(held.text_NX), trie, BEAM)
    near_N = (F.normalize(held.text_NX, dim=1) @ F.normalize(told.text_NX, dim=1).T).topk(BEAM, dim=1).indices
    common = told.end_N.bincount().topk(BEAM).indices.expand(len(held), -1)
    ends = {"linked": beams.node_RM, "nearest": told.end_N[near_N], "commonest": common}
    figures: dict[str, float] = {}
    for name, end_NM in ends.items():
        right_NL = trie.paths(end_NM[:, 0]) == trie.paths(held.end_N)
        for level in range(right_NL.shape[1]):
            figures[f"linking.{name}.first_{level + 1}"] = _share(right_NL[:, level])
        figures[f"linking.{name}.top_{BEAM}"] = _share((end_NM == held.end_N[:, None]).any(1))
    return figures


def _texts_of_codes(linking: Linking, trie: CodeTrie, held: Named, texts: Named) -> dict[str, float]:
    """How often codes find their text, first or among the first 10, of the held-out texts and of all. Texts
    with the same codes can't be told apart: `possible` is the share that could be first if all else were right."""
    with torch.no_grad():
        said_NX = linking.texts(trie, held.end_N)
    figures: dict[str, float] = {}
    for name, among in (("held_out", held), ("all", texts)):
        cosine_NM = said_NX @ F.normalize(among.text_NX, dim=1).T
        own_N = (said_NX * F.normalize(held.text_NX, dim=1)).sum(1)
        above_N = (cosine_NM > own_N[:, None] + 1e-6).sum(1)
        figures |= {f"linking.text_of_codes.{name}.top_{k}": _share(above_N < k) for k in (1, 10)}
        number_N = among.end_N.bincount(minlength=len(trie.levels[-1]))[held.end_N]
        figures[f"linking.text_of_codes.{name}.possible"] = float((1.0 / number_N).mean())
    return figures


def _share(right_N: Tensor) -> float:
    return float(right_N.double().mean())
