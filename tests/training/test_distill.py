"""A small model learns from a large one, on one rank and on several, and nothing of the large one stays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from foundation.pretrained import load
from tokenization.corpus.corpus import Corpus
from training.beginning import begin
from training.distill import Distillation, check_distillation, parameters, teaching_of
from training.errors import TrainingError
from training.loop import train
from training.parallel import Parallelism, Ranks, Scoring, Tables
from training.pretrain import pretrain_bare
from training.recipes import Recipe, with_overrides
from training.run import Run, start


@pytest.fixture(scope="module")
def small(trained: Run) -> Recipe:
    return with_overrides(trained.recipe, {"width": "8", "heads": "1"})


@pytest.fixture(scope="module")
def distilled(trained: Run, small: Recipe, kiosk_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("distilled") / "run"
    run = start(kiosk_corpus, folder, small, origin=Distillation(str(trained.model)))
    pretrain_bare(run)
    return run


def test_the_student_is_a_small_model_that_says_who_taught_it(distilled: Run, trained: Run) -> None:
    student, teacher = load(distilled.model), load(trained.model)
    assert student.space.lineage == ()
    assert student.model.config.width == 8
    assert parameters(distilled.model) < parameters(trained.model)
    assert f"taught by {teacher.space.id}" in student.card
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
    trained: Run, small: Recipe, kiosk_corpus: Corpus, tmp_path: Path, one_thread: None
) -> None:
    """What each loss weighs is told before it is computed; where that were wrong, the loop would stop."""
    turns = replace(small, parallelism=Parallelism(accumulate=2), epochs=1)
    run = start(kiosk_corpus, tmp_path / "run", turns, origin=Distillation(str(trained.model)))
    pretrain_bare(run)
    assert run.finished


def test_a_teacher_of_another_tokenizer_is_a_sentence(trained: Run, small: Recipe, club_corpus: Corpus) -> None:
    with pytest.raises(TrainingError, match="was trained with another tokenizer than this corpus has"):
        teaching_of(Distillation(str(trained.model)), club_corpus.tokenizer, small)


def test_what_makes_no_teaching_is_a_sentence(recipe: Recipe) -> None:
    with pytest.raises(TrainingError, match="shares must be at least 0 and one of them above"):
        Distillation("model", logits=0.0, states=0.0, layers=0.0)
    owners = replace(recipe, parallelism=Parallelism(tables=Tables.ROWS, scoring=Scoring.OWNERS))
    with pytest.raises(TrainingError, match=r"set `parallelism\.scoring=local`"):
        check_distillation(owners)
