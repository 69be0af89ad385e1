from __future__ import annotations

import math

import pytest
import torch

from foundation.affinity import STRENGTH, CategoryAffinity, candidate_lifts, pair_lifts
from foundation.config import ItemConfig, ModelConfig
from foundation.embedding import ItemContent
from foundation.jagged import EventBatch, Requests
from foundation.model import FoundationModel
from foundation.repeat import slow_decay


def test_shares_are_what_a_loop_over_the_history_counts(
    config: ModelConfig, model: FoundationModel, batch: EventBatch, asked: Requests
) -> None:
    half_life = config.repeat.half_lives[slow_decay(config.repeat)]
    with torch.no_grad():
        shares, strength = model(batch, asked).shares, model.affinity.log_strength_C.exp().tolist()
    items = batch.facet_TF[:, config.item_column].tolist()
    for row in range(0, len(asked), 31):
        start, end = int(batch.offset_B1[asked.user_R[row]]), int(asked.end_R[row])
        for level, (_, size) in enumerate(config.item.categories):
            weight = [0.0] * size
            for token in range(start, end):
                if items[token] >= 2:
                    age = float(asked.time_R[row] - batch.time_T[token])
                    weight[int(model.tower.category_VC[items[token], level])] += 2 ** (-age / half_life)
            expected = torch.tensor(weight) / (sum(weight) + strength[level])
            torch.testing.assert_close(shares[level][row], expected, atol=1e-5, rtol=1e-4)


def affinity_of(categories: list[list[int]], met: list[float], sizes: tuple[int, ...]) -> CategoryAffinity:
    names = tuple((f"level{place}", size) for place, size in enumerate(sizes))
    codes = torch.tensor(categories)
    nothing = torch.zeros(len(codes), 0)
    content = ItemContent(
        codes,
        torch.zeros(1, 0),
        torch.zeros(len(codes), dtype=torch.int64),
        torch.tensor(met).float(),
        nothing,
        nothing.long(),
    )
    return CategoryAffinity(ItemConfig("product", len(codes), names, 0), content)


def test_whoever_buys_as_everybody_gains_nothing_and_who_buys_more_of_a_kind_gains_there() -> None:
    affinity = affinity_of([[0], [1], [2], [2], [3]], [0, 0, 30, 10, 60], (4,))
    everybody = affinity.share_0
    codes = torch.tensor([[2], [3]])
    assert torch.allclose(candidate_lifts(affinity((everybody[None],)), codes), torch.zeros(1, 2), atol=1e-6)
    eager = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    bonus = candidate_lifts(affinity((eager,)), codes)[0]
    expected = math.log((1 / float(everybody[2]) + 1) / 2)
    torch.testing.assert_close(bonus, torch.tensor([expected, math.log(1 / 2)]))


def test_the_fewer_events_there_are_the_less_is_gained() -> None:
    affinity = affinity_of([[0], [1], [2], [2], [3]], [0, 0, 30, 10, 60], (4,))
    code, gained = torch.tensor([[2]]), []
    for events in (0, 1, 10, 100, 100_000):
        told = torch.tensor([[0.0, 0.0, events / (events + STRENGTH), 0.0]])
        gained.append(candidate_lifts(affinity((told,)), code).item())
    assert gained[0] == pytest.approx(0.0, abs=1e-6)
    assert gained == sorted(gained)
    assert gained[-1] == pytest.approx(math.log((1 / float(affinity.share_0[2]) + 1) / 2), abs=1e-3)


def test_a_model_that_was_saved_without_a_strength_reads_every_history_as_a_long_one() -> None:
    affinity = affinity_of([[0], [1], [2], [2], [3]], [0, 0, 30, 10, 60], (4,))
    before = {name: value for name, value in affinity.state_dict().items() if name != "log_strength_C"}
    affinity.load_state_dict(before)
    assert affinity.log_strength_C.exp().max().item() < 1e-6


def test_items_without_categories_get_nothing() -> None:
    affinity = affinity_of([[], [], []], [0, 0, 1], ())
    assert candidate_lifts(affinity(()), torch.zeros(3, 0, dtype=torch.int64)) == 0.0


def test_a_category_that_came_after_training_reads_as_unknown() -> None:
    affinity = affinity_of([[0], [1], [2], [9]], [0, 0, 5, 1], (4,))  # 9 was admitted later
    lifts = affinity((torch.tensor([[0.1, 0.6, 0.2, 0.1]]),))
    unknown, later = candidate_lifts(lifts, torch.tensor([[1], [9]]))[0]
    assert unknown == later
    assert affinity.share_0[3] < affinity.share_0[1]  # its meetings count for the unknown, for no other category


def test_a_pair_gains_what_its_candidate_gains() -> None:
    affinity = affinity_of([[0, 0], [1, 1], [2, 1], [9, 2]], [0, 0, 5, 1], (4, 3))
    shares = (torch.rand(5, 4) / 4, torch.rand(5, 3) / 3)
    codes = torch.tensor([[2, 1], [9, 0], [3, 2]])
    row, column = torch.tensor([0, 0, 3, 4]), torch.tensor([1, 2, 0, 1])
    dense = candidate_lifts(affinity(shares), codes)
    assert isinstance(dense, torch.Tensor)
    assert torch.equal(pair_lifts(affinity(shares), row, codes[column]), dense[row, column])
