from __future__ import annotations

import torch

from foundation.jagged import EventBatch, Requests, group_offsets
from foundation.pooling import (
    Interests,
    RecentPooling,
    UserPooling,
    border_states,
    pooled_own,
    recent_means,
    sums_before,
)
from foundation.repeat import OwnItems


def test_a_border_reads_the_mean_of_the_group_before_it(batch: EventBatch, asked: Requests) -> None:
    state = torch.randn(batch.tokens, 6)
    found = border_states(state, batch, asked, torch.zeros(6))
    borders = group_offsets(batch).tolist()
    for row in range(0, len(asked), 5):
        end = int(asked.end_R[row])
        begin = borders[borders.index(end) - 1]
        torch.testing.assert_close(found[row], state[begin:end].mean(0))


def test_whoever_has_no_history_gets_the_empty_state(batch: EventBatch) -> None:
    first = batch.offset_B1[:-1]
    begin = Requests(torch.arange(batch.users), first, torch.zeros(batch.users).double(), first[:, None])
    empty = torch.randn(6)
    found = border_states(torch.randn(batch.tokens, 6), batch, begin, empty)
    assert torch.equal(found, empty.expand(batch.users, 6))


def owned(request: list[int], code: list[int]) -> OwnItems:
    nothing = torch.zeros(len(code), 0)
    return OwnItems(torch.tensor(request), torch.tensor(code), nothing, nothing)


def test_own_items_are_pooled_by_how_likely_each_returns() -> None:
    item = torch.randn(3, 4)
    place = torch.tensor([0, 2, 1])
    logit = torch.tensor([1.0, -1.0, 5.0])
    found = pooled_own(owned([0, 0, 2], [5, 9, 7]), logit, 3, item, place)
    share = torch.softmax(logit[:2], 0)
    torch.testing.assert_close(found[0], share[0] * item[0] + share[1] * item[2])
    assert not found[1].any()
    torch.testing.assert_close(found[2], item[1])


def test_that_none_returns_counts_beside_a_single_own_item() -> None:
    item, one = torch.randn(1, 4), owned([0], [5])
    alone = pooled_own(one, torch.tensor([2.0]), 1, item, torch.tensor([0]))
    beside = pooled_own(one, torch.tensor([2.0]), 1, item, torch.tensor([0]), rest=torch.tensor([2.0]))
    torch.testing.assert_close(alone[0], item[0])
    torch.testing.assert_close(beside[0], item[0] / 2)


def test_the_dot_product_finds_the_item_that_is_likeliest_to_return() -> None:
    item = torch.eye(4)
    own = pooled_own(owned([0, 0], [5, 9]), torch.tensor([0.0, 4.0]), 1, item, torch.tensor([1, 3]))
    user = UserPooling(4)(torch.zeros(1, 4), own)
    assert (user @ item.T).argmax() == 3


def test_recent_states_are_averaged_over_whole_groups(batch: EventBatch, asked: Requests) -> None:
    state = torch.randn(batch.tokens, 6)
    borders = group_offsets(batch).tolist()
    for reach in (1, 3, 10_000):
        found = recent_means(sums_before(state), batch, asked, reach)
        for row in range(0, len(asked), 5):
            end, first = int(asked.end_R[row]), int(batch.offset_B1[asked.user_R[row]])
            whole = [begin for begin in borders if max(end - reach, first) <= begin < end]
            begin = whole[0] if whole else borders[borders.index(end) - 1]
            torch.testing.assert_close(found[row].float(), state[begin:end].mean(0))


def test_whoever_has_no_history_has_no_recent_states(batch: EventBatch) -> None:
    first = batch.offset_B1[:-1]
    begin = Requests(torch.arange(batch.users), first, torch.zeros(batch.users).double(), first[:, None])
    assert not recent_means(sums_before(torch.randn(batch.tokens, 6)), batch, begin, 4).any()


def test_pools_say_nothing_before_training_and_learn(batch: EventBatch, asked: Requests) -> None:
    pooling, border = RecentPooling(6, (2, 9)), torch.randn(len(asked), 6)
    found = pooling(border, torch.randn(batch.tokens, 6), batch, asked)
    assert torch.equal(found, border)
    found.square().sum().backward()
    assert all(weight.grad.any() for weight in pooling.parameters())


def test_every_interest_adds_something_else_to_the_stored_vector() -> None:
    bare, stored = torch.randn(5, 6), torch.randn(5, 6)
    interests = Interests(6, 3)
    found = interests(bare, stored)
    weight, bias = interests.projection.weight.view(3, 6, 6), interests.projection.bias.view(3, 6)
    for interest in range(3):
        torch.testing.assert_close(found[:, interest], stored + bare @ weight[interest].T + bias[interest])
