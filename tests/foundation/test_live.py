from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foundation.config import AttentionConfig, CandidateConfig, Groups, ModelConfig
from foundation.embedding import item_content
from foundation.errors import ModelError
from foundation.jagged import EventBatch, requests_now
from foundation.live import empty_user_cache, states_onto
from foundation.model import FoundationModel
from tests.foundation.conftest import Shake
from tokenization.corpus.corpus import Corpus

ATTENTION = AttentionConfig((12, 5), sinks=3, memory=2, memory_block=6, memory_reach=2)
VARIANTS = {
    "plain": {},
    "memory": {"attention": ATTENTION},
    "everything": {"attention": AttentionConfig((0,))},
    "candidates": {"attention": ATTENTION, "candidates": CandidateConfig(layers=2, reach=7)},
    "sequence": {"groups": Groups.SEQUENCE},
    "pools": {"pools": (3, 9), "state_layers": (0, 1)},
    "pools and candidates": {"attention": ATTENTION, "pools": (5,), "candidates": CandidateConfig(reach=9, layers=1)},
}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, config: ModelConfig, kiosk_corpus: Corpus, shake: Shake) -> FoundationModel:
    torch.manual_seed(0)
    items = kiosk_corpus.tokenizer.items
    content = item_content(items, torch.from_numpy(items.count).float())
    model = shake(FoundationModel(replace(config, **VARIANTS[request.param]), content))
    assert isinstance(model, FoundationModel)
    return model.eval()


def until(batch: EventBatch, groups: int) -> EventBatch:
    """Each life up to so many groups more than its user's number: so some stand still while others go on."""
    keep_T = batch.group_T < groups + batch.user_T % 3
    length_B = torch.bincount(batch.user_T[keep_T], minlength=batch.users)
    offset_B1 = torch.cat([length_B.new_zeros(1), length_B.cumsum(0)])
    return batch.picked(keep_T, offset_B1, torch.arange(batch.users))


def test_every_score_and_vector_is_that_of_the_whole_life(variant: FoundationModel, batch: EventBatch) -> None:
    cache = empty_user_cache(variant, batch.users)
    for groups in (0, 1, 4, 5, 12, 1_000):
        now = until(batch, groups)
        requests = requests_now(now, None, torch.zeros(now.users, len(variant.config.context), dtype=torch.int64))
        with torch.no_grad():
            whole = variant(now, requests)
            states, cache = states_onto(variant, cache, now, requests)
            item_VD = variant.item_vectors()
            for one, other in (
                (variant.user_vectors(states), variant.user_vectors(whole)),
                (variant.scores(states, item_VD), variant.scores(whole, item_VD)),
                (variant.reranked(states, item_VD, 9), variant.reranked(whole, item_VD, 9)),
            ):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        last = [int(of.max()) if len(of) else -1 for of in now.group_T.split(now.offset_B1.diff().tolist())]
        closed = (now.group_T < torch.tensor(last)[now.user_T]) if variant.config.groups is Groups.SET else None
        if closed is not None:
            assert torch.equal(cache.trunk.closed_B, torch.bincount(now.user_T[closed], minlength=now.users))


def test_what_a_cache_can_not_answer_is_refused(model: FoundationModel, batch: EventBatch) -> None:
    context = torch.zeros(batch.users, len(model.config.context), dtype=torch.int64)
    requests = requests_now(batch, None, context)
    _, cache = states_onto(model, empty_user_cache(model, batch.users), batch, requests)
    shorter = until(batch, 3)
    with pytest.raises(ModelError, match="a life is shorter than what is cached of it"):
        states_onto(model, cache, shorter, requests_now(shorter, None, context))
    with pytest.raises(ModelError, match="a cache answers for now"):
        states_onto(model, cache, batch, replace(requests, end_R=requests.end_R - 1))
