"""What every shape of the model promises: sets or sequences of events, with and without the parts that can be off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foundation.config import AttentionConfig, CandidateConfig, Groups, ItemGate, ModelConfig, Rotary, Switch
from foundation.embedding import ItemContent, item_content
from foundation.item_age import ItemAges, moments
from foundation.jagged import EventBatch, as_sequence, group_offsets, segment_ids
from foundation.learning import losses
from foundation.lesson import Lesson, Objectives
from foundation.model import FoundationModel
from foundation.objectives.targets import Negatives, Targets
from foundation.repeat import FIRST_ITEM
from tests.foundation.answers import TOLERANCE, answers, assert_same, at_every_group, other_facets
from tokenization.corpus.corpus import Corpus

ATTRIBUTES = (("likes", 7), ("age", 12))
EVERYTHING = {
    "attributes": ATTRIBUTES,
    "attention": AttentionConfig(windows=(6, 0), sinks=5, memory=2, memory_block=6, rotary=Rotary.BOTH),
    "intents": ("kind", "action"),
    "category_targets": ("brand",),
    "gap_bins": 6,
    "candidates": CandidateConfig(layers=2, heads=2, reach=7),
    "item_gate": ItemGate.AGE,
    "state_layers": (0, 1),
    "pools": (2, 8),
    "interests": 3,
}
VARIANTS = {
    "plain": {},
    "attributes": {"attributes": ATTRIBUTES},
    "sequence": {"groups": Groups.SEQUENCE},
    "no repeat path": {"repeat_path": Switch.OFF},
    "no affinity": {"category_affinity": Switch.OFF},
    "item gate": {"item_gate": ItemGate.AGE},
    "memory": {
        "attributes": ATTRIBUTES,
        "attention": AttentionConfig(windows=(6,), sinks=5, memory=2, memory_block=6, rotary=Rotary.BOTH),
    },
    "everything": EVERYTHING,
    "everything as a sequence": {**EVERYTHING, "groups": Groups.SEQUENCE},
    "bare": {"repeat_path": Switch.OFF, "category_affinity": Switch.OFF, "groups": Groups.SEQUENCE},
}
Make = Callable[[str], FoundationModel]
# Sizes of the groups of each user; some users have no event.
USERS = st.lists(st.lists(st.integers(1, 5), max_size=5), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def content(kiosk_corpus: Corpus) -> ItemContent:
    items = kiosk_corpus.tokenizer.items
    since_V = moments(torch.linspace(-30.0, 60.0, len(items), dtype=torch.float64) * 86_400.0)  # old, young and unmet
    ages = replace(ItemAges.untold(len(items)), since_V=since_V)
    return item_content(items, torch.from_numpy(items.count).float(), ages)


@pytest.fixture(scope="module")
def make(config: ModelConfig, content: ItemContent, shake) -> Make:
    made: dict[str, FoundationModel] = {}

    def one(name: str) -> FoundationModel:
        if name not in made:
            torch.manual_seed(0)
            made[name] = shake(FoundationModel(replace(config, **VARIANTS[name]), content)).eval()
        return made[name]

    return one


def drawn(users: list[list[int]], config: ModelConfig, seed: int) -> EventBatch:
    """A batch with groups of these sizes; everything else is drawn."""
    draw = torch.Generator().manual_seed(seed)
    group_T = torch.tensor([number for sizes in users for number, size in enumerate(sizes) for _ in range(size)])
    length_B = torch.tensor([sum(sizes) for sizes in users])
    offset_B1 = torch.cat([length_B.new_zeros(1), length_B.cumsum(0)])
    size_F = torch.tensor([facet.size for facet in config.facets])
    facet_TF = (torch.rand(len(group_T), len(size_F), generator=draw) * size_F).long()
    time_T = group_T.double() * 86_400 * 3
    size_A = torch.tensor([size for _, size in ATTRIBUTES])
    attribute_BA = (torch.rand(len(users), len(size_A), generator=draw) * size_A).long()
    opening_T = torch.ones(len(group_T), dtype=torch.bool)
    start_B = torch.zeros(len(users), dtype=torch.float64)
    return EventBatch(facet_TF, time_T, time_T, opening_T, group_T.long(), offset_B1, start_B, attribute_BA)


def otherwise(batch: EventBatch, hidden_T: Tensor, draw: torch.Generator) -> EventBatch:
    """Everything of the hidden tokens as it is not: facets, times, and what was there when a group began."""
    if not batch.tokens:
        return batch
    return replace(
        batch,
        facet_TF=other_facets(batch, hidden_T, draw),
        time_T=batch.time_T + hidden_T * 1e6,
        begin_T=batch.begin_T + hidden_T * 1e5,
        opening_T=batch.opening_T ^ hidden_T,
    )


def by_request(said: dict[str, Tensor]) -> list[str]:
    """What is said of each request, a row each; own items are pairs."""
    return [name for name in said if not name.startswith("own ")]


def context_of(batch: EventBatch, config: ModelConfig) -> Tensor:
    return batch.facet_TF[:, list(config.context_columns)]


@given(users=USERS, seed=st.integers(0, 999))
@settings(max_examples=8)
@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_that_is_to_come_is_read(make: Make, name: str, users: list[list[int]], seed: int) -> None:
    model = make(name)
    batch = drawn(users, model.config, seed)
    requests = at_every_group(batch, context_of(batch, model.config))
    before = answers(model, batch, requests)
    draw = torch.Generator().manual_seed(seed)
    for row in range(0, len(requests), 3):
        user, end = int(requests.user_R[row]), int(requests.end_R[row])
        to_come_T = (torch.arange(batch.tokens) >= end) & (batch.user_T == user)
        after = answers(model, otherwise(batch, to_come_T, draw), requests)
        for said in by_request(before):
            torch.testing.assert_close(after[said][row], before[said][row], **TOLERANCE)


@given(users=USERS, seed=st.integers(0, 999))
@settings(max_examples=8)
@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_of_another_user_is_read(make: Make, name: str, users: list[list[int]], seed: int) -> None:
    model = make(name)
    batch = drawn(users, model.config, seed)
    requests = at_every_group(batch, context_of(batch, model.config))
    before = answers(model, batch, requests)
    draw = torch.Generator().manual_seed(seed)
    for user in range(batch.users):
        others = otherwise(batch, batch.user_T != user, draw)
        hidden_B1 = (torch.arange(batch.users) != user)[:, None]
        others = replace(others, attribute_BA=torch.where(hidden_B1, 1, batch.attribute_BA))
        after, mine_R = answers(model, others, requests), requests.user_R == user
        for said in by_request(before):
            torch.testing.assert_close(after[said][mine_R], before[said][mine_R], **TOLERANCE)


@given(users=USERS, seed=st.integers(0, 999))
@settings(max_examples=12)
@pytest.mark.parametrize("name", ["plain", "attributes", "no repeat path", "no affinity", "memory", "everything"])
def test_no_output_knows_the_order_inside_a_group(make: Make, name: str, users: list[list[int]], seed: int) -> None:
    model = make(name)
    batch = drawn(users, model.config, seed)
    requests = at_every_group(batch, context_of(batch, model.config))
    noise_T = torch.rand(batch.tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    order_T = (segment_ids(group_offsets(batch)) + noise_T).argsort()
    permuted = replace(batch, facet_TF=batch.facet_TF[order_T])
    assert_same(answers(model, batch, requests), answers(model, permuted, requests))


def test_as_a_sequence_every_token_has_a_place_of_its_own_and_sees_no_later_one(make: Make) -> None:
    model = make("sequence")
    batch = drawn([[2, 3], [], [4, 1]], model.config, 0)
    assert as_sequence(batch).group_T.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert group_offsets(as_sequence(batch)).tolist() == list(range(11))
    assert torch.equal(as_sequence(batch).time_T, batch.time_T)
    requests = at_every_group(batch, context_of(batch, model.config))
    before = answers(model, batch, requests)
    swapped = torch.tensor([1, 0, *range(2, 10)])
    after = answers(model, replace(batch, facet_TF=batch.facet_TF[swapped]), requests)
    asked = requests.end_R.tolist().index(2)
    assert not torch.allclose(after["bare"][asked], before["bare"][asked], atol=1e-3)  # a set would not tell
    assert torch.equal(after["own features"], before["own features"])  # the other parts go on reading groups


def lesson_of(model: FoundationModel) -> Lesson:
    config = model.config
    batch = drawn([[2, 3, 1], [], [4, 1]], config, 3)
    requests = at_every_group(batch, context_of(batch, config))
    item_E = torch.randint(FIRST_ITEM, config.item.codes, (len(requests),), generator=torch.Generator().manual_seed(0))
    facet_EF = torch.ones(len(requests), len(config.targets), dtype=torch.int64)
    ones = torch.ones(len(requests))
    target = Targets(torch.arange(len(requests)), item_E, facet_EF, ones, ones)
    code_M = torch.arange(FIRST_ITEM, config.item.codes, 2)
    return Lesson(batch, requests, (target,) * config.horizons, Negatives(code_M, torch.zeros(len(code_M))))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_that_exists_is_learned(make: Make, name: str) -> None:
    model = make(name)
    model.zero_grad()
    sum(loss.total for loss in losses(model, lesson_of(model), Objectives())).backward()
    without = {key for key, weight in model.named_parameters() if weight.numel() and weight.grad is None}
    assert without == set()
    for key, weight in model.named_parameters():
        if weight.numel():
            assert torch.isfinite(weight.grad.to_dense()).all(), key
    model.zero_grad()


def test_what_is_off_has_no_parameter_and_the_rest_is_drawn_alike(config: ModelConfig, content: ItemContent) -> None:
    def weights(**changes: object) -> dict[str, Tensor]:
        torch.manual_seed(0)
        named = FoundationModel(replace(config, **changes), content).named_parameters()
        return {key: weight for key, weight in named if weight.numel()}

    plain = weights()
    attributes = {key for key in weights(attributes=ATTRIBUTES) if key.startswith("attributes.")}
    assert attributes
    assert not attributes & plain.keys()
    told = weights(attributes=ATTRIBUTES)
    assert all(torch.equal(told[key], weight) for key, weight in plain.items())
    repeat = {key for key in plain if key.startswith(("bare_repeat.", "told_repeat."))} | {
        "pooling.own_gain",
        "pooling.own_rest",
    }
    assert plain.keys() - weights(repeat_path=Switch.OFF).keys() == repeat
    affinity = {key for key in plain if key.startswith("affinity.")}
    assert plain.keys() - weights(category_affinity=Switch.OFF).keys() == affinity
    assert weights(groups=Groups.SEQUENCE).keys() == plain.keys()


def test_without_repeat_path_and_affinity_scores_are_the_dot_product(make: Make) -> None:
    model = make("bare")
    batch = drawn([[2, 3], [], [4, 1]], model.config, 0)
    requests = at_every_group(batch, context_of(batch, model.config))
    with torch.no_grad():
        states, item_VD = model(batch, requests), model.item_vectors()
        dot_RV = model.horizons[0](states.told_RD) @ item_VD[:, :-1].T + item_VD[:, -1]
        torch.testing.assert_close(model.scores(states, item_VD)[:, FIRST_ITEM:], dot_RV[:, FIRST_ITEM:])
        torch.testing.assert_close(model.user_vectors(states)[:, :-1], model.pooling.state(states.bare_RD))
    assert not len(states.own.code_P)  # in the losses they compete, unless `own=off`
    assert states.own.feature_PX.shape == (len(states.own.code_P), 0)


def test_without_affinity_categories_lift_nothing_and_own_items_still_return(make: Make) -> None:
    model = make("no affinity")
    batch = drawn([[2, 3]], model.config, 0)
    requests = at_every_group(batch, context_of(batch, model.config))
    with torch.no_grad():
        states, item_VD = model(batch, requests), model.item_vectors()
        score_RV = model.scores(states, item_VD)
        plain_RV = model.horizons[0](states.told_RD) @ item_VD[:, :-1].T + item_VD[:, -1]
    own_RV = torch.zeros_like(score_RV, dtype=torch.bool)
    own_RV[states.own.request_P, states.own.code_P] = True
    own_RV[:, :FIRST_ITEM] = True
    torch.testing.assert_close(score_RV[~own_RV], plain_RV[~own_RV])
    assert not torch.allclose(score_RV[own_RV][FIRST_ITEM:], plain_RV[own_RV][FIRST_ITEM:], atol=0.1)
