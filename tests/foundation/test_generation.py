"""Generation against the plain way: every item scored by the definition, one after another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foundation.errors import ModelError
from foundation.generation import Generated, beam_in_time, beam_width, best_paths, generate
from foundation.jagged import EventBatch, Requests
from foundation.model import FoundationModel, UserStates
from foundation.repeat import FIRST_ITEM
from foundation.trie import CodeTrie

WIDE = 1_000


@pytest.fixture(scope="module")
def some(asked: Requests) -> Requests:
    """The first request of each user (no history of items in some) and the last."""
    rows = torch.arange(0, len(asked), 9)
    return Requests(*(getattr(asked, name)[rows] for name in ("user_R", "end_R", "time_R", "context_RC")))


@pytest.fixture(scope="module")
def states(coded: FoundationModel, batch: EventBatch, some: Requests) -> UserStates:
    with torch.no_grad():
        return coded(batch, some)


@pytest.fixture(scope="module")
def plain(coded: FoundationModel, states: UserStates) -> Tensor:
    """float [R, V]: log P of every item, by the definition: made or copied."""
    return by_hand(coded, states, coded.trie())


def by_hand(model: FoundationModel, states: UserStates, trie: CodeTrie) -> Tensor:
    decoder, items = model.decoder, model.tower.codes
    assert decoder is not None
    found = torch.full((len(states.bare_RD), items), -torch.inf)
    with torch.no_grad():
        user_RD, item_VD = model.user_vectors(states), model.item_vectors()
        returns_P, copy_R = model.returns(states), torch.sigmoid(decoder.copy(states.bare_RD)).squeeze(1)
        for row in range(len(found)):
            at = (states.own.request_P == row) & (trie.end_V[states.own.code_P] >= 0)
            own = dict(zip(states.own.code_P[at].tolist(), torch.softmax(returns_P[at], 0).tolist(), strict=True))
            copy = float(copy_R[row]) if own else 0.0
            for item in trie.item_I.tolist():
                end = trie.end_V[item]
                alike = trie.items(end[None])[1]
                which = torch.softmax(item_VD[alike] @ user_RD[row], 0)[(alike == item).nonzero().squeeze(1)]
                state_1D, nobody = states.bare_RD[row][None], torch.zeros(1, dtype=torch.int64)
                path = decoder.log_paths(state_1D, trie, nobody, end[None]).sum().exp()
                found[row, item] = torch.log((1 - copy) * path * which + copy * own.get(item, 0.0))
    return found


def generated(model: FoundationModel, states: UserStates, trie: CodeTrie, beam: int = WIDE, k: int = 20) -> Generated:
    return generate(model, states, model.item_vectors(), trie, beam, k)


def agrees(found: Generated, plain_RV: Tensor, k: int) -> None:
    best_RK = plain_RV.topk(k, dim=1).values
    torch.testing.assert_close(found.log_RK[:, :k], best_RK, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain_RV.gather(1, found.item_RK), found.log_RK, rtol=1e-4, atol=1e-4)


def test_a_beam_as_wide_as_the_catalogue_finds_the_very_best(
    coded: FoundationModel, states: UserStates, plain: Tensor
) -> None:
    assert int((states.own.request_P.bincount(minlength=len(plain)) > 0).sum()) > 3
    agrees(generated(coded, states, coded.trie()), plain, 20)


def test_probabilities_of_all_items_sum_to_one(coded: FoundationModel, states: UserStates, plain: Tensor) -> None:
    torch.testing.assert_close(plain.exp().sum(1), torch.ones(len(plain)), rtol=1e-4, atol=1e-4)
    found = generated(coded, states, coded.trie(), k=plain.shape[1])
    torch.testing.assert_close(found.log_RK.exp().sum(1), torch.ones(len(plain)), rtol=1e-4, atol=1e-4)
    assert (found.item_RK[:, -FIRST_ITEM:] == 0).all()  # so many codes are no items


@settings(max_examples=15)
@given(st.sets(st.integers(FIRST_ITEM, 41), min_size=1), st.integers(1, 30))
def test_only_items_of_the_trie_are_found_whatever_the_beam(
    coded: FoundationModel, states: UserStates, kept: set[int], beam: int
) -> None:
    trie = coded.trie().only(torch.tensor(sorted(kept)))
    found = generated(coded, states, trie, beam, k=50)
    assert set(found.item_RK.flatten().tolist()) <= {0, *kept}
    assert ((found.item_RK > 0) == (found.log_RK > -torch.inf)).all()
    if beam >= len(trie.levels[-1]):
        assert (found.item_RK > 0).sum(1).tolist() == [len(kept)] * len(found.item_RK)
        torch.testing.assert_close(found.log_RK.exp().sum(1), torch.ones(len(found.log_RK)), rtol=1e-4, atol=1e-4)


def test_of_some_items_too_it_agrees_with_the_plain_way(coded: FoundationModel, states: UserStates) -> None:
    trie = coded.trie().only(torch.arange(5, 25))
    agrees(generated(coded, states, trie), by_hand(coded, states, trie), 20)


def test_items_that_nobody_has_met_are_reached(coded: FoundationModel, states: UserStates) -> None:
    met = coded.tower.log_recent(torch.arange(coded.tower.codes)) > -2.0
    cold = (~met).nonzero().squeeze(1)
    cold = cold[cold >= FIRST_ITEM]
    assert len(cold) == 5
    found = generated(coded, states, coded.trie(), k=coded.tower.codes)
    assert all(set(cold.tolist()) <= set(row) for row in found.item_RK.tolist())
    among = generated(coded, states, coded.trie().only(cold), beam=1, k=3)
    assert (among.item_RK[:, 0] > 0).all()


def test_what_is_left_out_for_a_user_keeps_the_others_as_they_are(
    coded: FoundationModel, states: UserStates, plain: Tensor
) -> None:
    own = states.own.request_P, states.own.code_P
    found = generate(coded, states, coded.item_vectors(), coded.trie(), WIDE, 10, without=own)
    agrees(found, plain.index_put(own, torch.tensor(-torch.inf)), 10)


def test_a_user_is_answered_alike_whoever_stands_beside(
    coded: FoundationModel, batch: EventBatch, some: Requests, states: UserStates
) -> None:
    together = generated(coded, states, coded.trie(), beam=3, k=5)
    for row in (0, 4, len(some) - 1):
        picked = torch.tensor([row])
        alone = Requests(*(getattr(some, name)[picked] for name in ("user_R", "end_R", "time_R", "context_RC")))
        with torch.no_grad():
            found = generated(coded, coded(batch, alone), coded.trie(), beam=3, k=5)
        assert torch.equal(found.item_RK[0], together.item_RK[row])


def test_the_first_of_the_paths_is_the_likeliest(coded: FoundationModel, states: UserStates) -> None:
    assert coded.decoder is not None
    trie = coded.trie()
    beams = best_paths(coded.decoder, states.bare_RD, trie, 4)
    ends = torch.arange(len(trie.levels[-1]))
    with torch.no_grad():
        every = [coded.decoder.log_paths(row[None], trie, ends * 0, ends).sum(1) for row in states.bare_RD]
    wide = best_paths(coded.decoder, states.bare_RD, trie, WIDE)
    torch.testing.assert_close(wide.log_RM, torch.stack(every).sort(1, descending=True).values)
    assert beams.node_RM.shape == (len(states.bare_RD), 4)


def test_a_model_without_a_decoder_says_how_to_get_one(
    model: FoundationModel, coded: FoundationModel, states: UserStates
) -> None:
    with pytest.raises(ModelError, match="generates nothing: train one with"):
        generated(model, states, coded.trie())
    with pytest.raises(ModelError, match="beam and k must be at least 1, got 0"):
        generated(coded, states, coded.trie(), beam=0)


@given(st.integers(0, 100), st.integers(1, 100), st.integers(1, 50), st.integers(50, 200))
def test_more_load_narrows_the_beam_between_its_bounds(waiting: int, room: int, narrow: int, wide: int) -> None:
    width = beam_width(waiting, room, narrow, wide)
    assert narrow <= beam_width(waiting + 1, room, narrow, wide) <= width <= wide
    assert beam_width(0, room, narrow, wide) == wide
    assert beam_width(room, room, narrow, wide) == narrow


def test_half_a_load_is_half_way_by_ratio() -> None:
    assert beam_width(8, 16, 4, 100) == 20


@pytest.mark.parametrize("told", [(1, 0, 1, 2), (-1, 5, 1, 2), (1, 5, 0, 2), (1, 5, 3, 2)])
def test_bounds_that_make_no_sense_are_refused(told: tuple[int, int, int, int]) -> None:
    with pytest.raises(ModelError, match="give 1 <= narrow <= wide"):
        beam_width(*told)


def test_as_many_beams_as_fit_into_the_time_left() -> None:
    assert beam_in_time(0.05, 0.001, 5, 100) == 50
    assert beam_in_time(-1.0, 0.001, 5, 100) == 5
    assert beam_in_time(float("inf"), 0.001, 5, 100) == 100
    for told in ((1.0, 0.0, 5, 100), (float("nan"), 0.1, 5, 100), (1.0, 0.1, 9, 8)):
        with pytest.raises(ModelError, match="seconds above 0"):
            beam_in_time(*told)
