"""What one rank tells of negatives, in one process; that two together find the whole is in test_placed.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foundation.objectives.blocks import contest_sums
from foundation.objectives.contests import Bonus, Contest, Vectors
from foundation.objectives.softmax import set_softmax
from foundation.objectives.targets import Negatives, Shown, Targets
from training.data import Position, TrainingSet, lessons
from training.parallel import Ranks
from training.parallel.exchange import Owned
from training.parallel.softmax import owners_part
from training.recipes import Recipe


@pytest.mark.parametrize(("rows", "ranks"), [(10, 3), (2, 4), (64, 64), (7, 1)])
def test_owners_have_every_row_once_and_in_order(rows: int, ranks: int) -> None:
    found = [code for rank in range(ranks) for code in Owned(Ranks(rank, ranks), rows).own]
    assert found == list(range(rows))
    cut = torch.arange(rows).chunk(ranks)  # as DTensor's Shard(0) does
    for rank, part in enumerate(cut):
        assert list(Owned(Ranks(rank, ranks), rows).own) == part.tolist()


def test_every_negative_is_scored_by_one_rank(training_set: TrainingSet, recipe: Recipe) -> None:
    _, lesson = next(lessons(training_set, recipe.model, recipe.sampling, recipe.seed, Position()))
    codes = recipe.model.item.codes
    parts = [owners_part(lesson, Owned(Ranks(rank, 3), codes))[0].negatives for rank in range(3)]
    assert torch.equal(torch.cat([part.code_M for part in parts]), lesson.negatives.code_M)
    assert torch.equal(torch.cat([part.log_expected_M for part in parts]), lesson.negatives.log_expected_M)
    # Of a table whose last rows nobody draws, the last rank has nothing to score.
    assert len(owners_part(lesson, Owned(Ranks(1, 2), 10 * codes))[0].negatives) == 0


def test_a_rank_without_negatives_adds_nothing_to_the_loss_and_takes_no_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    state_RD, item_ND = (torch.randn(shape, generator=draw) for shape in ((5, 4), (9, 4)))
    request_E = torch.arange(5)
    target = Targets(request_E, torch.arange(5) + 20, torch.zeros(5, 0).long(), torch.ones(5), torch.ones(5))
    pairs = Shown(request_E, target.item_E, request_E)
    negatives = Negatives(torch.arange(2, 6), torch.zeros(4))
    contest = Contest(target, pairs, torch.arange(4, 9), negatives)
    among = Vectors(item_ND, torch.zeros(9), torch.zeros(9, 0).long())
    nobody = replace(contest, negatives=Negatives(negatives.code_M[:0], torch.zeros(0)), column_A=torch.arange(5))
    rest = Vectors(item_ND[4:], torch.zeros(5), torch.zeros(5, 0).long())

    def loss(state_RD: Tensor, empty: bool) -> Tensor:
        sums_R1, shown_A = contest_sums(state_RD, among, contest, Bonus())
        none_R1, _ = contest_sums(state_RD, rest, nobody, Bonus())
        assert (none_R1 == -torch.inf).all()
        sums_RK = torch.cat([sums_R1, none_R1], dim=1) if empty else sums_R1
        return set_softmax(sums_RK, shown_A, pairs, request_E, target.weight_E)[0]

    found = []
    for empty in (False, True):
        weight_RD = state_RD.clone().requires_grad_()
        total = loss(weight_RD, empty)
        total.backward()
        found.append((total.detach(), weight_RD.grad))
    torch.testing.assert_close(found[1], found[0])
