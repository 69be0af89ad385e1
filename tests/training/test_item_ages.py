"""Ages as a log tells them: first meetings, releases, what was there before the log began, and the cold rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from foundation.item_age import NEVER, UNKNOWN_AGE
from foundation.jagged import EventBatch
from tokenization.corpus.corpus import Corpus
from tokenization.tokenizer.tokenizer import Tokenizer
from training.item_ages import LATELY, cold_rate, first_meetings, item_ages
from training.recipes import Recipe
from training.training_set import TrainingSet, recent_counts


def plain_firsts(events: EventBatch, column: int) -> dict[int, float]:
    found: dict[int, float] = {}
    time_T = events.time_T + events.start_B[events.user_T]
    for code, time in zip(events.facet_TF[:, column].tolist(), time_T.tolist(), strict=True):
        if code > 1:
            found[code] = min(found.get(code, np.inf), time)
    return found


def with_first_seen(tokenizer: Tokenizer, first_seen: np.ndarray) -> Tokenizer:
    items = tokenizer.items
    return replace(tokenizer, items=replace(items, ids=replace(items.ids, first_seen=first_seen)))


def test_an_item_is_met_from_its_first_meeting_by_anybody(training_set: TrainingSet, recipe: Recipe) -> None:
    column = recipe.model.item_column
    found_V = first_meetings(training_set.events, column, len(training_set.count_V))
    firsts = plain_firsts(training_set.events, column)
    assert {code: found_V[code] for code in firsts} == pytest.approx(firsts)
    assert torch.isinf(found_V).sum() == len(found_V) - len(firsts)


def test_what_was_there_when_the_log_began_has_an_unknown_age(
    training_set: TrainingSet, recipe: Recipe, kiosk_corpus: Corpus
) -> None:
    column, events = recipe.model.item_column, training_set.events
    recent_V = recent_counts(training_set, column)
    ages = item_ages(events, training_set.end, recent_V, kiosk_corpus.tokenizer, column)
    firsts = plain_firsts(events, column)
    begin = min(firsts.values())
    early = begin + LATELY * (training_set.end - begin)
    late = training_set.end - LATELY * (training_set.end - begin)
    for code in range(2, len(ages.since_V)):
        first = firsts.get(code, np.inf)
        expected = NEVER if np.isinf(first) else UNKNOWN_AGE if first < early else round(first * 1e6)
        assert int(ages.since_V[code]) == pytest.approx(expected, abs=1)
        assert bool(ages.unmet_V[code]) == (first >= late)
        assert float(ages.debut_V[code]) == pytest.approx(float(recent_V[code]) if late <= first < np.inf else 0.0)
    assert int(ages.as_of_1) == pytest.approx(training_set.end * 1e6, abs=1)


def test_a_release_before_the_first_meeting_is_where_age_counts_from(
    training_set: TrainingSet, recipe: Recipe, kiosk_corpus: Corpus
) -> None:
    column, events = recipe.model.item_column, training_set.events
    firsts = plain_firsts(events, column)
    code = min(firsts, key=lambda one: firsts[one])  # would be of unknown age
    first_seen = kiosk_corpus.tokenizer.items.ids.first_seen.copy()
    first_seen[code - 2] = firsts[code] - 1_000.0
    told = with_first_seen(kiosk_corpus.tokenizer, first_seen)
    ages = item_ages(events, training_set.end, recent_counts(training_set, column), told, column)
    assert int(ages.since_V[code]) == pytest.approx((firsts[code] - 1_000.0) * 1e6, abs=1)


def test_what_the_tokenizer_saw_after_what_is_learned_is_no_age(
    training_set: TrainingSet, recipe: Recipe, kiosk_corpus: Corpus
) -> None:
    """Fitted before the test part, the tokenizer knows of the validation part; a run that is judged there may not."""
    column, events = recipe.model.item_column, training_set.events
    code = max(plain_firsts(events, column))
    without_T = events.facet_TF[:, column] != code
    length_B = torch.bincount(events.user_T[without_T], minlength=events.users)
    offset_B1 = torch.cat([torch.zeros(1, dtype=torch.int64), length_B.cumsum(0)])
    less = events.picked(without_T, offset_B1, torch.arange(events.users))
    recent_V = recent_counts(replace(training_set, events=less), column)
    ages = item_ages(less, training_set.end, recent_V, kiosk_corpus.tokenizer, column)
    assert np.isfinite(kiosk_corpus.tokenizer.items.first_seen[code])
    assert int(ages.since_V[code]) == NEVER
    assert bool(ages.unmet_V[code])


def test_the_cold_rate_is_the_share_of_late_meetings_of_what_nobody_met_before(
    training_set: TrainingSet, recipe: Recipe
) -> None:
    column, events = recipe.model.item_column, training_set.events
    item_T = events.facet_TF[:, column]
    time_T = events.time_T + events.start_B[events.user_T]
    begin = float(time_T[item_T > 1].min())
    since = training_set.end - LATELY * (training_set.end - begin)
    before = set(item_T[(item_T > 1) & (time_T < since)].tolist())
    late = item_T[(item_T > 1) & (time_T >= since)].tolist()
    expected = np.mean([code not in before for code in late])
    assert cold_rate(events, training_set.end, column) == pytest.approx(expected)
    nothing = replace(events, facet_TF=torch.zeros_like(events.facet_TF))
    assert cold_rate(nothing, training_set.end, column) == 0.0
