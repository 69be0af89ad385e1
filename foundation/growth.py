"""A model whose vocabularies have grown since it was trained: the same weights, with room for what is new.

What was known keeps its rows. A value of a facet that is new begins as what it was read as until then, the unknown one.
An item that is met for the first time begins where its neighbours by content are, weighted by how near they are (cold
items are mapped to learned factors so by Gantner et al., ICDM 2010); without any content it begins at zero.

Shapes: V item codes now, W of them trained before, N new ones, X dimensions of content.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.config import ModelConfig
from foundation.embedding import ItemContent, ItemTower
from foundation.errors import ModelError
from foundation.item_age import FLOOR
from foundation.model import FoundationModel

UNKNOWN = 1
NEIGHBOURS = 8
SHARPNESS = 10.0  # of the weights of neighbours: e to the power of so many times the cosine
CHUNK = 1_024  # new items at a time
NEW = ("tower.gate.since_V", "tower.gate.as_of_1")  # what content says anew; ages of known items it says as before


def grown(model: FoundationModel, config: ModelConfig, content: ItemContent) -> FoundationModel:
    """A model of `config`, whose vocabularies are those of `model` or longer, that says of what `model` knows the same.

    content: of all items now, with their recent meetings, at which the popularity of new ones begins. Raises ModelError
    where more than sizes of vocabularies differs, or one of them has shrunk.
    """
    new, old = FoundationModel(config, content), model.state_dict()
    saved = new.state_dict()
    _check(model.config, config, {name: (old.get(name), value) for name, value in saved.items()})
    kept = {name: value if name in NEW else longer(old[name], value.shape) for name, value in saved.items()}
    new.load_state_dict(kept)
    with torch.no_grad():
        _settle(new.tower, model.tower, content.recent_V[: config.item.codes])
    return new


def longer(known: Tensor, shape: torch.Size) -> Tensor:
    """A weight with the codes that came since, each of which is what the unknown code is."""
    for place, size in enumerate(shape):
        code_N = torch.arange(size, device=known.device)
        known = known.index_select(place, torch.where(code_N < known.shape[place], code_N, UNKNOWN))
    return known


def _check(old: ModelConfig, new: ModelConfig, weights: Mapping[str, tuple[Tensor | None, Tensor]]) -> None:
    """Raises ModelError where the new configuration is no growth of the old one."""
    same = replace(new, facets=old.facets, item=old.item, attributes=old.attributes)
    names = (_names(old), _names(new))
    if same != old or names[0] != names[1]:
        raise ModelError("a model grows by codes of its vocabularies alone: train a new one for another configuration")
    for name, (known, wanted) in weights.items():
        if known is None or any(now < before for before, now in zip(known.shape, wanted.shape, strict=True)):
            raise ModelError(
                f"{name!r} is larger in the model than what it should grow to: give a tokenizer that grew from its own"
            )


def _names(config: ModelConfig) -> list[str]:
    """Everything that has a vocabulary."""
    item = [name for name, _ in config.item.categories]
    return [*config.facet_names, config.item.facet, *item, *config.attribute_names]


def _settle(new: ItemTower, old: ItemTower, recent_V: Tensor) -> None:
    """Give rows and popularity to the items that are met for the first time; all others keep theirs."""
    rows, before = new.id.weight, old.id.weight
    trained_V = torch.zeros(len(rows), dtype=torch.bool)
    trained_V[: len(before)] = before.abs().sum(1) > 0
    rows[~trained_V] = 0.0
    new.log_recent_V[len(before) :] = math.log(FLOOR)
    new.bias.weight[len(before) :] = math.log(FLOOR)
    fresh_N = torch.nonzero((recent_V > 0) & ~trained_V).squeeze(1)
    new.log_recent_V[fresh_N] = torch.log(recent_V[fresh_N] + FLOOR)
    new.bias.weight[fresh_N] = new.log_recent_V[fresh_N, None]
    known_W = torch.nonzero(trained_V).squeeze(1)
    rows[fresh_N] = neighbours_rows(content_vectors(new, fresh_N), content_vectors(new, known_W), rows[known_W])


def content_vectors(tower: ItemTower, code_N: Tensor) -> Tensor:
    """float [N, D] what the model makes of the items' content, of length 1; zeros where nothing is known of one."""
    return F.normalize(tower.content(code_N), dim=1)


def neighbours_rows(asked_ND: Tensor, known_WD: Tensor, row_WE: Tensor) -> Tensor:
    """float [N, E]: the rows [W, E] of the nearest known items, weighted by nearness; zeros for whom nothing is near.

    asked_ND, known_WD: of length 1 or 0.
    """
    if not len(known_WD):
        return row_WE.new_zeros(len(asked_ND), row_WE.shape[1])
    found = [row_WE[:0]]
    for start in range(0, len(asked_ND), CHUNK):
        cosine_CW = asked_ND[start : start + CHUNK] @ known_WD.T
        near_CK, place_CK = cosine_CW.topk(min(NEIGHBOURS, cosine_CW.shape[1]), dim=1)
        weight_CK = torch.where(near_CK > 0, torch.exp(SHARPNESS * (near_CK - 1)), 0.0)
        weight_CK = weight_CK / weight_CK.sum(1, keepdim=True).clamp(min=1e-12)
        found.append(torch.einsum("ck,ckd->cd", weight_CK, row_WE[place_CK]))
    return torch.cat(found)
