"""Which rows an update learns, and who judges it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.conftest import DAY
from tokenization.corpus.corpus import Corpus
from training.asking import askable
from training.errors import TrainingError
from training.gate import Beside, Verdict
from training.metrics import Interval
from training.recipes import Recipe
from training.training_set import TrainingSet
from training.update import Update, gentle, judges, news, recipe_after, unjudged

SINCE = 60 * DAY


@pytest.fixture
def update() -> Update:
    return Update("yesterday", SINCE)


def asked_moments(training_set: TrainingSet) -> torch.Tensor:
    """When the groups begin that may be asked for."""
    events = training_set.events
    first_T = torch.ones(events.tokens, dtype=torch.bool)
    first_T[1:] = (events.group_T.diff() != 0) | (events.user_T.diff() != 0)
    first_G = torch.nonzero(first_T).squeeze(1)
    owner_G = events.user_T[first_G]
    kept_G = askable(events, first_G, owner_G, training_set.fresh_B)
    return (events.time_T + events.start_B[events.user_T])[first_G][kept_G]


def test_without_replay_only_news_are_asked_for(training_set: TrainingSet, update: Update) -> None:
    found = news(training_set, replace(update, replay=0.0), 10_000, 0)
    moments = asked_moments(found)
    assert len(moments)
    assert float(moments.min()) > SINCE
    everything = asked_moments(training_set)
    assert len(moments) == int((everything > SINCE).sum())


def test_rows_of_before_are_learned_again_beside_the_news(training_set: TrainingSet, update: Update) -> None:
    rows = [news(training_set, replace(update, replay=share), 40, 0).events.users for share in (0.0, 0.5, 1.0)]
    assert rows[1] == pytest.approx(1.5 * rows[0], abs=1)
    assert rows[2] == pytest.approx(2 * rows[0], abs=1)
    assert rows[0] < rows[1] < rows[2]
    old = news(training_set, replace(update, replay=1.0), 40, 0)
    assert (asked_moments(old) <= SINCE).any()


def test_news_of_judging_users_are_neither_learned_nor_counted(
    training_set: TrainingSet, recipe: Recipe, update: Update
) -> None:
    held_B = np.arange(training_set.events.users) % 2 == 0
    found = unjudged(training_set, update, held_B, recipe.model)
    moment_T = found.events.time_T + found.events.start_B[found.events.user_T]
    judging_T = torch.from_numpy(held_B)[found.events.user_T]
    assert float(moment_T[judging_T].max()) <= SINCE < float(moment_T[~judging_T].max())
    items = found.events.facet_TF[:, recipe.model.item_column]
    assert found.count_V.sum() == int((items > 1).sum()) < training_set.count_V.sum()
    asked = news(found, replace(update, replay=0.0), 10_000, 0)
    starts = set(training_set.events.start_B[torch.from_numpy(~held_B)].tolist())
    assert set(asked.events.start_B.tolist()) <= starts


def test_an_update_of_an_update_learns_at_the_same_rates(kiosk_corpus: Corpus, recipe: Recipe) -> None:
    tomorrow = recipe_after(recipe_after(recipe, kiosk_corpus, 1), kiosk_corpus, 1)
    assert gentle(tomorrow, 0.3).optimisation == gentle(recipe, 0.3).optimisation
    assert gentle(recipe, 0.3).optimisation.rate == pytest.approx(0.3 * recipe.optimisation.rate)


def test_no_news_is_a_sentence(training_set: TrainingSet) -> None:
    with pytest.raises(TrainingError, match="nobody has done anything since the model was trained: append events"):
        news(training_set, Update("yesterday", 1e12), 100, 0)


def test_the_same_users_judge_every_day() -> None:
    users = pa.array([f"c{number}" for number in range(5_000)])
    found = judges(users, 0.1)
    assert found.mean() == pytest.approx(0.1, abs=0.02)
    assert np.array_equal(judges(users.slice(1_000), 0.1), found[1_000:])
    assert (judges(users, 0.2) >= found).all()


@pytest.mark.parametrize(
    ("gap", "passed"),
    [
        (Interval(0.01, -0.01, 0.03), True),
        (Interval(-0.004, -0.01, 0.002), True),  # no more than is allowed
        (Interval(-0.004, -0.006, -0.002), False),  # and surely worse
        (Interval(-0.05, -0.2, 0.1), False),  # more than is allowed, if not surely
    ],
)
def test_a_model_is_refused_that_is_surely_worse_or_by_more_than_is_allowed(gap: Interval, passed: bool) -> None:
    verdict = Verdict(Beside(100, 0.2 + gap.mean, 0.2, gap), allowed=0.005)
    assert verdict.passed is passed
    assert ("may take the place" in verdict.sentence()) is passed


def test_shares_that_make_no_sense_are_a_sentence(recipe: Recipe) -> None:
    for changes, words in (
        ({"held": 1.0}, "'held' is a share"),
        ({"replay": -1.0}, "'replay' must be at least 0"),
        ({"rate": -1.0}, "'rate' must be at least 0"),
    ):
        with pytest.raises(TrainingError, match=words):
            Update("yesterday", 0.0, **changes)
