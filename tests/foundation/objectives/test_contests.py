"""Contests in chunks beside contests at once, and beside plain cross-entropy; what memory they take."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foundation.config import FacetConfig, ItemConfig, ModelConfig, RepeatConfig
from foundation.embedding import ItemContent
from foundation.jagged import EventBatch, Requests
from foundation.learning import losses
from foundation.lesson import Lesson, Objectives
from foundation.model import FoundationModel
from foundation.objectives import blocks
from foundation.objectives.contests import Bonus, Contest, Vectors, contest_logits
from foundation.objectives.softmax import CHUNK, log_sum_exp, set_softmax
from foundation.objectives.targets import Negatives, Targets, shown

REQUESTS, ITEMS, WIDTH, CLASSES = 6, 40, 5, 4


def targets_of(rows: list[int], items: list[int]) -> Targets:
    weight_E = torch.linspace(0.5, 1.5, len(rows))
    no_facet = torch.zeros(len(rows), 0, dtype=torch.int64)
    return Targets(torch.tensor(rows), torch.tensor(items), no_facet, weight_E, torch.ones(len(rows)))


def leaf(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=draw).requires_grad_()


def parts(seed: int, own: set[tuple[int, int]], negatives: Negatives) -> tuple[list[Tensor], Contest, Tensor]:
    """Leaves (states, items, popularity, lifts, bonus of shown pairs), a contest and the classes of items."""
    draw = torch.Generator().manual_seed(seed)
    target = targets_of([0, 0, 1, 3, 5], [3, 9, 9, 20, 38])
    mine = torch.tensor(sorted(own), dtype=torch.int64).view(-1, 2)
    pairs = shown((mine[:, 0], mine[:, 1]), (target.request_E, target.item_E), ITEMS)
    leaves = [leaf(draw, REQUESTS, WIDTH), leaf(draw, ITEMS, WIDTH), leaf(draw, ITEMS), leaf(draw, REQUESTS, CLASSES)]
    leaves.append(leaf(draw, len(pairs.row_A)))
    category_NC = torch.randint(2, CLASSES, (ITEMS, 1), generator=draw)
    return leaves, Contest(target, pairs, pairs.code_A, negatives), category_NC


def loss_of(leaves: list[Tensor], contest: Contest, category_NC: Tensor, chunk: int) -> Tensor:
    state_RD, item_ND, popularity_N, lift_RS, shown_A = leaves
    # Every item is a candidate, negatives first: code = column.
    among = Vectors(item_ND, popularity_N, category_NC)
    logits = contest_logits(state_RD, among, contest, Bonus((lift_RS,), shown_A), chunk)
    return set_softmax(*logits, contest.pairs, contest.target.request_E, contest.target.weight_E)[0]


@given(st.integers(1, 41), st.integers(1, 40), st.sets(st.tuples(st.integers(0, 5), st.integers(0, 39))))
def test_in_chunks_the_loss_and_every_gradient_are_those_at_once(
    chunk: int, number: int, own: set[tuple[int, int]]
) -> None:
    negatives = Negatives(torch.arange(number), -torch.rand(number, generator=torch.Generator().manual_seed(number)))
    leaves, contest, category_NC = parts(chunk, own, negatives)
    losses_and_gradients = []
    for size in (ITEMS + 1, chunk):
        loss = loss_of(leaves, contest, category_NC, size)
        losses_and_gradients.append((loss, *torch.autograd.grad(loss, leaves)))
    for one, other in zip(*losses_and_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_over_the_whole_catalogue_it_is_plain_cross_entropy() -> None:
    leaves, contest, category_NC = parts(0, set(), Negatives(torch.arange(ITEMS), torch.zeros(ITEMS)))
    state_RD, item_ND, popularity_N, lift_RS, shown_A = leaves
    plain_RN = state_RD @ item_ND.T + popularity_N + lift_RS[:, category_NC[:, 0]]
    # What a pair is told beside the dot product is told of the pair alone; its lift is part of that.
    row_A, column_A = contest.pairs.row_A, contest.column_A
    plain_RN = plain_RN.index_put(
        (row_A, column_A), shown_A - lift_RS[row_A, category_NC[column_A, 0]], accumulate=True
    )
    target = contest.target
    plain = -(torch.log_softmax(plain_RN, 1)[target.request_E, target.item_E] * target.weight_E).sum()
    found = loss_of(leaves, contest, category_NC, 7)
    torch.testing.assert_close(found, plain)
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(plain, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_log_sum_exp_of_nothing_is_nothing_and_moves_nothing() -> None:
    logit_RC = torch.tensor([[1.0, 2.0, -torch.inf], [-torch.inf] * 3, [300.0, -300.0, 0.0]]).requires_grad_()
    found_R = log_sum_exp(logit_RC)
    torch.testing.assert_close(found_R, torch.logsumexp(logit_RC, 1))
    found_R[[0, 2]].sum().backward()
    assert logit_RC.grad is not None
    torch.testing.assert_close(logit_RC.grad[0], torch.softmax(torch.tensor([1.0, 2.0, -torch.inf]), 0))
    assert not logit_RC.grad[1].any()


CODES = CHUNK + 900
LARGE = ModelConfig(
    facets=(FacetConfig("item", CODES, "entity"), FacetConfig("store", 5, "context")),
    item=ItemConfig("item", CODES, (("kind", 7),), 0),
    repeat=RepeatConfig((10.0, math.inf), 1.0, width=4),
    width=8,
    layers=1,
    heads=1,
    horizons=2,
)


@pytest.fixture(scope="module")
def large() -> tuple[FoundationModel, Lesson]:
    """A catalogue of more than a chunk, all of which are negatives, and 96 requests of 8 users."""
    torch.manual_seed(0)
    nothing = torch.zeros(CODES, 0)
    content = ItemContent(
        torch.randint(2, 7, (CODES, 1)), nothing[:1], torch.zeros(CODES, dtype=torch.int64), torch.rand(CODES), nothing,
        torch.zeros(CODES, 0, dtype=torch.int64),
    )  # fmt: skip
    model = FoundationModel(LARGE, content)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    users, groups = 8, 13
    facet_TF = torch.stack([torch.randint(2, CODES, (users * groups,)), torch.randint(2, 5, (users * groups,))], 1)
    time_T = torch.arange(groups).double().repeat(users)
    offset_B1 = torch.arange(0, users * groups + 1, groups)
    always_T = torch.ones(users * groups, dtype=torch.bool)
    group_T = torch.arange(groups).repeat(users)
    batch = EventBatch(
        facet_TF,
        time_T,
        time_T,
        always_T,
        group_T,
        offset_B1,
        torch.zeros(users).double(),
        torch.zeros(users, 0).long(),
    )
    token_R = torch.tensor([token for token in range(users * groups) if token % groups])
    requests = Requests(batch.user_T[token_R], token_R, time_T[token_R], facet_TF[token_R, 1:])
    target = targets_of(list(range(len(token_R))), facet_TF[token_R, 0].tolist())
    empty = target.picked(target.request_E < 0)
    codes = torch.arange(2, CODES)
    return model, Lesson(batch, requests, (target, empty), Negatives(codes, torch.zeros(len(codes))))


def test_a_large_catalogue_is_learned_as_the_finished_model_scores_it(large: tuple[FoundationModel, Lesson]) -> None:
    model, lesson = large
    found = {loss.name: loss for loss in losses(model, lesson, Objectives())}
    states = model(lesson.batch, lesson.requests)
    target = lesson.targets[0]
    stored_RV = model.user_vectors(states) @ model.item_vectors().T
    for name, logit_RV in (("next", model.scores(states, model.item_vectors())), ("embedding", stored_RV)):
        log_share_RV = torch.log_softmax(logit_RV[:, 2:], 1)
        plain = -(log_share_RV[target.request_E, target.item_E - 2] * target.weight_E).sum()
        torch.testing.assert_close(found[name].total, plain, rtol=1e-4, atol=1e-3)
        gradients = [
            torch.autograd.grad(loss, [model.horizons[0].weight, model.pooling.state.weight], allow_unused=True)
            for loss in (found[name].total, plain)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        # A catalogue has every width once; what requests see of it must be smaller than all of that.
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor) and leaf.layout is torch.strided]
        self.elements = max([self.elements, *(leaf.numel() for leaf in made)])
        return found


def test_no_matrix_of_requests_and_catalogue_is_ever_made(
    large: tuple[FoundationModel, Lesson], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, lesson = large
    requests, catalogue, saved = len(lesson.requests), len(lesson.negatives), []
    monkeypatch.setattr(blocks, "BLOCK", {"cpu": requests // 3 * catalogue})

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.untyped_storage().nbytes() if tensor.layout is torch.strided else 0)
        return tensor

    with Largest() as largest, saved_tensors_hooks(keep, lambda tensor: tensor):
        total = torch.stack([loss.total for loss in losses(model, lesson, Objectives(full_below=CODES))]).sum()
        total.backward()
    model.zero_grad()
    assert blocks.ROWS * catalogue <= largest.elements < requests * catalogue
    assert max(saved) < 4 * requests * catalogue  # nor kept for the backward pass, where a float has four bytes
    monkeypatch.setattr(blocks, "BLOCK", {"cpu": requests * catalogue})
    with Largest() as plain:
        losses(model, lesson, Objectives(full_below=CODES))
    assert plain.elements >= requests * catalogue
