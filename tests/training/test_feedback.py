"""A small radio: songs are played, skipped, liked, handed back."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation.config import ModelConfig, RepeatConfig, Switch
from foundation.embedding import item_content
from foundation.learning import losses
from foundation.lesson import Lesson, Objectives
from foundation.model import FoundationModel
from foundation.repeat import FIRST_ITEM
from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer
from training.baselines import personal_count
from training.data import Position, Sampling, lessons, make_lesson
from training.errors import TrainingError
from training.feedback import Feedback, feedback_of
from training.holdout import Columns, hold_out
from training.negatives import Draws
from training.training_set import Until, facet_configs, item_config, read_training_set, recency

HOUR = 3_600.0
FEEDBACK = {"skip": 0.0, "back": 0.0, "like": 2.5}
RADIO: dict[str, Any] = {
    "schema": 1,
    "name": "radio",
    "user": "listener",
    "time": {"column": "at"},
    "action": {"column": "what"},
    "entities": {"song": {"candidates": True}},
    "feedback": FEEDBACK,
    "split": {"fraction": 0.99},
}


def rows(songs: int, hours: int) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    what = ["play", "skip", "like", "back", None]
    return [
        {
            "listener": f"l{number % 8}",
            "at": HOUR * int(draw.integers(0, hours)),
            "what": what[int(draw.choice(5, p=[0.4, 0.3, 0.15, 0.1, 0.05]))],
            "song": None if draw.random() < 0.1 else f"s{draw.integers(songs)}",
        }
        for number in range(400)
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_of({}, tmp_path_factory)


def corpus_of(changes: dict[str, Any], folder: pytest.TempPathFactory, songs: int = 12, hours: int = 60) -> Corpus:
    schema = EventSchema.from_dict({**RADIO, **changes})
    log = pa.table({name: [row[name] for row in rows(songs, hours)] for name in schema.columns})
    tokenizer = Tokenizer.fit(schema, log)
    return write_corpus(folder.mktemp("radio") / "corpus", [tokenizer.transform(log)], tokenizer, {})


def config_of(corpus: Corpus) -> ModelConfig:
    return ModelConfig(
        facets=facet_configs(corpus.tokenizer),
        item=item_config(corpus.tokenizer),
        repeat=RepeatConfig((math.inf,), HOUR, width=4),
        targets=(("action", 0.1),),
        width=8,
        layers=1,
        heads=1,
        horizons=2,
    )


def lesson_of(corpus: Corpus, feedback: Feedback | None = None) -> Lesson:
    """Everything that can be asked; few negatives."""
    config = config_of(corpus)
    training_set = read_training_set(corpus, config, Until.END)
    training_set = replace(training_set, feedback=feedback or training_set.feedback)
    sampling, draw = Sampling(tokens=10**6, requests=10**6, negatives=4, context_dropout=0.0), np.random.default_rng(0)
    negatives = Draws.of(training_set.count_V, sampling.negative_power).negatives(sampling.negatives, draw)
    objectives = Objectives(future=1.0)
    return make_lesson(training_set, config, sampling, training_set.trainable, negatives, draw, objectives)


def model_of(corpus: Corpus) -> FoundationModel:
    torch.manual_seed(0)
    items = corpus.tokenizer.items
    return FoundationModel(config_of(corpus), item_content(items, torch.from_numpy(items.count).float()))


def test_a_token_is_worth_what_its_action_is(corpus: Corpus) -> None:
    actions = ["", "", *corpus.tokenizer.vocabularies["action"].ids.to_pylist()]
    lesson = lesson_of(corpus)
    for target in (*lesson.targets, lesson.future):
        assert len(target.reward_E)
    now = lesson.targets[0]
    expected = [FEEDBACK.get(actions[code], 1.0) for code in now.facet_EF[:, 0].tolist()]
    assert now.reward_E.tolist() == expected
    assert {0.0, 1.0, 2.5} == set(expected)


def test_of_merged_events_the_one_that_says_most_counts(tmp_path_factory: pytest.TempPathFactory) -> None:
    merge = {"pairs": {"number": 6, "within": "1d"}}
    corpus = corpus_of({"merge": merge}, tmp_path_factory, songs=2, hours=1000)
    facets = [facet.name for facet in corpus.tokenizer.facets]
    tokens = corpus.tokens()
    columns = [np.concatenate([np.asarray(row, int) for row in tokens[name].to_pylist()]) for name in facets]
    names = ["", "", *corpus.tokenizer.vocabularies["action"].ids.to_pylist()]
    expected = []
    for token in np.stack(columns, axis=1).tolist():
        done = [names[code] for name, code in zip(facets, token, strict=True) if name.startswith("actions.") and code]
        expected.append(max([FEEDBACK.get(name, 1.0) for name in done], default=1.0))
    feedback = feedback_of(corpus.tokenizer, facets)
    assert feedback.rewards(torch.from_numpy(np.stack(columns, axis=1))).tolist() == expected
    several = np.stack(columns, axis=1)[:, facets.index("actions.1")] > 0
    assert several.any()
    assert 0.0 in expected


def test_without_feedback_or_for_an_unknown_action_everything_counts_once(corpus: Corpus) -> None:
    codes = torch.tensor([[2, 3], [0, 0]])
    assert Feedback().rewards(codes).tolist() == [1.0, 1.0]
    feedback = feedback_of(corpus.tokenizer, ["action", "song"])
    assert feedback.rewards(torch.tensor([[0, 5], [1, 5], [99, 5]])).tolist() == [1.0, 1.0, 1.0]


def test_an_action_that_is_misspelt_is_refused(corpus: Corpus) -> None:
    schema = corpus.tokenizer.schema.model_copy(update={"feedback": {"skipp": 0.0}})
    with pytest.raises(TrainingError, match=r"feedback: no action is called 'skipp'; did you mean 'skip'\?"):
        feedback_of(replace(corpus.tokenizer, schema=schema), ["action"])


def test_no_interest_is_no_target_of_items_but_goes_on_to_be_one_of_actions(corpus: Corpus) -> None:
    model, lesson = model_of(corpus), lesson_of(corpus)
    alike = lesson_of(corpus, Feedback())
    found, before = (
        {loss.name: loss for loss in losses(model, one, Objectives(future=1.0))} for one in (lesson, alike)
    )
    for name, target in (
        ("next", lesson.targets[0]),
        ("embedding", lesson.targets[0]),
        ("next_2", lesson.targets[1]),
        ("future", lesson.future),
    ):
        weight = (target.weight_E * target.reward_E * (target.item_E >= 2)).sum()
        torch.testing.assert_close(found[name].weight, weight)
    assert all(torch.equal(found[name].total, before[name].total) for name in ("action", "action_2"))
    # Whatever item met no interest, no loss is another; so it is the target of none.
    other = tuple(
        replace(t, item_E=torch.where((t.reward_E == 0) & (t.item_E >= 2), 5, t.item_E)) for t in lesson.targets
    )
    assert not torch.equal(other[0].item_E, lesson.targets[0].item_E)
    for loss in losses(model, replace(lesson, targets=other), Objectives(future=1.0)):
        torch.testing.assert_close(loss.total, found[loss.name].total)


def test_what_was_shown_in_vain_competes_once_by_its_weight(corpus: Corpus) -> None:
    """The embedding loss beside a loop over each request's own denominator."""
    model, lesson = model_of(corpus), lesson_of(corpus)
    states = model(lesson.batch, lesson.requests)
    logit_RV = (model.user_vectors(states) @ model.item_vectors().T).detach()
    own = set(zip(states.own.request_P.tolist(), states.own.code_P.tolist(), strict=True))
    now = lesson.targets[0]
    events = list(
        zip(*(getattr(now, n).tolist() for n in ("request_E", "item_E", "weight_E", "reward_E")), strict=True)
    )
    chance = dict(zip(lesson.negatives.code_M.tolist(), lesson.negatives.log_expected_M.exp().tolist(), strict=True))
    found = []
    for impressions in (0.0, 1.0, 0.5):
        total = 0.0
        for request in range(len(lesson.requests)):
            liked = {item for row, item, _, reward in events if row == request and item >= 2 and reward > 0}
            vain = {item for row, item, _, reward in events if row == request and item >= 2 and reward == 0}
            weight = {item: 1 / share for item, share in chance.items()}
            weight |= {item: impressions for item in vain if impressions}
            weight |= dict.fromkeys(liked, 1.0) | {item: 1.0 for row, item in own if row == request}
            bottom = sum(float(logit_RV[request, item].exp()) * w for item, w in weight.items())
            for row, item, w, reward in events:
                if row == request and item >= 2:
                    total += w * reward * (math.log(bottom) - float(logit_RV[request, item]))
        loss = {one.name: one for one in losses(model, lesson, Objectives(impressions=impressions))}["embedding"]
        assert float(loss.total.detach()) == pytest.approx(total, rel=1e-4)
        found.append(total)
    assert found[0] < found[2] < found[1]


