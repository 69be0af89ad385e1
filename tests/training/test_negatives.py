"""Proposals beside what is really drawn; lessons whose targets are negatives of one another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundation.config import Switch
from foundation.learning import losses
from foundation.lesson import Lesson, Objectives
from foundation.objectives.contests import wanted
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.data import Position, Sampling, batch_proposal, batches, lessons, make_lesson
from training.negatives import Draws, Proposal, among_batch, whole_catalogue
from training.recipes import Recipe
from training.training_set import TrainingSet, in_windows

IN_BATCH = Objectives(in_batch=Switch.ON)


def stream(
    training_set: TrainingSet,
    recipe: Recipe,
    objectives: Objectives,
    start: Position | None = None,
    rank: int = 0,
    ranks: int = 2,
) -> Iterator[tuple[Position, Lesson]]:
    start = start or Position()
    return lessons(training_set, recipe.model, recipe.sampling, recipe.seed, start, rank, ranks, objectives)


@given(st.lists(st.integers(0, 50), min_size=3, max_size=30), st.integers(1, 40), st.integers(0, 1000))
def test_the_chances_of_drawn_items_are_those_of_the_proposal(counts: list[int], number: int, seed: int) -> None:
    count_V = np.array([0.0, 0.0, 1.0, *counts])
    found = Draws.of(count_V, 0.75).negatives(number, np.random.default_rng(seed))
    same = Proposal.of_draws(count_V, number, 0.75).negatives(found.code_M.numpy())
    assert torch.equal(found.code_M, same.code_M)
    torch.testing.assert_close(found.log_expected_M, same.log_expected_M)


@pytest.mark.parametrize("tokens", [16, 60])  # with windows of long histories, and without
def test_an_item_is_among_the_targets_of_a_batch_as_often_as_counted(
    training_set: TrainingSet, recipe: Recipe, tokens: int
) -> None:
    sampling = replace(recipe.sampling, tokens=tokens, requests=2)
    cut = in_windows(training_set, tokens)
    proposal = batch_proposal(cut, recipe.model, sampling, recipe.seed)
    draw = np.random.default_rng(0)
    negatives = Draws.of(training_set.count_V, sampling.negative_power).negatives(sampling.negatives, draw)
    there, seen = 0, np.zeros(len(training_set.count_V))
    for epoch in range(40):
        for rows in batches(cut, sampling, recipe.seed, epoch):
            lesson = make_lesson(cut, recipe.model, sampling, rows, negatives, draw)
            seen[np.unique(wanted(lesson.targets[0]).item_E.numpy())] += 1
            there += 1
    error = np.sqrt(proposal.asked_V * (1 - proposal.asked_V) / there)
    assert (proposal.asked_V[seen > 0] > 0).all()
    # Rows of like length stand together more often than by chance, which is not counted.
    assert (np.abs(seen / there - proposal.asked_V) <= 4 * error + 0.02).all()


def test_targets_of_a_batch_are_negatives_by_draws_or_by_the_batch(training_set: TrainingSet, recipe: Recipe) -> None:
    proposal = batch_proposal(training_set, recipe.model, recipe.sampling, recipe.seed)
    plain = itertools.islice(stream(training_set, recipe, Objectives()), 4)
    mixed = itertools.islice(stream(training_set, recipe, IN_BATCH), 4)
    for (_, one), (_, other) in zip(plain, mixed, strict=True):
        asked = set(wanted(one.targets[0]).item_E.tolist())
        assert set(other.negatives.code_M.tolist()) == asked | set(one.negatives.code_M.tolist())
        assert asked - set(one.negatives.code_M.tolist())
        code = other.negatives.code_M.numpy()
        expected = proposal.drawn_V[code] + proposal.asked_V[code] - proposal.drawn_V[code] * proposal.asked_V[code]
        np.testing.assert_allclose(other.negatives.log_expected_M.exp().numpy(), expected, rtol=1e-5)


def test_the_mixed_denominator_is_right_on_average(training_set: TrainingSet, recipe: Recipe) -> None:
    """Σ of anything over the negatives ÷ their chance, over all batches (Horvitz & Thompson, JASA 1952)."""
    value_V = np.random.default_rng(1).random(len(training_set.count_V)) * (training_set.count_V > 0)
    few = replace(recipe, sampling=replace(recipe.sampling, negatives=6))
    epochs = 30 * len(batches(training_set, few.sampling, few.seed, 0))
    drawn_from = itertools.islice(stream(training_set, few, IN_BATCH, ranks=1), epochs)
    found = [
        float((value_V[lesson.negatives.code_M] / np.exp(lesson.negatives.log_expected_M.numpy())).sum())
        for _, lesson in drawn_from
    ]
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(value_V.sum(), abs=4 * error)
    assert error < 0.05 * value_V.sum()


def test_a_request_is_never_its_own_negative(kiosk_corpus: Corpus, training_set: TrainingSet, recipe: Recipe) -> None:
    """Where its own targets and items are all the negatives there are, it is as if there were none."""
    model = initial_model(training_set, kiosk_corpus, recipe)
    _, lesson = next(stream(training_set, recipe, IN_BATCH))
    row = int(lesson.targets[0].request_E[0])
    target = lesson.targets[0].picked(lesson.targets[0].request_E == row)
    states = model(lesson.batch, lesson.requests)
    own = torch.cat([wanted(target).item_E, states.own.code_P[states.own.request_P == row]]).unique().numpy()
    certain = Proposal(np.ones(len(training_set.count_V)), np.zeros(len(training_set.count_V)))
    alone = replace(lesson, targets=(target, target.picked(target.request_E < 0)))
    one, other = (
        {
            loss.name: loss.total
            for loss in losses(model, replace(alone, negatives=certain.negatives(code)), Objectives())
        }
        for code in (own, own[:0])
    )
    assert float(one["next"].detach()) > 0
    torch.testing.assert_close(one, other)


def test_a_stream_resumes_with_the_same_proposal(training_set: TrainingSet, recipe: Recipe) -> None:
    per_epoch = len(batches(training_set, recipe.sampling, recipe.seed, 0)) // 2
    straight = list(itertools.islice(stream(training_set, recipe, IN_BATCH), 2 * per_epoch + 1))
    assert straight[-1][0].epoch == 2
    for (position, _), (_, lesson) in itertools.pairwise(straight[-4:]):
        _, again = next(stream(training_set, recipe, IN_BATCH, position))
        assert torch.equal(again.negatives.code_M, lesson.negatives.code_M)
        assert torch.equal(again.negatives.log_expected_M, lesson.negatives.log_expected_M)


def test_a_lesson_has_the_negatives_of_its_own_batch_whatever_rank_it_is_of(
    training_set: TrainingSet, recipe: Recipe
) -> None:
    """A step of two ranks is two lessons; each is what it would be for any other rank that gets its batch."""
    for rank in range(2):
        _, lesson = next(stream(training_set, recipe, IN_BATCH, rank=rank))
        asked = wanted(lesson.targets[0]).item_E
        assert torch.isin(asked, lesson.negatives.code_M).all()
        drawn_only = next(stream(training_set, recipe, Objectives(), rank=rank))[1].negatives
        proposal = batch_proposal(training_set, recipe.model, recipe.sampling, recipe.seed)
        again = among_batch(drawn_only, lesson.targets[0], proposal)
        assert torch.equal(again.log_expected_M, lesson.negatives.log_expected_M)


def test_a_small_catalogue_is_its_own_negatives(training_set: TrainingSet, recipe: Recipe) -> None:
    met = int((training_set.count_V > 0).sum())
    _, all_of_them = next(stream(training_set, recipe, Objectives(full_below=met, in_batch=Switch.ON)))
    _, sampled = next(stream(training_set, recipe, Objectives(full_below=met - 1)))
    everything = whole_catalogue(training_set.count_V)
    assert torch.equal(all_of_them.negatives.code_M, everything.code_M)
    assert not all_of_them.negatives.log_expected_M.any()
    assert len(everything) == met > len(sampled.negatives)
    assert int(everything.code_M.min()) >= 2


def test_single_draws_are_as_likely_as_their_share() -> None:
    proposal = Proposal.of_draws(np.array([0.0, 0.0, 1.0, 3.0]), 1, 1.0)
    np.testing.assert_allclose(proposal.drawn_V, [0, 0, 0.25, 0.75], rtol=1e-6)
    assert Sampling().negative_power == 0.75


def test_without_correction_every_negative_counts_once(training_set: TrainingSet, recipe: Recipe) -> None:
    found = []
    for logq in Switch:
        stream = lessons(training_set, recipe.model, recipe.sampling, 3, Position(), objectives=Objectives(logq=logq))
        found.append(next(stream)[1].negatives)
    assert torch.equal(found[0].code_M, found[1].code_M)
    assert found[0].log_expected_M.min() < 0
    assert not found[1].log_expected_M.any()
