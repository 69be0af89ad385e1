from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foundation.objectives.contests import Contest, Vectors
from foundation.objectives.distillation import contest_divergence
from foundation.objectives.targets import Negatives, Targets, shown

REQUESTS, ITEMS, WIDTH = 5, 20, 4


def contest_of(own: set[tuple[int, int]], number: int) -> Contest:
    row_E, item_E = torch.tensor([0, 0, 2]), torch.tensor([3, 5, 19])
    mine = torch.tensor(sorted(own), dtype=torch.int64).view(-1, 2)
    pairs = shown((mine[:, 0], mine[:, 1]), (row_E, item_E), ITEMS)
    ones = torch.ones(3)
    target = Targets(row_E, item_E, torch.zeros(3, 0, dtype=torch.int64), ones, ones)
    log_expected_M = -torch.rand(number, generator=torch.Generator().manual_seed(number))
    return Contest(target, pairs, pairs.code_A, Negatives(torch.arange(number), log_expected_M))


def drawn(seed: int) -> tuple[Tensor, Tensor, Vectors]:
    draw = torch.Generator().manual_seed(seed)
    teacher_RD, student_RD = (torch.randn(REQUESTS, WIDTH, generator=draw).requires_grad_() for _ in range(2))
    item_ND = torch.randn(ITEMS, WIDTH, generator=draw).requires_grad_()
    popularity_N = torch.randn(ITEMS, generator=draw)
    return teacher_RD, student_RD, Vectors(item_ND, popularity_N, torch.zeros(ITEMS, 0, dtype=torch.int64))


def plain(teacher_RD: Tensor, student_RD: Tensor, among: Vectors, contest: Contest) -> Tensor:
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
            among.item_ND[code_C] @ state_RD[row] + among.popularity_N[code_C] + weight_C
            for state_RD in (teacher_RD, student_RD)
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
    teacher_RD, student_RD, among = drawn(number)
    contest = contest_of(own, number)
    found, requests = contest_divergence(teacher_RD, student_RD, among, contest, chunk)
    expected = plain(teacher_RD, student_RD, among, contest)
    assert requests == REQUESTS
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert float(found.detach()) >= -1e-5
    if own or number:
        gradients = [torch.autograd.grad(one, [student_RD, among.item_ND]) for one in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_the_teacher_learns_nothing_and_one_who_agrees_diverges_by_nothing() -> None:
    teacher_RD, student_RD, among = drawn(0)
    contest = contest_of({(1, 4)}, 12)
    found, _ = contest_divergence(teacher_RD, student_RD, among, contest)
    assert torch.autograd.grad(found, teacher_RD, allow_unused=True) == (None,)
    assert float(found.detach()) > 0.1
    same, _ = contest_divergence(teacher_RD, teacher_RD.detach().clone(), among, contest)
    torch.testing.assert_close(same, torch.zeros(()), atol=1e-5, rtol=0)
