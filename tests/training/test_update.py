"""Which rows an update learns, and who judges it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.conftest import DAY
from training.asking import askable
from training.errors import TrainingError
from training.gate import Verdict
from training.metrics import Interval
from training.recipes import Recipe
from training.training_set import TrainingSet
from training.update import Update, judges, news

SINCE = 60 * DAY
NOBODY = np.zeros(1_000, np.bool_)


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
    found = news(training_set, replace(update, replay=0.0), 10_000, NOBODY[: training_set.events.users], 0)
    moments = asked_moments(found)
    assert len(moments)
    assert float(moments.min()) > SINCE
    everything = asked_moments(training_set)
    assert len(moments) == int((everything > SINCE).sum())


def test_rows_of_before_are_learned_again_beside_the_news(training_set: TrainingSet, update: Update) -> None:
    rows = [
        news(training_set, replace(update, replay=share), 40, NOBODY[: training_set.events.users], 0).events.users
        for share in (0.0, 0.5, 1.0)
    ]
    assert rows[1] == pytest.approx(1.5 * rows[0], abs=1)
    assert rows[2] == pytest.approx(2 * rows[0], abs=1)
    assert rows[0] < rows[1] < rows[2]
    old = news(training_set, replace(update, replay=1.0), 40, NOBODY[: training_set.events.users], 0)
    assert (asked_moments(old) <= SINCE).any()


def test_news_of_judging_users_are_not_learned(training_set: TrainingSet, update: Update) -> None:
    held_B = NOBODY[: training_set.events.users].copy()
    held_B[::2] = True
    found = news(training_set, update, 10_000, held_B, 0)
    starts = set(training_set.events.start_B[torch.from_numpy(np.flatnonzero(~held_B))].tolist())
    assert set(found.events.start_B.tolist()) <= starts


def test_no_news_is_a_sentence(training_set: TrainingSet) -> None:
    with pytest.raises(TrainingError, match="nobody has done anything since the model was trained: append events"):
        news(training_set, Update("yesterday", 1e12), 100, NOBODY[: training_set.events.users], 0)


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
    verdict = Verdict(100, 0.2 + gap.mean, 0.2, gap, allowed=0.005)
    assert verdict.passed is passed
    assert ("may take the place" in verdict.sentence()) is passed


def test_shares_that_make_no_sense_are_a_sentence(recipe: Recipe) -> None:
    for changes, words in (({"held": 1.0}, "'held' is a share"), ({"replay": -1.0}, "'replay' must be at least 0")):
        with pytest.raises(TrainingError, match=words):
            Update("yesterday", 0.0, **changes)
