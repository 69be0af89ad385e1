"""What the model may read: rule 1, to the letter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foundation.config import Backend, ModelConfig
from foundation.embedding import ItemContent
from foundation.jagged import EventBatch, Requests, group_offsets, requests_now, segment_ids
from foundation.model import FoundationModel
from foundation.repeat import FIRST_ITEM
from tests.foundation.answers import TOLERANCE, answers, assert_same
from tests.foundation.answers import other_facets as redrawn

Change = Callable[[EventBatch, Tensor, torch.Generator], EventBatch]


def one_a_user(asked: Requests, draw: torch.Generator) -> Requests:
    """One random request of each user."""
    order = torch.randperm(len(asked), generator=draw)
    rows = {int(asked.user_R[row]): int(row) for row in order}
    chosen = torch.tensor(sorted(rows.values()))
    return Requests(asked.user_R[chosen], asked.end_R[chosen], asked.time_R[chosen], asked.context_RC[chosen])


def to_come(batch: EventBatch, requests: Requests) -> Tensor:
    """bool [T]: tokens of the target groups of every horizon, and all after them."""
    end_B = batch.offset_B1[1:].clone()
    end_B[requests.user_R] = requests.end_R
    return torch.arange(batch.tokens) >= end_B[batch.user_T]


def other_facets(batch: EventBatch, hidden_T: Tensor, draw: torch.Generator) -> EventBatch:
    """Every facet of the hidden tokens drawn anew."""
    return replace(batch, facet_TF=redrawn(batch, hidden_T, draw))


def shuffled(batch: EventBatch, hidden_T: Tensor, draw: torch.Generator) -> EventBatch:
    """Each facet of the hidden tokens permuted among them by itself."""
    facet_TF = batch.facet_TF.clone()
    rows = hidden_T.nonzero().squeeze(1)
    for column in range(facet_TF.shape[1]):
        facet_TF[rows, column] = facet_TF[rows[torch.randperm(len(rows), generator=draw)], column]
    return replace(batch, facet_TF=facet_TF)


def later_times(batch: EventBatch, hidden_T: Tensor, draw: torch.Generator) -> EventBatch:
    """Everything that is to come, comes later."""
    return replace(batch, time_T=batch.time_T + hidden_T * 1e6)


@pytest.mark.parametrize("change", [other_facets, shuffled, later_times])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_of_the_target_groups_is_read_at_any_horizon(
    model: FoundationModel, batch: EventBatch, asked: Requests, change: Change, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    requests = one_a_user(asked, draw)
    hidden_T = to_come(batch, requests)
    changed = change(batch, hidden_T, draw)
    before = answers(model, batch, requests)
    assert_same(before, answers(model, changed, requests))
    history = other_facets(batch, ~hidden_T, draw)  # the same test sees a change of the history
    assert not torch.allclose(before["scores"], answers(model, history, requests)["scores"], atol=0.1)


def test_the_context_that_is_told_moves_what_answers_and_not_what_is_stored(
    model: FoundationModel, batch: EventBatch, asked: Requests
) -> None:
    untold = replace(asked, context_RC=torch.zeros_like(asked.context_RC))
    one, other = answers(model, batch, asked), answers(model, batch, untold)
    for name in ("told", "scores", "own features in the context"):
        assert not torch.allclose(one[name], other[name], atol=1e-2), name
    for name in ("bare", "own features", "user vector"):
        assert torch.equal(one[name], other[name]), name


def prefix(batch: EventBatch, requests: Requests) -> tuple[EventBatch, Requests]:
    """Histories cut where they are asked about."""
    keep_T = ~to_come(batch, requests)
    length_B = torch.bincount(batch.user_T[keep_T], minlength=batch.users)
    offset_B1 = torch.cat([length_B.new_zeros(1), length_B.cumsum(0)])
    everybody = torch.arange(batch.users)
    return batch.picked(keep_T, offset_B1, everybody), replace(requests, end_R=offset_B1[1:][requests.user_R])


@pytest.mark.parametrize("seed", [0, 1])
def test_adding_later_events_changes_nothing(
    model: FoundationModel, batch: EventBatch, asked: Requests, seed: int
) -> None:
    requests = one_a_user(asked, torch.Generator().manual_seed(seed))
    assert_same(answers(model, *prefix(batch, requests)), answers(model, batch, requests))


def test_the_order_inside_a_group_changes_nothing(model: FoundationModel, batch: EventBatch, asked: Requests) -> None:
    group_T = segment_ids(group_offsets(batch))
    assert group_T.bincount().max() > 3
    assert group_T.bincount().max() <= model.config.attention.windows[0]
    key = group_T + torch.rand(batch.tokens, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = key.argsort()
    assert not torch.equal(order, torch.arange(batch.tokens))
    permuted = replace(batch, facet_TF=batch.facet_TF[order])
    assert_same(answers(model, batch, asked), answers(model, permuted, asked))


def test_a_user_is_the_same_in_any_company(model: FoundationModel, batch: EventBatch) -> None:
    untold = torch.zeros(batch.users, len(model.config.context), dtype=torch.int64)
    together = answers(model, batch, requests_now(batch, None, untold))
    for user in (0, 11, 29):
        begin, end = int(batch.offset_B1[user]), int(batch.offset_B1[user + 1])
        alone = batch.picked(torch.arange(begin, end), torch.tensor([0, end - begin]), torch.tensor([user]))
        one = answers(model, alone, requests_now(alone, None, untold[:1]))
        for name in ("bare", "user vector", "scores"):
            torch.testing.assert_close(one[name][0], together[name][user], **TOLERANCE)


def test_a_user_without_an_event_has_a_vector_and_scores(model: FoundationModel, batch: EventBatch) -> None:
    last = batch.offset_B1[-1:]
    padded = replace(
        batch,
        offset_B1=torch.cat([batch.offset_B1[:1], batch.offset_B1, last]),
        start_B=torch.cat([torch.zeros(1).double(), batch.start_B, torch.zeros(1).double()]),
        attribute_BA=batch.attribute_BA.new_zeros(batch.users + 2, batch.attribute_BA.shape[1]),
    )
    none = batch.picked(torch.arange(0), torch.zeros(2, dtype=torch.int64), torch.tensor([0]))
    for events in (padded, none):
        untold = torch.zeros(events.users, len(model.config.context), dtype=torch.int64)
        found = answers(model, events, requests_now(events, None, untold))
        assert torch.isfinite(found["user vector"]).all()
        assert torch.isfinite(found["scores"][:, FIRST_ITEM:]).all()
        torch.testing.assert_close(found["bare"][0], model.empty_D)
        assert (found["scores"][:, :FIRST_ITEM] == -torch.inf).all()


def test_every_backend_gives_the_same_answers(model: FoundationModel, batch: EventBatch, asked: Requests) -> None:
    tower = model.tower
    content = ItemContent(
        tower.category_VC,
        tower.text_UX,
        tower.text_row_V,
        torch.ones(tower.codes),
        tower.media_VM,
        tower.semantic_VL,
    )
    reference = FoundationModel(replace(model.config, backend=Backend.REFERENCE), content)
    reference.load_state_dict(model.state_dict())
    assert_same(answers(reference, batch, asked), answers(model, batch, asked))


def test_scores_are_the_generator_and_the_repeat_path(
    model: FoundationModel, batch: EventBatch, asked: Requests
) -> None:
    """A bonus of the repeat path lifts the user's own items and no others."""
    before = answers(model, batch, asked)
    bias = model.told_repeat.rule.bias
    with torch.no_grad():
        plain = answers(model, batch, asked)["scores"]
        bias += 2.0
        lifted = answers(model, batch, asked)["scores"]
        bias -= 2.0
    expected = torch.zeros_like(plain)
    expected[before["own request"], before["own item"]] = 2.0
    torch.testing.assert_close((lifted - plain)[:, FIRST_ITEM:], expected[:, FIRST_ITEM:], **TOLERANCE)


def test_item_vectors_carry_popularity_in_their_last_dimension(model: FoundationModel, config: ModelConfig) -> None:
    with torch.no_grad():
        vectors = model.item_vectors()
        assert vectors.shape == (config.item.codes, model.width)
        assert model.width == config.width + 1
        some = torch.tensor([5, 3, 40])
        torch.testing.assert_close(model.item_vectors(some), vectors[some])
        torch.testing.assert_close(vectors[:, -1], model.tower.popularity(torch.arange(config.item.codes)))
