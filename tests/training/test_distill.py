"""A small model learns from a large one, and nothing of the large one stays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foundation.foretold import loss_weights
from foundation.learning import losses
from foundation.pretrained import load
from tokenization.corpus.corpus import Corpus
from training.beginning import begin
from training.data import Position, lessons_of_steps
from training.distill import Distillation, check_distillation, distillation_of, parameters
from training.errors import TrainingError
from training.loop import train
from training.parallel import Parallelism, Ranks, Scoring, Tables, place
from training.pretrain import pretrain_bare
from training.recipes import Recipe, with_overrides
from training.run import Run, start
from training.step import learn


@pytest.fixture(scope="module")
def small(trained: Run) -> Recipe:
    return with_overrides(trained.recipe, {"width": "8", "heads": "1"})


@pytest.fixture(scope="module")
def distilled(trained: Run, small: Recipe, kiosk_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("distilled") / "run"
    run = start(kiosk_corpus, folder, small, origin=distillation_of(trained.model))
    pretrain_bare(run)
    return run


def test_the_student_is_a_small_model_that_says_who_taught_it(distilled: Run, trained: Run) -> None:
    student, teacher = load(distilled.model), load(trained.model)
    assert student.space.lineage == ()
    assert student.model.config.width == 8
    assert parameters(distilled.model) < parameters(trained.model)
    assert f"taught by {teacher.space.origin}" in student.card
    assert Run.open(distilled.folder).origin == distilled.origin


def test_what_is_taught_is_in_the_log_of_the_run_and_falls(distilled: Run) -> None:
    records = [json.loads(line)["losses"] for line in distilled.log.read_text().splitlines()]
    for name in ("taught", "taught_embedding", "taught_states"):
        assert records[-1][name] < records[0][name], name


def test_a_student_comes_nearer_to_its_teacher_than_one_who_learns_alone(
    distilled: Run, small: Recipe, trained: Run, kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    alone = start(kiosk_corpus, tmp_path / "alone", small)
    pretrain_bare(alone)
    lessons = begin(distilled, kiosk_corpus, Ranks.alone())
    assert lessons.teaching is not None
    apart = {}
    for name, run in (("taught", distilled), ("alone", alone)):
        model, steps = load(run.model).model, list[float]()
        # Rates of next to nothing: what the losses are, over a pass.
        still = replace(small, optimisation=replace(small.optimisation, rate=1e-12, table_rate=1e-12), epochs=1)
        train(
            model,
            lessons.training_set,
            still,
            tmp_path / f"still-{name}",
            Ranks.alone(),
            lambda record, steps=steps: steps.append(record.losses["taught"]),
            teaching=lessons.teaching,
        )
        apart[name] = sum(steps) / len(steps)
    assert apart["taught"] < apart["alone"]


def test_two_lessons_in_turns_teach_what_their_sum_does(
    distilled: Run, small: Recipe, kiosk_corpus: Corpus, one_thread: None
) -> None:
    began = begin(distilled, kiosk_corpus, Ranks.alone())
    turns = replace(small, parallelism=Parallelism(accumulate=2))
    placed = place(
        began.model.train(), turns.parallelism, turns.objectives, Ranks.alone(), torch.device("cpu"), began.teaching
    )
    where = (small.model, small.sampling, small.seed, Position(), range(2), 2, small.objectives)
    _, both = next(lessons_of_steps(began.training_set, *where))
    loss, parts = learn(placed, both, turns, 0)
    in_turns = [weight.grad.to_dense().clone() for weight in placed.model.parameters() if weight.grad is not None]
    weights = [loss_weights(placed.model, lesson, small.objectives, began.teaching) for lesson in both]
    found = [losses(placed.model, lesson, small.objectives, teaching=began.teaching) for lesson in both]
    total = sum(
        one.share * sum(of[place_].total for of in found) / sum(float(of[one.name]) for of in weights)
        for place_, one in enumerate(found[0])
    )
    assert loss == pytest.approx(float(total.detach()), rel=1e-4)
    assert {"taught", "taught_embedding", "taught_states"} <= set(parts)
    learned = [weight for weight in placed.model.parameters() if weight.grad is not None]
    together = torch.autograd.grad(total, learned)
    for mine, sum_ in zip(in_turns, together, strict=True):
        torch.testing.assert_close(mine, sum_.to_dense(), rtol=1e-3, atol=1e-6)


def test_a_teacher_of_another_tokenizer_is_a_sentence(
    trained: Run, small: Recipe, club_corpus: Corpus, tmp_path: Path
) -> None:
    model = replace(small.model, attributes=())
    run = start(club_corpus, tmp_path / "run", replace(small, model=model), origin=distillation_of(trained.model))
    with pytest.raises(TrainingError, match="was trained with another tokenizer than this corpus has"):
        pretrain_bare(run)


def test_what_makes_no_teaching_is_a_sentence(recipe: Recipe) -> None:
    with pytest.raises(TrainingError, match="shares must be at least 0 and one of them above"):
        Distillation("model", "", logits=0.0, states=0.0, layers=0.0)
    owners = replace(recipe, parallelism=Parallelism(tables=Tables.ROWS, scoring=Scoring.OWNERS))
    with pytest.raises(TrainingError, match=r"set `parallelism\.scoring=local`"):
        check_distillation(Distillation("model", ""), owners)
