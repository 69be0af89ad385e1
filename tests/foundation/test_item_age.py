"""The gate over age: exact for each request and candidate, off without a trace, the same in batch and live."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.card import Told, new_card
from foundation.config import ItemGate, ModelConfig
from foundation.embedding import item_content
from foundation.item_age import NEVER, NOTHING_HIDDEN, UNKNOWN_AGE, AgeGate, Hidden, ItemAges, bin_ages, moments
from foundation.jagged import EventBatch, Requests, requests_now
from foundation.live import empty_user_cache, states_onto
from foundation.model import FoundationModel
from foundation.objectives.contests import Bonus, Contest, Vectors, contest_logits, wanted
from foundation.objectives.softmax import log_sum_exp
from foundation.objectives.targets import Negatives, Targets, shown
from foundation.pretrained import load, save
from tests.foundation.conftest import Shake
from tokenization.corpus.corpus import Corpus

DAY = 86_400.0
HOUR = 3_600 * 10**6


def ages_of(batch: EventBatch, codes: int, item_column: int) -> ItemAges:
    """Every third item unmet, every fifth of unknown age, the others since some moment of the log."""
    moment_T = moments(batch.time_T + batch.start_B[batch.user_T])
    since_V = torch.linspace(float(moment_T.min()), float(moment_T.max()), codes, dtype=torch.float64).to(torch.int64)
    place_V = torch.arange(codes)
    since_V = torch.where(place_V % 5 == 4, UNKNOWN_AGE, torch.where(place_V % 3 == 2, NEVER, since_V))
    return ItemAges(since_V, moment_T.max()[None], (place_V % 4).float(), place_V % 3 != 0)


@pytest.fixture(scope="module")
def gated(config: ModelConfig, batch: EventBatch, kiosk_corpus: Corpus, shake: Shake) -> FoundationModel:
    torch.manual_seed(0)
    items = kiosk_corpus.tokenizer.items
    ages = ages_of(batch, len(items), config.item_column)
    content = item_content(items, torch.from_numpy(items.count).float(), ages)
    model = shake(FoundationModel(replace(config, item_gate=ItemGate.AGE), content))
    assert isinstance(model, FoundationModel)
    return model.eval()


@given(st.integers(-(10**16), 10**16), st.sampled_from([UNKNOWN_AGE, NEVER, 0, 10**15]), st.floats(1.0, 1e7))
@settings(max_examples=60)
def test_an_item_that_is_not_met_counts_nothing_and_every_other_age_has_a_bin(
    moment: int, since: int, unit: float
) -> None:
    gate = AgeGate(unit, 3, replace(ItemAges.untold(3), since_V=torch.tensor([0, 0, since])))
    found = int(gate.bins(torch.tensor([2]), torch.tensor([moment])))
    ages = bin_ages(unit)
    if since == UNKNOWN_AGE:
        assert found == len(ages) - 1
    elif moment <= since:
        assert found == 0
    else:
        seconds = (moment - since) / 1e6
        assert ages[found] <= seconds + 1e-6
        assert seconds <= ages[found + 1] + 1e-6
    share = float(gate(torch.tensor(found)).detach())
    assert (share == 0.0) if found == 0 else (0.0 < share < 1.0)


def test_what_came_after_training_was_never_met(gated: FoundationModel) -> None:
    gate = gated.tower.gate
    assert gate is not None
    assert int(gate.bins(torch.tensor([gated.tower.codes + 5]), gate.as_of_1)) == 0


def test_a_vector_is_its_content_and_a_share_of_its_row(gated: FoundationModel) -> None:
    tower, code = gated.tower, torch.arange(2, gated.tower.codes)
    assert tower.gate is not None
    share = tower.shares(code, tower.gate.as_of_1)
    torch.testing.assert_close(tower(code), tower.content(code) + share[:, None] * tower.id(code))
    unmet = tower.gate.since_V[code] == NEVER
    assert unmet.any()
    torch.testing.assert_close(tower(code)[unmet], tower.content(code)[unmet])
    torch.testing.assert_close(tower.popularity(code)[unmet], tower.popularity_of_new(code)[unmet])


def test_a_vector_is_of_the_moment_that_is_asked_for(gated: FoundationModel) -> None:
    gate = gated.tower.gate
    assert gate is not None
    end = float(gate.as_of_1) / 1e6
    torch.testing.assert_close(gated.item_vectors(at=end), gated.item_vectors())
    young = (gate.since_V > 0) & (gate.since_V < NEVER)
    before = gated.item_vectors(at=-1e9)
    code = torch.arange(gated.tower.codes)
    torch.testing.assert_close(before[young, :-1], gated.tower.content(code)[young])
    assert not torch.allclose(gated.item_vectors(at=end + 9e7)[young], before[young])


@pytest.mark.parametrize("chunk", [4, 1000])
@pytest.mark.parametrize("hidden", [False, True])
def test_each_request_reads_each_candidate_at_its_own_moment(
    gated: FoundationModel, batch: EventBatch, asked: Requests, chunk: int, hidden: bool
) -> None:
    tower, codes = gated.tower, gated.tower.codes
    draw = torch.Generator().manual_seed(3)
    hiding = Hidden(torch.rand(codes, generator=draw), torch.tensor([0.5])) if hidden else NOTHING_HIDDEN
    code_N = torch.arange(codes)
    moment_R = moments(asked.time_R + batch.start_B[asked.user_R])
    aged = tower.aged(code_N, moment_R, hiding)
    among = Vectors(tower.content(code_N), tower.popularity_of_new(code_N), tower.category_VC[code_N], aged)
    rows, items = torch.arange(len(asked)), torch.arange(len(asked)) % (codes - 2) + 2
    target = wanted(
        Targets(rows, items, torch.zeros(len(rows), 0).long(), torch.ones(len(rows)), torch.ones(len(rows)))
    )
    pairs = shown((target.request_E[:0], target.item_E[:0]), (target.request_E, target.item_E), codes)
    negatives = Negatives(torch.arange(10), torch.zeros(10))  # the first of the candidates, as in a step
    state_RD = torch.randn(len(asked), gated.config.width, generator=draw)
    contest = Contest(target, pairs, pairs.code_A, negatives)
    negative_RK, shown_A = contest_logits(state_RD, among, contest, Bonus(), chunk)
    for row in range(0, len(asked), 7):
        at = moment_R[row]
        share_N = tower.shares(code_N, at, hiding)
        item_ND = tower.content(code_N) + share_N[:, None] * tower.id(code_N)
        popular_N = among.popularity_N + share_N * (tower.bias(code_N)[:, 0] - among.popularity_N)
        plain_N = item_ND @ state_RD[row] + popular_N
        torch.testing.assert_close(shown_A[pairs.row_A == row], plain_N[pairs.code_A[pairs.row_A == row]])
        beside = [code for code in range(10) if code != int(items[row])]
        torch.testing.assert_close(log_sum_exp(negative_RK[row : row + 1])[0], plain_N[beside].logsumexp(0))


def test_history_reads_age_at_the_event(gated: FoundationModel, batch: EventBatch) -> None:
    tower, column = gated.tower, gated.config.item_column
    x_TD = gated.events(batch, tower)
    for token in (0, 31, 57):
        at = float(batch.time_T[token] + batch.start_B[batch.user_T[token]])
        item_D = gated.events.item_projection(tower(batch.facet_TF[token, [column]], at=at))[0]
        others_D = sum(table.weight[batch.facet_TF[token, int(name)]] for name, table in gated.events.tables.items())
        torch.testing.assert_close(x_TD[token], item_D + others_D, rtol=1e-4, atol=1e-5)


def test_live_states_are_those_of_the_whole_life(gated: FoundationModel, batch: EventBatch) -> None:
    requests = requests_now(batch, None, torch.zeros(batch.users, len(gated.config.context), dtype=torch.int64))
    whole = gated(batch, requests)
    states, cache = states_onto(gated, empty_user_cache(gated, batch.users), batch, requests)
    again, _ = states_onto(gated, cache, batch, requests)
    for found in (states, again):
        torch.testing.assert_close(found.bare_RD, whole.bare_RD, rtol=1e-4, atol=1e-4)


def test_a_gated_model_is_saved_with_the_ages_it_learned(
    gated: FoundationModel, kiosk_corpus: Corpus, tmp_path
) -> None:
    save(gated, kiosk_corpus.tokenizer, tmp_path / "model", "kiosk", 1, 5.0, "# Card\n")
    again = load(tmp_path / "model").model
    torch.testing.assert_close(again.item_vectors(), gated.item_vectors(), rtol=0, atol=0)


def test_without_any_age_the_share_is_constant_and_the_card_says_so(
    gated: FoundationModel, config: ModelConfig, kiosk_corpus: Corpus
) -> None:
    items = kiosk_corpus.tokenizer.items
    plain = FoundationModel(replace(config, item_gate=ItemGate.AGE), item_content(items))
    assert plain.tower.gate is not None
    assert plain.tower.gate.constant
    code = torch.arange(2, plain.tower.codes)
    assert plain.tower.shares(code[:, None], moments(torch.tensor([0.0, 1e9, 2e9]))).unique().numel() == 1
    told = Told([], [])
    assert "the share is constant" in new_card(plain, kiosk_corpus.tokenizer, told)
    assert gated.tower.gate is not None
    assert not gated.tower.gate.constant
    assert "count by their age: vectors are of a moment" in new_card(gated, kiosk_corpus.tokenizer, told)


def test_a_model_without_a_gate_has_no_weight_of_one(model: FoundationModel) -> None:
    assert not [name for name in model.state_dict() if "gate" in name or "new_popularity" in name]


def test_new_items_of_categories_that_new_items_do_well_in_are_more_popular(
    config: ModelConfig, kiosk_corpus: Corpus
) -> None:
    items = kiosk_corpus.tokenizer.items
    kind_V = torch.from_numpy(items.categories["kind"].astype("int64"))
    liked_V = kind_V == kind_V[-1]
    codes = len(items)
    unmet_V = torch.arange(codes) >= 2
    ages = replace(ItemAges.untold(codes), debut_V=10.0 * liked_V, unmet_V=unmet_V)
    tower = FoundationModel(replace(config, item_gate=ItemGate.AGE), item_content(items, None, ages)).tower
    found_N = tower.popularity_of_new(torch.arange(2, codes))
    assert found_N[liked_V[2:]].min() > found_N[~liked_V[2:]].max()
    assert math.isclose(float(tower.new_popularity.log_rate_1.exp()), float(ages.debut_V[2:].mean()), rel_tol=1e-5)


def test_a_candidate_may_read_the_row_of_another(gated: FoundationModel) -> None:
    codes = gated.tower.codes
    other_V = torch.arange(codes).roll(1)
    aged = gated.tower.aged(torch.arange(codes), torch.zeros(1).long(), Hidden(row_V=other_V))[0]
    assert torch.equal(aged.id_ND, gated.tower.id(other_V))
