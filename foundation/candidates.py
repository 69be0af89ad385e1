"""Target-aware scoring: each candidate reads the user's states for itself.

A dot product says of every item how well it fits one summary of the user. Here a candidate asks the states of the
user's last tokens what they say about *it* (target attention: Zhou et al., DIN, arXiv:1706.06978; Xia et al.,
TransAct, arXiv:2306.00248), and what it hears is added to the score that the dot product and the repeat path give.

**Candidates are isolated.** They attend to the user and never to each other, so a score does not depend on which
candidates stand beside it, may be cached, and may be computed in any batch of any size. M-FALCON (Zhai et al., HSTU,
arXiv:2402.17152, section 3.4) masks candidates from each other so that thousands share one pass over the user;
Pinterest's DCAT (PinFM, arXiv:2507.12704) splits the user's pass from the crossing of candidates, once a user instead
of once a pair; xAI's Phoenix (github.com/xai-org/x-algorithm) calls the mask candidate isolation. Here the split is in
the types: `UserKeys` are made once from the states of the trunk, whatever is asked of them later, and a candidate is a
row of one batched product [R, N, L] against them.

Shapes beside those of jagged.py: L places that a candidate may look at, the last of which is nobody; N candidates of a
request.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.config import ModelConfig
from foundation.jagged import EventBatch, Requests, recent_groups

RERANKED = 500  # candidates of a request that are looked at closely
_WEIGHTS_AT_ONCE = 1 << 22  # attention weights in memory at a time, where no gradient is wanted


@dataclass(frozen=True)
class UserKeys:
    """What candidates read of R requests' users; made once, before anybody knows the candidates.

    key_RHLK, value_RHLK: float, one of each layer; empty where the model scores by dot product alone.
    age_RL: float32 log(1 + time units from the token to the request). seen_RL: bool, whether there is such a token.
    """

    key_RHLK: tuple[Tensor, ...]
    value_RHLK: tuple[Tensor, ...]
    age_RL: Tensor
    seen_RL: Tensor

    @classmethod
    def none(cls, requests: int, device: torch.device) -> UserKeys:
        """Of a model without target-aware scoring."""
        return cls((), (), torch.zeros(requests, 0, device=device), torch.zeros(requests, 0).bool().to(device))

    def picked(self, row_S: Tensor) -> UserKeys:
        """Those of some requests."""
        return UserKeys(
            tuple(key_RHLK[row_S] for key_RHLK in self.key_RHLK),
            tuple(value_RHLK[row_S] for value_RHLK in self.value_RHLK),
            self.age_RL[row_S],
            self.seen_RL[row_S],
        )


class CandidateBlock(nn.Module):
    """Pre-norm attention of candidates to a user's keys, and a feed-forward of twice the width.

    A last place holds nobody, so a candidate that finds nothing of itself in a history hears nothing (a softmax
    alone would share one whole weight among strangers), and a user without a history needs no case of its own. Each
    head forgets at its own rate: −decay × log(1 + age) is added to its logits, a power law in time (as the temporal
    bias of HSTU; Press et al., ALiBi, arXiv:2108.12409, has the same in positions).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.nobody_2HK = nn.Parameter(torch.zeros(2, heads, width // heads))
        self.decay_H = nn.Parameter(torch.linspace(0.0, 1.0, heads))
        self.query_norm = nn.LayerNorm(width, bias=False)
        self.query = nn.Linear(width, width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.feed_norm = nn.LayerNorm(width, bias=False)
        self.feed_in = nn.Linear(width, 2 * width, bias=False)
        self.feed_out = nn.Linear(2 * width, width, bias=False)

    def keys(self, state_TD: Tensor, token_RL: Tensor) -> tuple[Tensor, Tensor]:
        """float [R, H, L + 1, K] keys and values of the tokens, and of nobody."""
        both_T2HK = self.key_value(state_TD).unflatten(1, (2, self.heads, -1))
        both_RL2HK = both_T2HK[token_RL]
        nobody_R12HK = self.nobody_2HK.expand(len(token_RL), 1, -1, -1, -1)
        key_RLHK, value_RLHK = torch.cat([both_RL2HK, nobody_R12HK], dim=1).unbind(2)
        return key_RLHK.transpose(1, 2), value_RLHK.transpose(1, 2)

    def forward(self, x_RND: Tensor, key_RHLK: Tensor, value_RHLK: Tensor, keys: UserKeys) -> Tensor:
        """float [R, N, D] → float [R, N, D]; no candidate reads another's row."""
        head_width = x_RND.shape[2] // self.heads
        q_RHNK = self.query(self.query_norm(x_RND)).unflatten(2, (self.heads, head_width)).transpose(1, 2)
        bias_RHL = -self.decay_H[:, None] * keys.age_RL[:, None]
        bias_RHL = bias_RHL.masked_fill(~keys.seen_RL[:, None], -torch.inf)
        logit_RHNL = q_RHNK @ key_RHLK.transpose(2, 3) / q_RHNK.shape[-1] ** 0.5 + bias_RHL[:, :, None]
        heard_RHNK = torch.softmax(logit_RHNL, dim=-1) @ value_RHLK
        x_RND = x_RND + self.attention_out(heard_RHNK.transpose(1, 2).flatten(2))
        feed_RND: Tensor = self.feed_out(F.relu(self.feed_in(self.feed_norm(x_RND))).square())
        return x_RND + feed_RND


class TargetAttention(nn.Module):
    """What a candidate's own look at the history adds to its score; 0 before training."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.reach, self.heads = config.candidates.reach, config.candidates.heads
        self.time_unit = config.repeat.time_unit
        self.item = nn.Linear(width, width, bias=False)
        self.state = nn.Linear(width, width, bias=False)
        self.blocks = nn.ModuleList(
            CandidateBlock(width, config.candidates.heads) for _ in range(config.candidates.layers)
        )
        self.norm = nn.LayerNorm(width, bias=False)
        self.out = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def keys(self, state_TD: Tensor, batch: EventBatch, requests: Requests) -> UserKeys:
        """Keys and values of each request's last tokens; state_TD: what the trunk says of the batch."""
        token_RL, seen_RL = last_tokens(batch, requests, self.reach)
        if not batch.tokens:
            state_TD, token_RL = state_TD.new_zeros(1, state_TD.shape[1]), token_RL * 0
            time_RL = requests.time_R[:, None].expand(token_RL.shape)
        else:
            time_RL = batch.time_T[token_RL]
        age_RL = torch.clamp((requests.time_R[:, None] - time_RL) / self.time_unit, min=0.0).float()
        both = [block.keys(state_TD, token_RL) for block in self.blocks]  # type: ignore[operator]
        return UserKeys(
            tuple(key for key, _ in both),
            tuple(value for _, value in both),
            F.pad(torch.log1p(age_RL), (0, 1)),
            F.pad(seen_RL, (0, 1), value=True),
        )

    def forward(self, keys: UserKeys, told_RD: Tensor, item_ND: Tensor, place_RN: Tensor) -> Tensor:
        """float [R, N]: what is added to each candidate's score.

        told_RD: states that know the request's context. item_ND: vectors of the distinct items in play; place_RN:
        each candidate's row among them.
        """
        told_RD, item_ND = self.state(told_RD), self.item(item_ND)
        if torch.is_grad_enabled():
            return self._bonus(keys, told_RD, item_ND, place_RN)
        at_once = max(1, _WEIGHTS_AT_ONCE // max(1, keys.age_RL.numel() * self.heads))
        chunks = torch.split(place_RN, at_once, dim=1)
        return torch.cat([self._bonus(keys, told_RD, item_ND, chunk) for chunk in chunks], dim=1)

    def _bonus(self, keys: UserKeys, told_RD: Tensor, item_ND: Tensor, place_RN: Tensor) -> Tensor:
        rows, candidates = place_RN.shape
        x_RND = item_ND.index_select(0, place_RN.flatten()).view(rows, candidates, item_ND.shape[1]) + told_RD[:, None]
        for block, key_RHLK, value_RHLK in zip(self.blocks, keys.key_RHLK, keys.value_RHLK, strict=True):
            x_RND = block(x_RND, key_RHLK, value_RHLK, keys)
        bonus_RN1: Tensor = self.out(self.norm(x_RND))
        return bonus_RN1.squeeze(2)


def last_tokens(batch: EventBatch, requests: Requests, reach: int) -> tuple[Tensor, Tensor]:
    """int64 [R, L] packed tokens that a request's candidates may read, and bool [R, L], which of them there are.

    The last `reach` before `end_R`, moved inward to whole groups; only a newest group that is longer is cut.
    """
    begin_R, first_R = recent_groups(batch, requests, reach), batch.offset_B1[:-1][requests.user_R]
    begin_R = torch.where(begin_R < requests.end_R, begin_R, torch.maximum(requests.end_R - reach, first_R))
    length_R = requests.end_R - begin_R
    step_L = torch.arange(int(length_R.max()) if len(length_R) else 0, device=length_R.device)
    seen_RL = step_L < length_R[:, None]
    return torch.where(seen_RL, begin_R[:, None] + step_L, 0), seen_RL
