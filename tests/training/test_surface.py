"""One surface of a log is asked for, while everything is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from foundation.lesson import Lesson
from tokenization.corpus.corpus import Corpus
from training.data import Position, lessons
from training.errors import TrainingError
from training.holdout import Columns, Part, hold_out
from training.recipes import Recipe
from training.surface import Surface, surface_of
from training.training_set import TrainingSet, surfaced


@pytest.fixture(scope="session")
def surface(kiosk_corpus: Corpus) -> Surface:
    return surface_of("store=s1", kiosk_corpus.tokenizer)


def lessons_of(training_set: TrainingSet, recipe: Recipe) -> Iterator[Lesson]:
    sampling = replace(recipe.sampling, context_dropout=0.0, requests=100)
    found = lessons(training_set, recipe.model, sampling, 0, Position(), objectives=recipe.objectives)
    return (lesson for _, lesson in islice(found, 12))


def test_only_requests_of_the_surface_are_asked_for_and_all_of_them(
    training_set: TrainingSet, recipe: Recipe, surface: Surface
) -> None:
    place = [facet.name for facet in recipe.model.context].index("store")
    # One batch of everybody is one pass.
    whole = replace(recipe, sampling=replace(recipe.sampling, tokens=10**6))
    everything = next(lessons_of(training_set, whole))
    some = next(lessons_of(surfaced(training_set, surface), whole))
    stores = everything.requests.context_RC[:, place]
    assert set(some.requests.context_RC[:, place].tolist()) == set(surface.codes)
    assert 0 < len(some.requests) == int((stores == surface.codes[0]).sum()) < len(everything.requests)


def test_histories_stay_whole(training_set: TrainingSet, recipe: Recipe, surface: Surface) -> None:
    column = recipe.model.facet_names.index("store")
    for lesson in lessons_of(surfaced(training_set, surface), recipe):
        assert set(lesson.batch.facet_TF[:, column].tolist()) > set(surface.codes)


def test_several_values_are_one_surface(kiosk_corpus: Corpus) -> None:
    both = surface_of("store=s0,s2", kiosk_corpus.tokenizer)
    assert len(both.codes) == 2
    assert str(both) == "store=s0,s2"
    assert both.has(np.array([0, 1, *both.codes])).tolist() == [False, False, True, True]


def test_each_user_is_judged_by_the_first_group_of_the_surface(kiosk_corpus: Corpus, surface: Surface) -> None:
    tokenizer, tokens, split = kiosk_corpus.tokenizer, kiosk_corpus.tokens(), kiosk_corpus.split
    place = [facet.name for facet in tokenizer.context_facets].index("store")
    everything = hold_out(tokens, Columns.of(tokenizer), split, Part.VALIDATION)
    some = hold_out(tokens, Columns.of(tokenizer, surface), split, Part.VALIDATION)
    assert set(some.asked.context[:, place].tolist()) == set(surface.codes)
    # Whoever comes to the surface first is asked for the same; others later than without it, or not at all.
    first = dict(zip(everything.user_ids.to_pylist(), everything.asked.at.tolist(), strict=True))
    moments = dict(zip(some.user_ids.to_pylist(), some.asked.at.tolist(), strict=True))
    assert all(moment >= first[user] for user, moment in moments.items())
    assert 0 < len(some) < len(everything)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("store", "'store' is no surface: write a context facet and a value, such as store=367"),
        ("shop=s1", "no context facet with values of its own is called 'shop'"),
        ("quantity=3", "no context facet with values of its own is called 'quantity'"),
        ("store=s11", "the log has no store 's11' before its split; did you mean 's1'"),
        ("store=Paris", "the log has no store 'Paris' before its split; values are s[0-2], s[0-2], s[0-2]$"),
    ],
)
def test_what_is_no_surface_is_a_sentence_with_the_nearest(kiosk_corpus: Corpus, text: str, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        surface_of(text, kiosk_corpus.tokenizer)


def test_a_surface_that_nobody_comes_to_twice_is_a_sentence(training_set: TrainingSet, surface: Surface) -> None:
    with pytest.raises(TrainingError, match="nobody comes to store=s1 after anything else"):
        surfaced(training_set, replace(surface, codes=(999,)))
