"""The foundation model: completed events in; user embeddings, item vectors and scores out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from foundation.affinity import CategoryAffinity, candidate_lifts, pair_lifts
from foundation.candidates import RERANKED, TargetAttention, UserKeys
from foundation.conditioning import Conditioning
from foundation.config import Groups, ModelConfig, Switch
from foundation.decoder import CodeDecoder
from foundation.embedding import EventEmbedding, ItemContent, ItemTower, item_content
from foundation.errors import ModelError
from foundation.folder import Folder, read
from foundation.intents import Intents
from foundation.item_age import NOTHING_HIDDEN, Hidden
from foundation.jagged import EventBatch, Requests, as_sequence, stream_of
from foundation.pooling import Interests, RecentPooling, UserPooling, border_states, pooled_own
from foundation.repeat import (
    FIRST_ITEM,
    Columns,
    Meetings,
    NoRepeat,
    OwnItems,
    RepeatPath,
    feature_count,
    meet,
    no_items,
    own_items,
    slow_decay,
    told_feature_count,
)
from foundation.transformer import Trunk
from foundation.trie import CodeTrie

_GAP = 1e-3  # between the last that was looked at closely and the first that was not


@dataclass(frozen=True)
class UserStates:
    """What the model knows of R requests.

    bare_RD: without, told_RD: with the request's context; both know the user's attributes. own: the users' earlier
    items, none without the repeat path. shares: of each category in their histories, one float [R, S] for each kind of
    category. keys: what candidates may read of the histories. intents: logits of each, float [R, C].
    """

    bare_RD: Tensor
    told_RD: Tensor
    own: OwnItems
    shares: tuple[Tensor, ...]
    keys: UserKeys
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
        self.recent = RecentPooling(config.width, config.pools) if config.pools else None
        self.interests = Interests(config.width, config.interests) if config.interests else None
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
        self.target_attention = TargetAttention(config) if config.candidates.layers else None
        self.decoder = CodeDecoder(config) if config.decoder.layers else None

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

    @property
    def reach(self) -> int:
        """Last tokens whose states are read: by candidates, or to be averaged. 0 where only the newest group's are."""
        candidates = self.config.candidates.reach if self.target_attention is not None else 0
        return max(candidates, *self.config.pools, 0)

    def forward(self, batch: EventBatch, requests: Requests, hidden: Hidden = NOTHING_HIDDEN) -> UserStates:
        """Encode the events and stop at the requests; states read tokens before `end_R` only. hidden: of a lesson."""
        read = self.read(batch)
        x_TD = self.trunk(self.events(read, self.tower, hidden), stream_of(read))
        border_RD = self.borders(x_TD, read, requests)
        return self.states(border_RD, batch, requests, self.keys(x_TD, read, requests))

    def with_layers(
        self, batch: EventBatch, requests: Requests, hidden: Hidden = NOTHING_HIDDEN
    ) -> tuple[UserStates, tuple[Tensor, ...]]:
        """`forward`, and the border states after each earlier block of the trunk, float [R, D] each, normed alike."""
        read = self.read(batch)
        layers = self.trunk.layers(self.events(read, self.tower, hidden), stream_of(read))
        x_TD = self.trunk.states(layers)
        earlier = tuple(border_states(self.trunk.norm(x_TD), read, requests, self.empty_D) for x_TD in layers[:-1])
        last_RD = self.borders(x_TD, read, requests)
        return self.states(last_RD, batch, requests, self.keys(x_TD, read, requests)), earlier

    def borders(self, x_TD: Tensor, batch: EventBatch, requests: Requests) -> Tensor:
        """float [R, D]: what the trunk's states, float [T, D], say of each request."""
        border_RD = border_states(x_TD, batch, requests, self.empty_D)
        return border_RD if self.recent is None else self.recent(border_RD, x_TD, batch, requests)

    def read(self, batch: EventBatch) -> EventBatch:
        """The batch as the trunk reads it: groups as sets, or taken apart."""
        return batch if self.config.groups is Groups.SET else as_sequence(batch)

    def keys(self, x_TD: Tensor, batch: EventBatch, requests: Requests) -> UserKeys:
        """What candidates may read of the trunk's states, float [T, D]; nothing without target-aware scoring."""
        if self.target_attention is None:
            return UserKeys.none(requests.user_R.shape[0], x_TD.device)
        return self.target_attention.keys(x_TD, batch, requests)

    def states(self, border_RD: Tensor, batch: EventBatch, requests: Requests, keys: UserKeys) -> UserStates:
        """What follows from the trunk's states at the borders, float [R, D], and what candidates may read of it: of the
        batch only what is no state."""
        bare_RD, intents = border_RD, ()
        if self.attributes is not None:
            bare_RD = self.attributes(bare_RD, batch.attribute_BA[requests.user_R])
        if self.intents is not None:
            bare_RD, intents = self.intents(bare_RD)
        told_RD = self.conditioning(bare_RD, requests.context_RC)
        own, shares = self._history(batch, requests)
        return UserStates(bare_RD, told_RD, own, shares, keys, intents)

    def meetings(self, batch: EventBatch, requests: Requests) -> Meetings:
        """Every pair of a request and an earlier token of its user."""
        return meet(batch, requests, self._columns, self.config.repeat)

    def _history(self, batch: EventBatch, requests: Requests) -> tuple[OwnItems, tuple[Tensor, ...]]:
        """The users' earlier items, and the shares of each category in their histories: what is no state."""
        repeats = self.config.repeat_path is Switch.ON
        if not repeats and not self.affinity.sizes:
            return no_items(requests.user_R), ()
        meetings, count = self.meetings(batch, requests), requests.user_R.shape[0]
        slow, item = slow_decay(self.config.repeat), self._columns.item
        shares = self.affinity.shares(batch, count, meetings, item, self.tower.category_VC, slow)
        if not repeats:
            return no_items(requests.user_R), shares
        return own_items(batch, requests, meetings, self._columns, self.config.repeat), shares

    def returns(self, states: UserStates) -> Tensor:
        """float [P]: how likely each own item returns, as a logit; the request's context is not in it."""
        item_ND, place_P = self._own_vectors(states.own)
        bonus_P: Tensor = self.bare_repeat(
            states.own.feature_PX, states.own.request_P, states.bare_RD, item_ND, place_P
        )
        return bonus_P

    def trie(self) -> CodeTrie:
        """The semantic IDs of all items, as generation follows them. Raises ModelError where there are none."""
        log_recent_V = self.tower.log_recent(torch.arange(self.tower.codes, device=self.empty_D.device))
        return CodeTrie.of(self.tower.semantic_VL, log_recent_V, FIRST_ITEM, self.config.item.semantic_ids)

    def user_vectors(self, states: UserStates) -> Tensor:
        """float [R, D + 1]: what is stored and served; the request's context is not in it."""
        item_ND, place_P = self._own_vectors(states.own)
        repeat_P = self.bare_repeat(states.own.feature_PX, states.own.request_P, states.bare_RD, item_ND, place_P)
        own_RD = pooled_own(states.own, repeat_P, states.bare_RD.shape[0], item_ND, place_P, self.pooling.rest)
        pooled_RD = self.pooling(states.bare_RD, own_RD)
        return torch.cat([pooled_RD, torch.ones_like(pooled_RD[:, :1])], dim=1)

    def interest_vectors(self, states: UserStates) -> Tensor:
        """float [R, I, D + 1]: a vector of each interest, to be used as stored vectors are; an item's best product with
        them is its score. Raises ModelError where the model has none."""
        if self.interests is None:
            raise ModelError("this model has one vector a user: train one with `--set interests=4`")
        user_RD = self.user_vectors(states)
        found_RID = self.interests(states.bare_RD, user_RD[:, :-1])
        return torch.cat([found_RID, torch.ones_like(found_RID[:, :, :1])], dim=2)

    def item_vectors(self, code_N: Tensor | None = None, at: float | None = None) -> Tensor:
        """float [N, D + 1] of the codes, of the whole vocabulary without them; rows 0 and 1 are not candidates.

        at: epoch seconds of which the vectors are, where they age; None: the end of what was learned, the space's
        `as_of`.
        """
        if code_N is None:
            code_N = torch.arange(self.tower.codes, device=self.empty_D.device)
        return torch.cat([self.tower(code_N, at=at), self.tower.popularity(code_N, at)[:, None]], dim=1)

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

    def scores_of(self, states: UserStates, code_RN: Tensor) -> Tensor:
        """float [R, N] target-aware logits of the candidates of each request, int64 codes; reserved codes get −inf.

        A candidate's score is its own: it depends on no other that is asked about. Raises ModelError where the model
        has no target-aware scoring.
        """
        code_N, place_RN = torch.unique(code_RN, return_inverse=True)
        item_ND = self.item_vectors(code_N)
        plain_RN = self._plain_of(states, code_RN, item_ND, place_RN)
        score_RN = plain_RN + self._target_bonus(states, item_ND, place_RN)
        return score_RN.masked_fill(code_RN < FIRST_ITEM, -torch.inf)

    def reranked(self, states: UserStates, item_VD: Tensor, top: int = RERANKED) -> Tensor:
        """float [R, V]: `scores`, in which the best `top` of each request have their target-aware scores.

        All others keep their order, behind these: they were not looked at. Where the model has no target-aware
        scoring, `scores` as they are.
        """
        plain_RV = self.scores(states, item_VD)
        if self.target_attention is None:
            return plain_RV
        best_RN, code_RN = plain_RV.topk(min(top, plain_RV.shape[1] - FIRST_ITEM), dim=1)
        score_RN = best_RN + self._target_bonus(states, item_VD, code_RN)
        rest_RV = plain_RV.scatter(1, code_RN, -torch.inf)
        over_R1 = rest_RV.amax(1, keepdim=True) - score_RN.amin(1, keepdim=True) + _GAP
        return (rest_RV - torch.clamp(over_R1, min=0.0)).scatter(1, code_RN, score_RN)

    def _plain_of(self, states: UserStates, code_RN: Tensor, item_ND: Tensor, place_RN: Tensor) -> Tensor:
        """float [R, N]: `scores` of these candidates alone."""
        own = states.own
        told_RN = self.horizons[0](states.told_RD) @ item_ND[:, :-1].T + item_ND[:, -1]
        logit_RN: Tensor = told_RN.gather(1, place_RN)
        row_RN = torch.arange(len(code_RN), device=code_RN.device)[:, None].expand(code_RN.shape)
        logit_RN = logit_RN + pair_lifts(self.affinity(states.shares), row_RN, self.tower.category_VC[code_RN])
        own_ND, place_P = self._own_vectors(own)
        bonus_P = self.told_repeat(own.told_PX, own.request_P, states.told_RD, own_ND, place_P)
        # Pairs ascend by request, then code; what no pair is equal to has nothing of this path.
        pair_P, wanted_RN = own.request_P * self.tower.codes + own.code_P, row_RN * self.tower.codes + code_RN
        found_RN = torch.searchsorted(pair_P, wanted_RN)
        hit_RN = torch.cat([pair_P, pair_P.new_full((1,), -1)])[found_RN] == wanted_RN
        return logit_RN + hit_RN * torch.cat([bonus_P, bonus_P.new_zeros(1)])[found_RN]

    def _target_bonus(self, states: UserStates, item_ND: Tensor, place_RN: Tensor) -> Tensor:
        if self.target_attention is None:
            raise ModelError("this model scores no candidate for itself: train one with `--set candidates.layers=1`")
        bonus_RN: Tensor = self.target_attention(states.keys, states.told_RD, item_ND[:, :-1], place_RN)
        return bonus_RN

    def _own_vectors(self, own: OwnItems) -> tuple[Tensor, Tensor]:
        code_N, place_P = torch.unique(own.code_P, return_inverse=True)
        return self.tower(code_N), place_P


def _repeat(config: ModelConfig, features: int) -> RepeatPath | NoRepeat:
    return RepeatPath(config.repeat, config.width, features) if config.repeat_path is Switch.ON else NoRepeat()
