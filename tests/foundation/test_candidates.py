"""Target-aware scoring: what a candidate reads, and that it reads no other candidate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foundation.candidates import TargetAttention, UserKeys, last_tokens
from foundation.config import CandidateConfig, ModelConfig
from foundation.embedding import ItemContent, item_content
from foundation.errors import ModelError
from foundation.jagged import EventBatch, Requests, requests_now
from foundation.learning import losses
from foundation.lesson import Lesson, Loss, Objectives
from foundation.model import FoundationModel, UserStates
from foundation.objectives.targets import Negatives, Targets
from foundation.repeat import FIRST_ITEM
from tokenization.corpus.corpus import Corpus

# A candidate's row of a product may be added up in another order in another company.
TIGHT = {"rtol": 1e-5, "atol": 1e-5}
SETTINGS = [CandidateConfig(1, 2, 12), CandidateConfig(2, 4, 5)]


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda told: f"layers={told.layers}")
def aware(request, config: ModelConfig, kiosk_corpus: Corpus, shake) -> FoundationModel:
    torch.manual_seed(0)
    content = item_content(kiosk_corpus.tokenizer.items, torch.from_numpy(kiosk_corpus.tokenizer.items.count).float())
    model = shake(FoundationModel(replace(config, candidates=request.param), content)).eval()
    assert model.target_attention is not None
    with torch.no_grad():
        for weight in model.target_attention.parameters():
            weight *= 3.0  # loud enough to be heard in every test
    return model


@pytest.fixture(scope="module")
def some(asked: Requests) -> Requests:
    rows = torch.arange(0, len(asked), 9)
    return Requests(asked.user_R[rows], asked.end_R[rows], asked.time_R[rows], asked.context_RC[rows])


@pytest.fixture(scope="module")
def states(aware: FoundationModel, batch: EventBatch, some: Requests) -> UserStates:
    with torch.no_grad():
        return aware(batch, some)


def codes_of(model: FoundationModel, requests: int, candidates: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(FIRST_ITEM, model.tower.codes, (requests, candidates), generator=draw)


@given(seed=st.integers(0, 2**31), data=st.data())
def test_a_score_does_not_depend_on_who_stands_beside(
    aware: FoundationModel, states: UserStates, some: Requests, seed: int, data: st.DataObject
) -> None:
    """Permuted, dropped, joined by others, asked about twice: each candidate keeps its score."""
    code_RN = codes_of(aware, len(some), 12, seed)
    order = torch.tensor(data.draw(st.permutations(range(12))))
    kept = order[: data.draw(st.integers(1, 12))]
    others_RM = codes_of(aware, len(some), data.draw(st.integers(0, 40)), seed + 1)
    with torch.no_grad():
        score_RN = aware.scores_of(states, code_RN)
        company_RN = torch.cat([others_RM, code_RN[:, kept], code_RN[:, kept]], dim=1)
        again_RN = aware.scores_of(states, company_RN)[:, others_RM.shape[1] :]
    torch.testing.assert_close(again_RN, torch.cat([score_RN[:, kept]] * 2, dim=1), **TIGHT)


def test_no_gradient_runs_from_one_candidates_score_to_another_candidate(
    aware: FoundationModel, states: UserStates, some: Requests
) -> None:
    assert aware.target_attention is not None
    item_ND = torch.randn(6, aware.config.width, requires_grad=True)
    place_RN = torch.arange(6).expand(len(some), -1)
    bonus_RN = aware.target_attention(states.keys, states.told_RD, item_ND, place_RN)
    for one in range(6):
        (gradient_ND,) = torch.autograd.grad(bonus_RN[:, one].sum(), item_ND, retain_graph=True)
        touched = gradient_ND.abs().amax(1) > 0
        assert touched.tolist() == [other == one for other in range(6)]


def test_many_candidates_are_scored_in_pieces_that_change_nothing(
    aware: FoundationModel, states: UserStates, some: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    code_RN = codes_of(aware, len(some), 50, 3)
    with torch.no_grad():
        whole = aware.scores_of(states, code_RN)
        monkeypatch.setattr("foundation.candidates._WEIGHTS_AT_ONCE", 1)
        torch.testing.assert_close(aware.scores_of(states, code_RN), whole, **TIGHT)


def test_attention_equals_a_loop_over_requests_candidates_and_heads(
    aware: FoundationModel, batch: EventBatch, some: Requests, states: UserStates
) -> None:
    """The first layer, written out: softmax over the tokens and nobody, with a decay of each head's own."""
    assert aware.target_attention is not None
    block, keys = aware.target_attention.blocks[0], states.keys
    x_RND = torch.randn(len(some), 3, aware.config.width, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found_RND = block(x_RND, keys.key_RHLK[0], keys.value_RHLK[0], keys)
        token_RL, seen_RL = last_tokens(batch, some, aware.config.candidates.reach)
        for row in range(0, len(some), 40):
            length = int(seen_RL[row].sum())
            age_L = (some.time_R[row] - batch.time_T[token_RL[row, :length]]).float() / aware.config.repeat.time_unit
            for candidate in range(3):
                query_HK = block.query(block.query_norm(x_RND[row, candidate])).view(block.heads, -1)
                heard = []
                for head in range(block.heads):
                    key_LK = keys.key_RHLK[0][row, head]
                    logit_L = key_LK @ query_HK[head] / query_HK.shape[1] ** 0.5
                    logit_L[:length] -= block.decay_H[head] * torch.log1p(age_L)
                    weight_L = torch.softmax(torch.cat([logit_L[:length], logit_L[-1:]]), dim=0)
                    value_LK = keys.value_RHLK[0][row, head]
                    heard.append(weight_L @ torch.cat([value_LK[:length], value_LK[-1:]]))
                x_D = x_RND[row, candidate] + block.attention_out(torch.cat(heard))
                x_D = x_D + block.feed_out(torch.relu(block.feed_in(block.feed_norm(x_D))).square())
                torch.testing.assert_close(found_RND[row, candidate], x_D, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reach", [1, 3, 12, 10_000])
def test_candidates_read_the_last_whole_groups_before_the_request(
    batch: EventBatch, asked: Requests, reach: int
) -> None:
    token_RL, seen_RL = last_tokens(batch, asked, reach)
    for row in range(0, len(asked), 7):
        first, end = int(batch.offset_B1[asked.user_R[row]]), int(asked.end_R[row])
        begin = end
        while begin > first:  # the next group further back, if all of it fits
            group = int(batch.group_T[begin - 1])
            start = begin
            while start > first and int(batch.group_T[start - 1]) == group:
                start -= 1
            if end - start > reach:
                break
            begin = start
        if begin == end:  # the newest group alone is longer than all that may be read
            begin = max(end - reach, first)
        assert token_RL[row, seen_RL[row]].tolist() == list(range(begin, end))


def test_scores_of_all_candidates_are_the_plain_scores_plus_each_ones_own_look(
    aware: FoundationModel, states: UserStates, some: Requests
) -> None:
    every_RV = torch.arange(aware.tower.codes).expand(len(some), -1)
    with torch.no_grad():
        item_VD = aware.item_vectors()
        plain_RV = aware.scores(states, item_VD)
        full_RV = aware.scores_of(states, every_RV)
        assert aware.target_attention is not None
        bonus_RV = aware.target_attention(states.keys, states.told_RD, item_VD[:, :-1], every_RV)
    assert (full_RV[:, :FIRST_ITEM] == -torch.inf).all()
    wanted = slice(FIRST_ITEM, None)
    torch.testing.assert_close(full_RV[:, wanted], (plain_RV + bonus_RV)[:, wanted], rtol=1e-4, atol=1e-4)
    assert bonus_RV[:, wanted].std(1).min() > 1e-2  # it tells candidates of one user apart


def test_only_the_best_are_reranked_and_the_others_follow_in_their_order(
    aware: FoundationModel, states: UserStates, some: Requests
) -> None:
    with torch.no_grad():
        item_VD = aware.item_vectors()
        plain_RV, new_RV = aware.scores(states, item_VD), aware.reranked(states, item_VD, top=8)
        best_R8 = plain_RV.topk(8, dim=1).indices
        torch.testing.assert_close(new_RV.gather(1, best_R8), aware.scores_of(states, best_R8), rtol=1e-4, atol=1e-4)
    before, after = (score.argsort(dim=1, descending=True, stable=True) for score in (plain_RV, new_RV))
    assert torch.equal(before[:, 8:-FIRST_ITEM], after[:, 8:-FIRST_ITEM])
    assert torch.equal(before[:, :8].sort(1).values, after[:, :8].sort(1).values)
    assert not torch.equal(before[:, :8], after[:, :8])
    assert (new_RV[:, :FIRST_ITEM] == -torch.inf).all()
    whole_RV = aware.reranked(states, item_VD, top=10_000)
    every_RV = torch.arange(aware.tower.codes).expand(len(some), -1)
    torch.testing.assert_close(whole_RV, aware.scores_of(states, every_RV), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_of_the_target_group_or_later_is_read(
    aware: FoundationModel, batch: EventBatch, some: Requests, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.tensor(sorted({int(some.user_R[row]): row for row in range(len(some))}.values()))
    requests = Requests(some.user_R[rows], some.end_R[rows], some.time_R[rows], some.context_RC[rows])
    end_B = batch.offset_B1[1:].clone()
    end_B[requests.user_R] = requests.end_R
    hidden_T1 = (torch.arange(batch.tokens) >= end_B[batch.user_T])[:, None]
    noise_TF = (torch.rand(batch.facet_TF.shape, generator=draw) * (batch.facet_TF.max(0).values + 1)).long()
    code_RN = codes_of(aware, len(requests), 20, seed)
    with torch.no_grad():
        score_RN = aware.scores_of(aware(batch, requests), code_RN)
        target = replace(
            batch,
            facet_TF=torch.where(hidden_T1, noise_TF, batch.facet_TF),
            time_T=batch.time_T + hidden_T1[:, 0] * 1e6,
        )
        torch.testing.assert_close(aware.scores_of(aware(target, requests), code_RN), score_RN, **TIGHT)
        history = replace(batch, facet_TF=torch.where(hidden_T1, batch.facet_TF, noise_TF))
        assert not torch.allclose(aware.scores_of(aware(history, requests), code_RN), score_RN, atol=0.1)


def test_what_is_cached_of_a_user_knows_no_context_and_no_candidate(
    aware: FoundationModel, batch: EventBatch, some: Requests, states: UserStates
) -> None:
    with torch.no_grad():
        untold = aware(batch, replace(some, context_RC=some.context_RC * 0))
    for one, other in zip(
        (*states.keys.key_RHLK, *states.keys.value_RHLK, states.keys.age_RL),
        (*untold.keys.key_RHLK, *untold.keys.value_RHLK, untold.keys.age_RL),
        strict=True,
    ):
        assert torch.equal(one, other)
    code_RN = codes_of(aware, len(some), 9, 0)
    with torch.no_grad():
        bonuses = [aware.scores_of(one, code_RN) for one in (states, replace(states, keys=untold.keys))]
    assert torch.equal(*bonuses)


def test_the_same_history_a_year_later_scores_otherwise(aware: FoundationModel, batch: EventBatch) -> None:
    """Age is read from the request, so that what is kept of a user stays good."""
    untold = torch.zeros(batch.users, len(aware.config.context), dtype=torch.int64)
    now = requests_now(batch, None, untold)
    later = replace(now, time_R=now.time_R + 365 * 86_400.0)
    with torch.no_grad():
        one, other = aware(batch, now), aware(batch, later)
        assert torch.equal(one.keys.key_RHLK[0], other.keys.key_RHLK[0])
        code_RN = codes_of(aware, len(now), 9, 0)
        mixed = replace(one, keys=other.keys)
        assert not torch.allclose(aware.scores_of(one, code_RN), aware.scores_of(mixed, code_RN), atol=1e-3)


def test_a_user_without_an_event_has_scores(aware: FoundationModel, batch: EventBatch) -> None:
    none = batch.picked(torch.arange(0), torch.zeros(2, dtype=torch.int64), torch.tensor([0]))
    untold = torch.zeros(1, len(aware.config.context), dtype=torch.int64)
    with torch.no_grad():
        states = aware(none, requests_now(none, None, untold))
        assert torch.isfinite(aware.scores_of(states, codes_of(aware, 1, 9, 0))).all()
        assert torch.isfinite(aware.reranked(states, aware.item_vectors(), 5)[:, FIRST_ITEM:]).all()


def test_before_training_a_candidates_own_look_adds_nothing(
    config: ModelConfig, model: FoundationModel, batch: EventBatch, some: Requests
) -> None:
    tower = model.tower
    content = ItemContent(
        tower.category_VC, tower.text_UX, tower.text_row_V, torch.ones(tower.codes), tower.media_VM, tower.semantic_VL
    )
    torch.manual_seed(0)
    plain = FoundationModel(config, content)
    torch.manual_seed(0)
    fresh = FoundationModel(replace(config, candidates=SETTINGS[0]), content)
    added = set(fresh.state_dict()) - set(plain.state_dict())
    assert added
    assert all(name.startswith("target_attention.") for name in added)
    for name, weight in plain.state_dict().items():  # what is off draws nothing
        assert torch.equal(weight, fresh.state_dict()[name]), name
    with torch.no_grad():
        item_VD = fresh.item_vectors()
        states = fresh(batch, some)
        torch.testing.assert_close(fresh.reranked(states, item_VD, 10_000), fresh.scores(states, item_VD))


def test_a_model_without_it_says_how_to_get_it(model: FoundationModel, batch: EventBatch, some: Requests) -> None:
    with torch.no_grad():
        states = model(batch, some)
        assert states.keys.key_RHLK == ()
        item_VD = model.item_vectors()
        assert torch.equal(model.reranked(states, item_VD), model.scores(states, item_VD))
        with pytest.raises(ModelError, match=r"train one with `--set candidates\.layers=1`"):
            model.scores_of(states, codes_of(model, len(some), 3, 0))
    assert isinstance(states.keys, UserKeys)


def test_it_learns_whether_a_candidate_is_in_the_history(config: ModelConfig) -> None:
    """Planted: of eight candidates one was met, among twenty others; its place, and what it is, say nothing."""
    torch.manual_seed(0)
    attention = TargetAttention(replace(config, candidates=CandidateConfig(1, 2, 20)))
    item_ND = torch.randn(200, config.width)
    optimiser = torch.optim.AdamW(attention.parameters(), lr=1e-2)
    for step in range(151):
        order_RN = torch.rand(64, 200).argsort(dim=1)
        met_RL, place_RN = order_RN[:, :20], order_RN[:, 19:27]  # the first candidate is the last that was met
        state_TD = item_ND[met_RL].flatten(0, 1)
        token_RL = torch.arange(64 * 20).view(64, 20)
        both = [block.keys(state_TD, token_RL) for block in attention.blocks]  # type: ignore[operator]
        seen_RL = torch.ones(64, 21, dtype=torch.bool)
        keys = UserKeys(tuple(k for k, _ in both), tuple(v for _, v in both), torch.zeros(64, 21), seen_RL)
        bonus_RN = attention(keys, torch.zeros(64, config.width), item_ND, place_RN)
        if step < 150:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(bonus_RN, torch.zeros(64, dtype=torch.int64)).backward()
            optimiser.step()
    assert (bonus_RN.argmax(1) == 0).float().mean() > 0.6  # by chance 0.125


@pytest.fixture(scope="module")
def lesson(config: ModelConfig, batch: EventBatch, some: Requests) -> Lesson:
    """Targets by a loop; every item is a negative that is drawn exactly once."""
    rows, tokens = [], []
    for row in range(len(some)):
        end = int(some.end_R[row])
        last = int(batch.offset_B1[some.user_R[row] + 1])
        group = [token for token in range(end, last) if batch.group_T[token] == batch.group_T[end]]
        rows += [row] * len(group)
        tokens += group
    names = [facet.name for facet in config.facets]
    facets = batch.facet_TF[tokens][:, [names.index(name) for name, _ in config.targets]]
    weight = 0.5 + torch.rand(len(rows), generator=torch.Generator().manual_seed(0))
    target = Targets(
        torch.tensor(rows), batch.facet_TF[tokens, config.item_column], facets, weight, torch.ones(len(rows))
    )
    codes = torch.arange(FIRST_ITEM, config.item.codes)
    return Lesson(batch, some, (target,) * config.horizons, Negatives(codes, torch.zeros(len(codes))))


def loss_of(model: FoundationModel, lesson: Lesson, competitors: int, slates: float = 1.0) -> Loss:
    found = losses(model, lesson, Objectives(target_aware=0.7, competitors=competitors, slates=slates))
    return next(loss for loss in found if loss.name == "target_aware")


def test_over_all_items_the_loss_is_the_cross_entropy_of_the_target_aware_scores(
    aware: FoundationModel, lesson: Lesson, some: Requests
) -> None:
    target = lesson.targets[0]
    every_RV = torch.arange(aware.tower.codes).expand(len(some), -1)
    with torch.no_grad():
        score_RV = aware.scores_of(aware(lesson.batch, some), every_RV)
        log_share_RV = torch.log_softmax(score_RV[:, FIRST_ITEM:], dim=1)
        known = target.item_E >= FIRST_ITEM
        loss_E = -log_share_RV[target.request_E[known], target.item_E[known] - FIRST_ITEM]
        weight_E = target.weight_E[known]
        found = loss_of(aware, lesson, 10_000)
    assert found.share == 0.7
    torch.testing.assert_close(found.weight, weight_E.sum(), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(found.total, (loss_E * weight_E).sum(), rtol=1e-4, atol=1e-3)


def test_gradients_reach_the_trunk_and_the_items_and_not_the_plain_scores_own_weights(
    aware: FoundationModel, lesson: Lesson
) -> None:
    aware.zero_grad()
    found = loss_of(aware, lesson, 10)
    (found.total / found.weight).backward()
    moved = {
        name.split(".")[0]
        for name, weight in aware.named_parameters()
        if weight.grad is not None and weight.grad.to_dense().any()
    }
    silent = {
        name
        for name, weight in aware.named_parameters()
        if name.startswith("target_attention.") and (weight.grad is None or not weight.grad.any())
    }
    aware.zero_grad()
    assert moved == {"tower", "events", "trunk", "conditioning", "target_attention"}
    assert silent == set()


def test_each_request_draws_its_slate_as_if_it_were_alone(aware: FoundationModel, lesson: Lesson) -> None:
    """So that a lesson may be divided among ranks, and a run that resumes draws what it would have drawn."""
    with torch.no_grad():
        whole = loss_of(aware, lesson, 10, 0.5)
        parts = []
        for rows in torch.arange(len(lesson.requests)).chunk(3):
            requests = Requests(
                *(getattr(lesson.requests, name)[rows] for name in ("user_R", "end_R", "time_R", "context_RC"))
            )
            first, target = int(rows[0]), lesson.targets[0]
            picked = target.picked((target.request_E >= first) & (target.request_E <= int(rows[-1])))
            targets = replace(picked, request_E=picked.request_E - first)
            one = Lesson(lesson.batch, requests, (targets,) * len(lesson.targets), lesson.negatives)
            parts.append(loss_of(aware, one, 10, 0.5))
    for name in ("total", "weight"):
        added = torch.stack([getattr(part, name) for part in parts]).sum()
        torch.testing.assert_close(added, getattr(whole, name), rtol=1e-4, atol=1e-3)
    assert loss_of(aware, lesson, 10).total == loss_of(aware, lesson, 10).total


def test_a_share_of_the_requests_says_what_all_say_in_the_mean(aware: FoundationModel, lesson: Lesson) -> None:
    with torch.no_grad():
        whole, part, none = (loss_of(aware, lesson, 10_000, slates) for slates in (1.0, 0.5, 0.0))
    assert 0.25 * whole.weight < part.weight < 0.75 * whole.weight
    assert float(part.total / part.weight) == pytest.approx(float(whole.total / whole.weight), rel=0.2)
    assert (none.total.item(), none.weight.item()) == (0.0, 0.0)


def test_a_lesson_without_a_target_weighs_nothing(aware: FoundationModel, lesson: Lesson) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    nothing = lesson.targets[0].picked(none)
    found = loss_of(aware, replace(lesson, targets=(nothing,) * 3), 10)
    assert (found.total.item(), found.weight.item()) == (0.0, 0.0)
    found.total.backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is None or weight.grad.to_dense().isfinite().all() for weight in aware.parameters())
    aware.zero_grad()
