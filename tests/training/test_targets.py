"""What lessons ask for, beside plain loops over overlapping sessions."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundation.config import FacetConfig, ItemConfig, ModelConfig, RepeatConfig, Switch
from foundation.jagged import EventBatch, group_offsets
from foundation.lesson import Objectives
from foundation.objectives.targets import Targets
from tests.conftest import Kiosk
from tokenization.corpus.corpus import Corpus, write_corpus
from training.data import Position, lessons, make_lesson
from training.feedback import Feedback
from training.negatives import Draws
from training.recipes import Recipe
from training.targets import begun, targets_in_window
from training.training_set import TrainingSet, read_training_set

CONFIG = ModelConfig(
    facets=(FacetConfig("item", 9, "entity"), FacetConfig("action", 4, "action")),
    item=ItemConfig("item", 9, (), 0),
    repeat=RepeatConfig((math.inf,), 1.0),
    targets=(("action", 0.1),),
)
sessions = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(0, 6), st.integers(1, 3)), min_size=1)


def batch_of(drawn: list[tuple[int, int, int, int]]) -> EventBatch:
    """Groups of (user, begin, how long it lasts, tokens), in the order in which they are complete."""
    groups = sorted(drawn, key=lambda group: (group[0], group[1] + group[2], group[1]))
    tokens = [(number, group) for number, group in enumerate(groups) for _ in range(group[3])]
    user_T = np.array([group[0] for _, group in tokens])
    columns = [[group[1] + group[2] for _, group in tokens], [group[1] for _, group in tokens]]
    time_T, begin_T = (torch.tensor(column, dtype=torch.float64) for column in columns)
    offset_B1 = torch.from_numpy(np.append(0, np.cumsum(np.bincount(user_T, minlength=3))))
    facet_TF = torch.stack([torch.arange(len(tokens)) % 7 + 2, torch.arange(len(tokens)) % 2 + 2], dim=1)
    group_T = torch.tensor([number for number, _ in tokens])
    return EventBatch(
        facet_TF,
        time_T,
        begin_T,
        torch.ones(len(tokens), dtype=torch.bool),
        group_T,
        offset_B1,
        torch.zeros(3).double(),
        torch.zeros(3, 0, dtype=torch.int64),
    )


@given(sessions, st.integers(1, 15), st.integers(1, 5))
def test_the_window_holds_the_groups_that_begin_in_it_each_by_its_age(
    drawn: list[tuple[int, int, int, int]], seconds: int, most: int
) -> None:
    batch = batch_of(drawn)
    border_G1 = group_offsets(batch)
    groups, begins = len(border_G1) - 1, batch.begin_T[border_G1[:-1]].tolist()
    owners = batch.user_T[border_G1[:-1]].tolist()
    objectives = Objectives(future=1.0, future_seconds=seconds, future_groups=most, stale_seconds=4.0)
    found = targets_in_window(batch, begun(batch, border_G1), torch.arange(groups), CONFIG, objectives, Feedback())
    expected = []
    for asked in range(groups):
        # Who began before, or together and was complete earlier, was open or over when the request was made.
        ahead = [g for g in range(groups) if owners[g] == owners[asked] and (begins[g], g) >= (begins[asked], asked)]
        for group in sorted(ahead, key=lambda g: (begins[g], g))[:most]:
            wait = begins[group] - begins[asked]
            lines = range(int(border_G1[group]), int(border_G1[group + 1]))
            if wait <= seconds:
                expected += [
                    (asked, int(batch.facet_TF[t, 0]), 0.5 ** (wait / 4) / math.sqrt(len(lines))) for t in lines
                ]
    assert list(zip(found.request_E.tolist(), found.item_E.tolist(), strict=True)) == [one[:2] for one in expected]
    assert found.weight_E.tolist() == pytest.approx([weight for *_, weight in expected])


def window_of(training_set: TrainingSet, recipe: Recipe, objectives: Objectives) -> Targets:
    sampling = replace(recipe.sampling, requests=100)
    draw = np.random.default_rng(0)
    negatives = Draws.of(training_set.count_V, 0.75).negatives(2048, draw)
    return make_lesson(training_set, recipe.model, sampling, training_set.trainable, negatives, draw, objectives).future


def test_a_window_of_an_instant_asks_for_what_the_first_horizon_does(training_set: TrainingSet, recipe: Recipe) -> None:
    draw = np.random.default_rng(0)
    negatives = Draws.of(training_set.count_V, 0.75).negatives(2048, draw)
    objectives = Objectives(future=1.0, future_seconds=1.0)
    lesson = make_lesson(
        training_set, recipe.model, recipe.sampling, training_set.trainable, negatives, draw, objectives
    )
    for name in ("request_E", "item_E", "weight_E"):
        assert torch.equal(getattr(lesson.future, name), getattr(lesson.targets[0], name))


def test_a_longer_window_asks_for_more_and_nothing_where_it_is_not_learned(
    training_set: TrainingSet, recipe: Recipe
) -> None:
    lengths = [
        len(window_of(training_set, recipe, Objectives(future=share, future_seconds=days * 86_400.0)).item_E)
        for share, days in ((0.0, 40), (1.0, 1), (1.0, 20), (1.0, 40))
    ]
    assert lengths[0] == 0
    assert lengths == sorted(set(lengths))


def test_no_window_and_no_proposal_reaches_into_what_is_held_out(
    kiosk: Kiosk, kiosk_corpus: Corpus, training_set: TrainingSet, recipe: Recipe, tmp_path: Path
) -> None:
    held = pa.array(np.array(kiosk.events["time"]) >= kiosk_corpus.split.validation)
    article = kiosk.events["article"].combine_chunks()
    other_articles = pc.if_else(pc.and_(held, pc.is_valid(article)), 101, article)
    changed = kiosk.events.set_column(kiosk.events.schema.get_field_index("article"), "article", other_articles)
    tokens = kiosk_corpus.tokenizer.transform(changed)
    other = read_training_set(write_corpus(tmp_path / "corpus", [tokens], kiosk_corpus.tokenizer, {}), recipe.model)
    objectives = Objectives(future=1.0, future_seconds=1e9, future_groups=100, in_batch=Switch.ON)
    one, two = (
        next(lessons(found, recipe.model, recipe.sampling, recipe.seed, Position(), objectives=objectives))[1]
        for found in (training_set, other)
    )
    assert len(one.future.item_E) > len(one.targets[0].item_E)
    for field in fields(Targets):
        assert torch.equal(getattr(one.future, field.name), getattr(two.future, field.name))
    assert torch.equal(one.negatives.log_expected_M, two.negatives.log_expected_M)
