"""The foundation model: completed events in; user embeddings, item vectors and scores out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from foundation.affinity import CategoryAffinity, candidate_lifts
from foundation.conditioning import Conditioning
from foundation.config import Groups, ModelConfig, Switch
from foundation.embedding import EventEmbedding, ItemContent, ItemTower, item_content
from foundation.errors import ModelError
from foundation.folder import Folder, read
from foundation.intents import Intents
from foundation.jagged import EventBatch, Requests, as_sequence, stream_of
from foundation.pooling import UserPooling, border_states, pooled_own
from foundation.repeat import (
    FIRST_ITEM,
    Columns,
    NoRepeat,
    OwnItems,
    RepeatPath,
    feature_count,
    meet,
    own_items,
    own_pairs,
    slow_decay,
    told_feature_count,
)
from foundation.transformer import Trunk


@dataclass(frozen=True)
class UserStates:
    """What the model knows of R requests.

    bare_RD: without, told_RD: with the request's context; both know the user's attributes. own: the users' earlier
    items. shares: of each category in their histories, one float [R, S] for each kind of category. intents: logits of
    each, float [R, C].
    """

    bare_RD: Tensor
    told_RD: Tensor
    own: OwnItems
    shares: tuple[Tensor, ...]
    intents: tuple[Tensor, ...] = ()


class FoundationModel(nn.Module):
    """Facets → trunk → user states; see docs/architecture.md for the picture.

    Vectors have width D + 1: the last dimension carries the item's popularity (1 on the user's side).
    """

    def __init__(self, config: ModelConfig, content: ItemContent) -> None:
        super().__init__()
        self.config = config
        self._columns = Columns(config.item_column, config.context_columns)
        self.tower = ItemTower(config, content)
        self.events = EventEmbedding(config)
        self.trunk = Trunk(config)
        self.empty_D = nn.Parameter(torch.zeros(config.width))
        context = [(facet.table or facet.name, facet.size) for facet in config.context]
        self.conditioning = Conditioning(config.width, context)
        # Two paths: what is stored may not know the request, what answers it should.
        self.bare_repeat = _repeat(config, feature_count(config.repeat))
        self.told_repeat = _repeat(config, told_feature_count(config.repeat, len(config.context)))
        weighed = config.item if config.category_affinity is Switch.ON else replace(config.item, categories=())
        self.affinity = CategoryAffinity(weighed, content)
        self.pooling = UserPooling(config.width, own=config.repeat_path is Switch.ON)
        # One projection a horizon over a shared trunk and item table: Gloeckle et al., arXiv:2404.19737.
        self.horizons = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.horizons))
        sizes = {facet.name: facet.size for facet in config.facets}
        self.facet_heads = nn.ModuleList(nn.Linear(config.width, sizes[name]) for name, _ in config.targets)
        categories = dict(config.item.categories)
        self.category_heads = nn.ModuleList(
            nn.Linear(config.width, categories[name]) for name in config.category_targets
        )
        self.gap_head = nn.Linear(config.width, config.gap_bins) if config.gap_bins else None
        self.intents = Intents(config) if config.intents else None
        self.attributes = Conditioning(config.width, config.attributes) if config.attributes else None

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """The bare model of a model directory, in eval mode; to save it again take `Pretrained`. Raises ModelError."""
        return cls.of(read(Path(path)))

    @classmethod
    def of(cls, folder: Folder) -> Self:
        """The model that was saved in a folder. Raises ModelError where its weights are of another shape."""
        model = cls(folder.config, item_content(folder.tokenizer.items))
        try:
            model.load_state_dict(folder.weights)
        except RuntimeError as error:
            raise ModelError(
                f"the weights of {folder.space.id} don't fit its config.json: copy the whole folder again"
            ) from error
        return model.eval()

    @property
    def width(self) -> int:
        """Dimensions of a stored vector."""
        return self.config.width + 1

    def forward(self, batch: EventBatch, requests: Requests) -> UserStates:
        """Encode the events and stop at the requests; states read tokens before `end_R` only."""
        read = self._read(batch)
        x_TD = self.trunk(self.events(read, self.tower), stream_of(read))
        return self.states(border_states(x_TD, read, requests, self.empty_D), batch, requests)

    def with_layers(self, batch: EventBatch, requests: Requests) -> tuple[UserStates, tuple[Tensor, ...]]:
        """`forward`, and the border states after each earlier block of the trunk, float [R, D] each, normed alike."""
        read = self._read(batch)
        layers = self.trunk.layers(self.events(read, self.tower), stream_of(read))
        *earlier, last_RD = (border_states(self.trunk.norm(x_TD), read, requests, self.empty_D) for x_TD in layers)
        return self.states(last_RD, batch, requests), tuple(earlier)

    def _read(self, batch: EventBatch) -> EventBatch:
        return batch if self.config.groups is Groups.SET else as_sequence(batch)

    def states(self, border_RD: Tensor, batch: EventBatch, requests: Requests) -> UserStates:
        """What follows from the trunk's states at the borders, float [R, D]: of the batch only what is no state."""
        bare_RD, intents = border_RD, ()
        if self.attributes is not None:
            bare_RD = self.attributes(bare_RD, batch.attribute_BA[requests.user_R])
        if self.intents is not None:
            bare_RD, intents = self.intents(bare_RD)
        told_RD = self.conditioning(bare_RD, requests.context_RC)
        meetings = meet(batch, requests, self._columns, self.config.repeat)
        if self.config.repeat_path is Switch.ON:
            own = own_items(batch, requests, meetings, self._columns, self.config.repeat)
        else:
            own = own_pairs(meetings)
        slow = slow_decay(self.config.repeat)
        count = requests.user_R.shape[0]
        shares = self.affinity.shares(batch, count, meetings, self._columns.item, self.tower.category_VC, slow)
        return UserStates(bare_RD, told_RD, own, shares, intents)

    def user_vectors(self, states: UserStates) -> Tensor:
        """float [R, D + 1]: what is stored and served; the request's context is not in it."""
        item_ND, place_P = self._own_vectors(states.own)
        repeat_P = self.bare_repeat(states.own.feature_PX, states.own.request_P, states.bare_RD, item_ND, place_P)
        own_RD = pooled_own(states.own, repeat_P, states.bare_RD.shape[0], item_ND, place_P)
        pooled_RD = self.pooling(states.bare_RD, own_RD)
        return torch.cat([pooled_RD, torch.ones_like(pooled_RD[:, :1])], dim=1)

    def item_vectors(self, code_N: Tensor | None = None) -> Tensor:
        """float [N, D + 1] of the codes, of the whole vocabulary without them; rows 0 and 1 are not candidates."""
        if code_N is None:
            code_N = torch.arange(self.tower.codes, device=self.empty_D.device)
        return torch.cat([self.tower(code_N), self.tower.popularity(code_N)[:, None]], dim=1)

    def scores(self, states: UserStates, item_VD: Tensor) -> Tensor:
        """float [R, V] logits of the next item for every code, context and repeat path included.

        item_VD: `item_vectors()`, made once for many calls. Reserved codes get −inf.
        """
        own_ND, place_P = self._own_vectors(states.own)
        bonus_P = self.told_repeat(states.own.told_PX, states.own.request_P, states.told_RD, own_ND, place_P)
        told_RD = self.horizons[0](states.told_RD)
        logit_RV: Tensor = told_RD @ item_VD[:, :-1].T + item_VD[:, -1]
        logit_RV = logit_RV + candidate_lifts(self.affinity(states.shares), self.tower.category_VC)
        logit_RV = logit_RV.index_put(
            (states.own.request_P, states.own.code_P), bonus_P.to(logit_RV.dtype), accumulate=True
        )
        logit_RV[:, :FIRST_ITEM] = -torch.inf
        return logit_RV

    def _own_vectors(self, own: OwnItems) -> tuple[Tensor, Tensor]:
        code_N, place_P = torch.unique(own.code_P, return_inverse=True)
        return self.tower(code_N), place_P


def _repeat(config: ModelConfig, features: int) -> RepeatPath | NoRepeat:
    return RepeatPath(config.repeat, config.width, features) if config.repeat_path is Switch.ON else NoRepeat()