def test_what_met_no_interest_is_no_truth_but_stays_in_the_history(tmp_path_factory: pytest.TempPathFactory) -> None:
    corpus = corpus_of({"split": {"last_items": 2}}, tmp_path_factory)
    tokens = corpus.tokens()
    held = hold_out(tokens, Columns.of(corpus.tokenizer), corpus.split)
    names = corpus.tokenizer.vocabularies["action"].ids.to_pylist()
    vain = {names.index(name) + FIRST_ITEM for name in ("skip", "back")}
    left_out = 0
    for place, row in enumerate(held.asked.row.tolist()):
        user = tokens.slice(row, 1).to_pylist()[0]
        target = user["group"][held.asked.known[place]]
        met = [
            (song, what in vain)
            for song, what, group in zip(user["song"], user["action"], user["group"], strict=True)
            if group == target and song >= FIRST_ITEM
        ]
        truth = held.truth.codes[held.truth.offsets[place] : held.truth.offsets[place + 1]]
        assert set(truth.tolist()) == {song for song, in_vain in met if not in_vain}
        left_out += sum(in_vain for _, in_vain in met)
        history = user["song"][: held.asked.known[place]]
        seen = held.seen.codes[held.seen.offsets[place] : held.seen.offsets[place + 1]]
        assert set(seen.tolist()) == {song for song in history if song >= FIRST_ITEM}
    assert left_out


