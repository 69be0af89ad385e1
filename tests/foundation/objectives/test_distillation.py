from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foundation.objectives.contests import Bonus, Contest, Vectors
from foundation.objectives.distillation import LIKE, View, compared, contest_divergence, likeness
from foundation.objectives.targets import Negatives, Targets, shown

REQUESTS, ITEMS, WIDTH, CATEGORIES = 5, 20, 4, 3


def contest_of(own: set[tuple[int, int]], number: int) -> Contest:
    row_E, item_E = torch.tensor([0, 0, 2]), torch.tensor([3, 5, 19])
    mine = torch.tensor(sorted(own), dtype=torch.int64).view(-1, 2)
    pairs = shown((mine[:, 0], mine[:, 1]), (row_E, item_E), ITEMS)
    ones = torch.ones(3)
    target = Targets(row_E, item_E, torch.zeros(3, 0, dtype=torch.int64), ones, ones)
    log_expected_M = -torch.rand(number, generator=torch.Generator().manual_seed(number))
    return Contest(target, pairs, pairs.code_A, Negatives(torch.arange(number), log_expected_M))


def view(draw: torch.Generator, width: int, pairs: int = 0) -> View:
    """Somebody's states, and items of the same width; with a bonus for each category and each shown pair, if any."""
    state_RD = torch.randn(REQUESTS, width, generator=draw).requires_grad_()
    item_ND = torch.randn(ITEMS, width, generator=draw).requires_grad_()
    category_NC = torch.arange(ITEMS)[:, None] % CATEGORIES + 2
    among = Vectors(item_ND, torch.randn(ITEMS, generator=draw), category_NC)
    lift_RS = torch.randn(REQUESTS, CATEGORIES + 2, generator=draw)
    return View(state_RD, among, Bonus((lift_RS,), torch.randn(pairs, generator=draw)) if pairs else Bonus())


def scores(one: View, row: int, code_C: Tensor, bonus: dict[int, float]) -> Tensor:
    """float [C] of some candidates for one request, bonus included; bonus: of the pairs that are shown to it."""
    lift_C = torch.zeros(len(code_C))
    for lift_RS in one.bonus.lifts:
        # A shown pair's lift is part of what it is given.
        lift_C = lift_RS[row, one.among.category_NC[code_C, 0]] * torch.tensor([int(c) not in bonus for c in code_C])
    given_C = torch.tensor([bonus.get(int(code), 0.0) for code in code_C])
    return one.among.item_ND[code_C] @ one.state_RD[row] + one.among.popularity_N[code_C] + lift_C + given_C


def bonus_of(one: View, contest: Contest, row: int) -> dict[int, float]:
    given_A = torch.as_tensor(one.bonus.shown_A).expand(len(contest.pairs.row_A))
    pairs = zip(contest.pairs.row_A.tolist(), contest.pairs.code_A.tolist(), given_A.tolist(), strict=True)
    return {code: given for at, code, given in pairs if at == row}


def plain(teacher: View, student: View, contest: Contest) -> Tensor:
    """KL over each request's own list of who competes, one after another."""
    total = torch.zeros(())
    shown_pairs = list(zip(contest.pairs.row_A.tolist(), contest.pairs.code_A.tolist(), strict=True))
    for row in range(REQUESTS):
        mine = [code for one, code in shown_pairs if one == row]
        weights = dict.fromkeys(mine, 0.0)
        for code, log_expected in enumerate(contest.negatives.log_expected_M.tolist()):
            weights.setdefault(code, -log_expected)
        if not weights:
            continue
        code_C, weight_C = torch.tensor(list(weights)), torch.tensor(list(weights.values()))
        told_C, said_C = (
            scores(one, row, code_C, bonus_of(one, contest, row)) + weight_C for one in (teacher, student)
        )
        told_C = torch.log_softmax(told_C.detach(), 0)
        total = total + (told_C.exp() * (told_C - torch.log_softmax(said_C, 0))).sum()
    return total


@given(
    st.integers(0, ITEMS), st.integers(1, ITEMS + 1), st.sets(st.tuples(st.integers(0, 4), st.integers(0, ITEMS - 1)))
)
def test_it_is_the_divergence_over_all_that_compete_in_chunks_or_at_once(
    number: int, chunk: int, own: set[tuple[int, int]]
) -> None:
    contest, draw = contest_of(own, number), torch.Generator().manual_seed(number)
    # The teacher is wider than its student, and both have more to say than a product.
    teacher, student = (view(draw, width, len(contest.pairs.row_A)) for width in (WIDTH + 2, WIDTH))
    found, requests = contest_divergence(teacher, student, contest, chunk)
    expected = plain(teacher, student, contest)
    assert requests == REQUESTS
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert float(found.detach()) >= -1e-5
    learns = [student.state_RD, student.among.item_ND]
    gradients = [torch.autograd.grad(one, learns) for one in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_the_teacher_learns_nothing_and_one_who_agrees_diverges_by_nothing() -> None:
    contest, draw = contest_of({(1, 4), (3, 0)}, 12), torch.Generator().manual_seed(0)
    teacher, student = view(draw, WIDTH), view(draw, WIDTH)
    found, _ = contest_divergence(teacher, student, contest)
    assert torch.autograd.grad(found, teacher.state_RD, allow_unused=True) == (None,)
    assert float(found.detach()) > 0.1
    same, _ = contest_divergence(teacher, View(teacher.state_RD.detach().clone(), teacher.among), contest)
    torch.testing.assert_close(same, torch.zeros(()), atol=1e-5, rtol=0)


def test_states_are_alike_where_they_stand_at_the_same_angles_to_one_another() -> None:
    draw = torch.Generator().manual_seed(0)
    teacher_RD, student_RD = torch.randn(7, 6, generator=draw), torch.randn(7, 3, generator=draw).requires_grad_()
    total, pairs = likeness(teacher_RD, student_RD)
    cosines = [
        [[float(F.cosine_similarity(a, b, dim=0)) for b in one_RD] for a in one_RD]
        for one_RD in (teacher_RD, student_RD.detach())
    ]
    expected = sum((cosines[0][i][j] - cosines[1][i][j]) ** 2 for i in range(7) for j in range(7))
    assert (float(total), float(pairs)) == pytest.approx((expected, 49), rel=1e-5)
    turned_RD = 3 * torch.linalg.qr(torch.randn(6, 6, generator=draw)).Q
    assert float(likeness(teacher_RD, teacher_RD @ turned_RD)[0]) == pytest.approx(0, abs=1e-9)
    (slope_RD,) = torch.autograd.grad(total, student_RD)
    assert float(slope_RD.abs().sum()) > 0


def test_of_many_requests_some_are_compared_that_stand_evenly_among_them() -> None:
    assert list(compared(5)) == [0, 1, 2, 3, 4]
    assert len(compared(10_000)) <= LIKE
    states_RD = torch.randn(2 * LIKE + 1, 3, generator=torch.Generator().manual_seed(0))
    assert float(likeness(states_RD, states_RD)[1]) == len(compared(len(states_RD))) ** 2
