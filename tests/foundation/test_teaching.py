"""What a larger model teaches: its scores, its stored vectors, who is like whom; and nothing of it stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foundation.config import ModelConfig, Switch
from foundation.embedding import item_content
from foundation.errors import ModelError
from foundation.foretold import loss_weights
from foundation.item_age import Hidden
from foundation.jagged import EventBatch, Requests
from foundation.learning import losses
from foundation.lesson import Lesson, Loss, Objectives
from foundation.model import FoundationModel
from foundation.objectives.targets import Negatives, Targets
from foundation.repeat import FIRST_ITEM
from foundation.teaching import Teaching, check_teaching
from tokenization.corpus.corpus import Corpus


@pytest.fixture(scope="module")
def lesson(config: ModelConfig, batch: EventBatch, asked: Requests) -> Lesson:
    """Some requests over all histories, with any items as targets; every item is a negative, drawn exactly once."""
    some = torch.arange(0, len(asked), 60)
    requests = Requests(asked.user_R[some], asked.end_R[some], asked.time_R[some], asked.context_RC[some])
    number, codes = len(some), torch.arange(FIRST_ITEM, config.item.codes)
    facets = torch.zeros(number, len(config.targets), dtype=torch.int64)
    target = Targets(torch.arange(number), codes[:number], facets, torch.ones(number), torch.ones(number))
    return Lesson(batch, requests, (target,) * config.horizons, Negatives(codes, torch.zeros(len(codes))))


@pytest.fixture(scope="module")
def teacher(config: ModelConfig, kiosk_corpus: Corpus) -> FoundationModel:
    """Twice as wide and deep as its students, with weights of its own everywhere."""
    return drawn(replace(config, width=2 * config.width, layers=4), kiosk_corpus, 1)


@pytest.fixture(scope="module")
def student(config: ModelConfig, kiosk_corpus: Corpus) -> FoundationModel:
    return drawn(replace(config, layers=2), kiosk_corpus, 2)


def drawn(config: ModelConfig, corpus: Corpus, seed: int) -> FoundationModel:
    torch.manual_seed(seed)
    model = FoundationModel(config, item_content(corpus.tokenizer.items))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) / 10)
    return model.eval()


def taught(student: FoundationModel, lesson: Lesson, teaching: Teaching) -> dict[str, Loss]:
    found = losses(student, lesson, Objectives(), teaching=teaching)
    return {loss.name: loss for loss in found if loss.name.startswith("taught")}


def divergence(told_RV: Tensor, said_RV: Tensor) -> Tensor:
    """Mean over requests of KL(told ‖ said) over the whole catalogue."""
    told_RV, said_RV = (torch.log_softmax(one_RV[:, FIRST_ITEM:], dim=1) for one_RV in (told_RV, said_RV))
    return (told_RV.exp() * (told_RV - said_RV)).sum(1).mean()


def test_over_all_items_scores_and_stored_products_are_drawn_to_the_teachers(
    student: FoundationModel, teacher: FoundationModel, lesson: Lesson
) -> None:
    found = taught(student, lesson, Teaching(teacher))
    scores, products = [], []
    for model in (teacher, student):
        states, item_VD = model(lesson.batch, lesson.requests), model.item_vectors()
        scores.append(model.scores(states, item_VD))
        products.append(model.user_vectors(states) @ item_VD.T)
    for name, said in (("taught", scores), ("taught_embedding", products)):
        torch.testing.assert_close(found[name].total / found[name].weight, divergence(*said), rtol=1e-3, atol=1e-4)


def test_a_model_has_nothing_to_learn_of_itself(student: FoundationModel, lesson: Lesson, kiosk_corpus: Corpus) -> None:
    twin = drawn(student.config, kiosk_corpus, 2)
    for name, loss in taught(student, lesson, Teaching(twin)).items():
        assert float(loss.total.detach()) == pytest.approx(0, abs=1e-3), name


def test_each_share_brings_its_own_losses_and_none_brings_none(
    student: FoundationModel, teacher: FoundationModel, lesson: Lesson
) -> None:
    names = {"logits": {"taught", "taught_embedding"}, "states": {"taught_states"}, "layers": {"taught_layer_1"}}
    for share, expected in names.items():
        teaching = Teaching(teacher, **{**dict.fromkeys(names, 0.0), share: 0.5})
        found = taught(student, lesson, teaching)
        assert set(found) == expected
        assert {loss.share for loss in found.values()} == {0.5}


def test_an_earlier_layer_learns_of_the_one_that_stands_as_deep(teacher: FoundationModel) -> None:
    teaching = Teaching(teacher)  # of four layers
    assert [teaching.depth(depth, 2) for depth in (1, 2)] == [2, 4]
    assert [teaching.depth(depth, 8) for depth in (1, 4, 8)] == [1, 2, 4]


def test_the_teacher_sees_what_is_hidden_from_the_student_and_learns_nothing(
    student: FoundationModel, lesson: Lesson, kiosk_corpus: Corpus
) -> None:
    twin = drawn(student.config, kiosk_corpus, 2)
    blind = replace(lesson, hidden=Hidden(torch.zeros(student.config.item.codes), torch.ones(1)))
    # Who reads what its student does not is no longer of one mind with it.
    found = taught(student, blind, Teaching(twin))["taught"]
    assert float((found.total / found.weight).detach()) > 1e-2
    found.total.backward()
    assert all(weight.grad is None and not weight.requires_grad for weight in twin.parameters())
    assert student.tower.id.weight.grad is not None
    student.zero_grad()


def test_every_loss_weighs_what_was_foretold(
    student: FoundationModel, teacher: FoundationModel, lesson: Lesson
) -> None:
    teaching = Teaching(teacher)
    expected = {loss.name: float(loss.weight) for loss in losses(student, lesson, Objectives(), teaching=teaching)}
    found = {name: float(one) for name, one in loss_weights(student, lesson, Objectives(), teaching).items()}
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_student_that_reads_something_else_is_refused(config: ModelConfig, kiosk_corpus: Corpus) -> None:
    teaching = Teaching(drawn(replace(config, layers=1), kiosk_corpus, 0))
    with pytest.raises(ModelError, match="teacher and student differ in `repeat_path`"):
        check_teaching(teaching, replace(config, repeat_path=Switch.OFF))
    with pytest.raises(ModelError, match="a teacher of one layer has no earlier one to teach"):
        check_teaching(teaching, replace(config, layers=2))
    check_teaching(teaching, replace(config, layers=1, width=4, heads=1))