def test_without_feedback_every_event_counts_alike(corpus: Corpus) -> None:
    training_set, config = read_training_set(corpus, config_of(corpus), Until.END), config_of(corpus)
    found = [
        next(lessons(training_set, config, Sampling(), 3, Position(), objectives=Objectives(feedback=feedback)))[1]
        for feedback in Switch
    ]
    assert {float(weight) for weight in found[0].targets[0].reward_E.unique()} == {0.0, 1.0, 2.5}
    assert {float(weight) for weight in found[1].targets[0].reward_E.unique()} == {1.0}


def test_what_met_no_interest_makes_nothing_popular(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of the counts that a model starts from, of the baselines' and of personal ones, beside a loop over the log."""
    corpus = corpus_of({"split": {"last_items": 1}}, tmp_path_factory)
    names = corpus.tokenizer.vocabularies["action"].ids.to_pylist()
    vain = {names.index(name) + FIRST_ITEM for name in ("skip", "back")}
    columns = Columns.of(corpus.tokenizer)
    held = hold_out(corpus.tokens(), columns, corpus.split)
    requests = held.requests(0, len(held))
    personal = personal_count(np.zeros(len(corpus.tokenizer.items)), columns)(requests)
    for user, row in enumerate(requests.history.to_pylist()):
        liked = {song for song, what in zip(row["song"], row["action"], strict=True) if what not in vain and song >= 2}
        # Whatever was only ever skipped ranks with what was never met.
        assert set(np.flatnonzero(personal[user] >= 1).tolist()) == liked
    met = Counter(
        (number, song, time)
        for number, row in enumerate(corpus.tokens().to_pylist())
        for song, what, time in zip(row["song"], row["action"], row["time"], strict=True)
        if what in vain and song >= 2
    )
    before = [hold_out(corpus.tokens(), by, corpus.split).before for by in (Columns("song"), columns)]
    everything, interesting = (
        Counter(zip(b.row.tolist(), b.item.tolist(), b.time.tolist(), strict=True)) for b in before
    )
    assert everything - interesting == met & everything != Counter()
    training_set = read_training_set(corpus, config_of(corpus))
    whole = recency(replace(training_set, feedback=Feedback()))
    reward_T = training_set.feedback.rewards(training_set.events.facet_TF)
    torch.testing.assert_close(recency(training_set), whole * reward_T)
    assert {0.0, 1.0, 2.5} == set(reward_T.tolist())
