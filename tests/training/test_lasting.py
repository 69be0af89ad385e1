"""Sessions that last and overlap: asked for when they begin, of what was complete by then, in lessons and held out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation.config import AttentionConfig, ModelConfig, RepeatConfig
from foundation.embedding import item_content
from foundation.jagged import EventBatch, group_offsets
from foundation.lesson import Lesson
from foundation.model import FoundationModel
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.tokenizer import Tokenizer
from training.data import Sampling, make_lesson
from training.errors import EvaluationError
from training.holdout import Columns, Holdout, Part, hold_out
from training.negatives import Draws
from training.training_set import TrainingSet, Until, facet_configs, in_windows, item_config, trainable_events

DAY = 86_400.0
USERS, SESSIONS, ITEMS = 12, 9, 30
ALL = Sampling(tokens=10**6, requests=10**6, negatives=8, context_dropout=0.0)
SPLITS = [
    Split("time", 70 * DAY, 45 * DAY, None),
    Split("last_items", None, None, 2),
    Split("last_items", None, None, 1),
]


@dataclass(frozen=True)
class Event:
    """Of a session of a user, with what the beginning of a request tells (device) and what only the future does."""

    user: int
    session: int
    time: float
    item: int
    device: str
    price: float


def events_of(seed: int) -> list[Event]:
    """Sessions of up to twelve days in a hundred, so that most overlap with others; some are an instant."""
    rng = np.random.default_rng(seed)
    found = []
    for session in range(USERS * SESSIONS):
        begin = rng.integers(0, 100 * 24) * 3600.0
        later = np.sort(rng.integers(0, 12 * 24, rng.integers(0, 5))) * 3600.0 * (rng.random() < 0.8)
        for time in begin + np.append(0.0, later):
            said = "phone" if rng.random() < 0.5 else "desk"
            found.append(Event(session % USERS, session, time, int(rng.integers(ITEMS)), said, float(rng.integers(9))))
    return found


def table(events: list[Event]) -> pa.Table:
    columns = {name: [getattr(event, name) for event in events] for name in Event.__annotations__}
    return pa.table({**columns, "item": [f"i{item:02}" for item in columns["item"]]})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    declared = {
        "schema": 1,
        "name": "sessions",
        "user": "user",
        "time": {"column": "time", "unit": "s", "facets": ["hour", "gap", "tenure"]},
        "group": "session",
        "group_within": "90d",
        "entities": {"item": {"candidates": True}},
        "context": {"device": {"kind": "category"}},
        "outcome": {"price": {"kind": "number"}},
        "split": {"fraction": 0.9},
    }
    everything = [Event(0, -1, -1e6 - item, item, ("phone", "desk")[item % 2], item % 9) for item in range(ITEMS)]
    return Tokenizer.fit(EventSchema.from_dict(declared), table([*everything, *events_of(0), *events_of(1)]))


@pytest.fixture(scope="module")
def config(tokenizer: Tokenizer) -> ModelConfig:
    return ModelConfig(
        facets=facet_configs(tokenizer),
        item=item_config(tokenizer),
        repeat=RepeatConfig(half_lives=(10 * DAY, math.inf), time_unit=DAY, width=8),
        targets=(("price", 0.1),),
        width=16,
        layers=1,
        heads=2,
        attention=AttentionConfig(windows=(16,)),
        horizons=3,
    )


@pytest.fixture(scope="module")
def model(config: ModelConfig, tokenizer: Tokenizer) -> FoundationModel:
    """All weights drawn, so that no part hides behind a zero."""
    torch.manual_seed(0)
    found = FoundationModel(config, item_content(tokenizer.items, torch.ones(len(tokenizer.items))))
    with torch.no_grad():
        for weight in found.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    return found.eval()


def batch_of(events: list[Event], tokenizer: Tokenizer) -> EventBatch:
    return EventBatch.from_tokens(tokenizer.transform(table(events)), [facet.name for facet in tokenizer.facets])


def lesson_of(events: list[Event], tokenizer: Tokenizer, config: ModelConfig) -> Lesson:
    """Everything that can be asked of everybody, told its context."""
    batch = batch_of(events, tokenizer)
    counts = np.ones(len(tokenizer.items))
    training_set = TrainingSet(batch, counts, 0.0, torch.zeros(batch.users, dtype=torch.int64))
    negatives = Draws.of(counts, ALL.negative_power).negatives(ALL.negatives, np.random.default_rng(0))
    return make_lesson(training_set, config, ALL, training_set.trainable, negatives, np.random.default_rng(0))


@pytest.mark.parametrize("tokens", [3, 12, 30])
def test_windows_of_long_histories_keep_when_groups_began(
    tokenizer: Tokenizer, config: ModelConfig, tokens: int
) -> None:
    batch, counts = batch_of(events_of(0), tokenizer), np.ones(len(tokenizer.items))
    whole = TrainingSet(batch, counts, 0.0, torch.zeros(batch.users, dtype=torch.int64))
    cut = in_windows(whole, tokens)
    assert cut.events.users > batch.users
    begun = set(zip(batch.begin_T.tolist(), batch.time_T.tolist(), strict=True))
    assert set(zip(cut.events.begin_T.tolist(), cut.events.time_T.tolist(), strict=True)) == begun
    negatives = Draws.of(counts, ALL.negative_power).negatives(ALL.negatives, np.random.default_rng(0))
    lesson = make_lesson(cut, config, ALL, cut.trainable, negatives, np.random.default_rng(0))
    requests, times = lesson.requests, lesson.batch.time_T
    assert set(requests.user_R.tolist()) == set(range(len(cut.trainable)))  # in each something is asked
    first_R, last_R = (lesson.batch.offset_B1[requests.user_R + place] for place in (0, 1))
    assert (requests.end_R > first_R).all()
    assert (times[requests.end_R - 1] < requests.time_R).all()
    assert (requests.end_R < last_R).all()
    assert (times[requests.end_R] >= requests.time_R).all()


@dataclass(frozen=True)
class Session:
    """What a log says of one: those of one user that are complete at one time are one."""

    user: int
    begin: float
    end: float
    events: tuple[Event, ...]

    @property
    def items(self) -> list[int]:
        return sorted(event.item for event in self.events)


def sessions_of(events: list[Event]) -> list[Session]:
    """By user, in the order in which they begin; of those that begin together the first to be complete first."""
    ends: dict[int, float] = {}
    for event in events:
        ends[event.session] = max(event.time, ends.get(event.session, -math.inf))
    held: dict[tuple[int, float], list[Event]] = {}
    for event in events:
        held.setdefault((event.user, ends[event.session]), []).append(event)
    found = [Session(user, min(e.time for e in mine), end, tuple(mine)) for (user, end), mine in held.items()]
    return sorted(found, key=lambda session: (session.user, session.begin, session.end))


def items_by(segment: torch.Tensor, code: torch.Tensor, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    ids = tokenizer.items.ids.decode(code.numpy().astype(np.int32)).to_pylist()
    found: list[list[int]] = [[] for _ in range(count)]
    for place, name in zip(segment.tolist(), ids, strict=True):
        found[place].append(int(name[1:]))
    return [sorted(items) for items in found]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_lesson_asks_for_each_session_when_it_begins(tokenizer: Tokenizer, config: ModelConfig, seed: int) -> None:
    events = events_of(seed)
    sessions, lesson = sessions_of(events), lesson_of(events, tokenizer, config)
    batch, requests = lesson.batch, lesson.requests
    known = {
        (one.user, one.begin, one.end): [
            other for other in sessions if other.user == one.user and other.end < one.begin
        ]
        for one in sessions
    }
    asked = [one for one in sessions if known[(one.user, one.begin, one.end)]]
    assert any(len(known[(s.user, s.begin, s.end)]) < place % SESSIONS for place, s in enumerate(sessions))
    wanted = items_by(lesson.targets[0].request_E, lesson.targets[0].item_E, tokenizer, len(requests))
    at_R = requests.time_R + batch.start_B[requests.user_R]
    found = {
        (user, at, *items): row
        for row, (user, at, items) in enumerate(zip(requests.user_R.tolist(), at_R.tolist(), wanted, strict=True))
    }
    assert len(requests) == len(found) == len(asked)
    ahead = [items_by(t.request_E, t.item_E, tokenizer, len(requests)) for t in lesson.targets[1:]]
    for one in asked:
        row = found[(one.user, one.begin, *one.items)]
        before = known[(one.user, one.begin, one.end)]
        first, end = int(batch.offset_B1[one.user]), int(requests.end_R[row])
        assert end - first == sum(len(other.events) for other in before)
        times = batch.time_T[first:end] + batch.start_B[one.user]
        assert set(times.tolist()) == {other.end for other in before}
        said = {event.device for event in one.events if event.time == one.begin}
        live = tokenizer.encode_context(
            {"device": list(said) if len(said) == 1 else [None]},
            at=np.array([one.begin]),
            previous=np.array([max(times.tolist())]),
            first=batch.start_B[[one.user]].numpy(),
        )
        assert requests.context_RC[row].tolist() == live[0].tolist()
        mine = [other for other in sessions if other.user == one.user]
        next_ones = mine[mine.index(one) + 1 :]
        for horizon, items in enumerate(ahead):
            assert items[row] == (next_ones[horizon].items if horizon < len(next_ones) else [])


def changed(events: list[Event], start_of: dict[int, float], seed: int, times: bool) -> list[Event]:
    """What each user did later than a moment was something else, and (`times`) at other times after it."""
    rng = np.random.default_rng(seed)
    out = []
    for number, event in enumerate(events):
        if event.time > start_of.get(event.user, math.inf):
            said = ("phone", "desk")[rng.integers(2)]
            event = replace(event, item=int(rng.integers(ITEMS)), device=said, price=float(rng.integers(9)))
            if times:
                moved = start_of[event.user] + 60.0 * rng.integers(1, 40_000) + number / 64
                event = replace(event, time=moved)
        out.append(event)
    return out


def answers(
    model: FoundationModel, tokenizer: Tokenizer, config: ModelConfig, events: list[Event]
) -> dict[tuple[int, float], tuple[torch.Tensor, ...]]:
    """Bare vectors and told scores by user and time of each request."""
    lesson = lesson_of(events, tokenizer, config)
    at_R = lesson.requests.time_R + lesson.batch.start_B[lesson.requests.user_R]
    with torch.inference_mode():
        states = model(lesson.batch, lesson.requests)
        found = model.user_vectors(states), states.bare_RD, states.told_RD, model.scores(states, model.item_vectors())
    rows = enumerate(zip(lesson.requests.user_R.tolist(), at_R.tolist(), strict=True))
    return {key: tuple(tensor[row] for tensor in found) for row, key in rows}


@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_lesson_answers_by_what_came_later_than_the_session_began(
    tokenizer: Tokenizer, config: ModelConfig, model: FoundationModel, seed: int, times: bool
) -> None:
    events = events_of(seed % 2)
    one = answers(model, tokenizer, config, events)
    starts = {user: [at for whose, at in one if whose == user] for user in range(USERS)}
    rng = np.random.default_rng(seed)
    start_of = {user: float(rng.choice(at)) for user, at in starts.items() if at}
    other = answers(model, tokenizer, config, changed(events, start_of, seed, times))
    assert len(start_of) == USERS
    for key in start_of.items():
        for a, b in zip(one[key], other[key], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    if times:
        assert one.keys() != other.keys()
    else:  # by the same change, later requests are answered otherwise
        assert any(not torch.allclose(one[key][3], other[key][3], atol=1e-3) for key in one)


def parts_of(sessions: list[Session], split: Split, part: Part) -> Iterator[tuple[list[Session], list[Session]]]:
    """For each user the sessions before a part and in it, said as plainly as can be."""
    for user in range(USERS):
        mine = sorted((one for one in sessions if one.user == user), key=lambda one: one.end)
        if split.last_items is None:
            begin, end = (split.time, math.inf) if part is Part.TEST else (split.validation, split.time)
            held = [one for one in mine if one.begin >= begin and one.end < end]
        else:
            n = split.last_items
            test = min(one.begin for one in mine[-n:])
            held = mine[-n:] if part is Part.TEST else [one for one in mine[-2 * n : -n] if one.end < test]
            begin = test if part is Part.TEST else min(one.begin for one in mine[-2 * n :])
        yield [one for one in mine if one.end < begin], sorted(held, key=lambda one: (one.begin, one.end))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_open_at_a_border_is_on_neither_side(tokenizer: Tokenizer, split: Split, seed: int) -> None:
    events = events_of(seed)
    batch, sessions = batch_of(events, tokenizer), sessions_of(events)
    for until, part in ((Until.VALIDATION, Part.VALIDATION), (Until.TEST, Part.TEST)):
        kept = trainable_events(batch, split, until)
        assert kept.tokens < batch.tokens
        for user, (before, held) in enumerate(parts_of(sessions, split, part)):
            mine = slice(int(kept.offset_B1[user]), int(kept.offset_B1[user + 1]))
            assert mine.stop - mine.start == sum(len(one.events) for one in before)
            assert set((kept.time_T[mine] + kept.start_B[user]).tolist()) == {one.end for one in before}
            assert all(one.begin >= max([0.0, *(other.end for other in before)]) for one in held)
        first_G = group_offsets(kept)[:-1]
        assert torch.equal(kept.begin_T[first_G] <= kept.time_T[first_G], torch.ones(len(first_G), dtype=torch.bool))


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("part", list(Part))
@pytest.mark.parametrize("split", SPLITS)
def test_what_is_held_out_begins_and_ends_in_its_part(
    tokenizer: Tokenizer, split: Split, part: Part, told: bool
) -> None:
    events = events_of(0)
    held, sessions = held_out(events, tokenizer, split, part, told), sessions_of(events)
    requests = held.requests(0, len(held))
    truth = items_by(torch.from_numpy(held.truth.users), torch.from_numpy(held.truth.codes), tokenizer, len(held))
    judged = {user: row for row, user in enumerate(held.user_ids.to_pylist())}
    for user, (before, part_of) in enumerate(parts_of(sessions, split, part)):
        if not part_of:
            assert user not in judged
            continue
        target = part_of[0]
        known = [one for one in sessions if one.user == user and one.end < target.begin] if told else before
        if not known:
            assert user not in judged
            continue
        row = judged[user]
        assert truth[row] == sorted(set(target.items))
        assert sorted(requests.history["time"][row].as_py()) == sorted(one.end for one in known for _ in one.events)
        assert not told or requests.at[row] == target.begin
        assert max(one.end for one in known) <= requests.at[row]


def held_out(events: list[Event], tokenizer: Tokenizer, split: Split, part: Part, told: bool) -> Holdout:
    return hold_out(tokenizer.transform(table(events)), Columns.of(tokenizer), split, part, told)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("part", list(Part))
@pytest.mark.parametrize("seed", [0, 1])
def test_no_held_out_request_knows_what_came_later_than_its_session_began(
    tokenizer: Tokenizer, part: Part, told: bool, seed: int
) -> None:
    split, events = SPLITS[0], events_of(seed)
    one = held_out(events, tokenizer, split, part, told)
    told_one = held_out(events, tokenizer, split, part, True)
    start_of = dict(zip(told_one.user_ids.to_pylist(), told_one.asked.at.tolist(), strict=True))
    other = held_out(changed(events, start_of, seed, times=False), tokenizer, split, part, told)
    assert one.user_ids.equals(other.user_ids)
    assert one.truth.codes.tolist() != other.truth.codes.tolist()
    mine, theirs = one.requests(0, len(one)), other.requests(0, len(other))
    assert mine.history.equals(theirs.history)
    assert mine.at.tolist() == theirs.at.tolist()
    assert mine.context.tolist() == theirs.context.tolist()


def test_two_sessions_that_overlap_are_nothing_to_learn_from(tokenizer: Tokenizer, config: ModelConfig) -> None:
    def event(session: int, time: float) -> Event:
        return Event(0, session, time * DAY, 1, "desk", 1.0)

    overlapping = [event(1, 1), event(2, 2), event(1, 3), event(2, 4)]
    batch = batch_of(overlapping, tokenizer)
    assert TrainingSet(batch, np.ones(1), 0.0, torch.zeros(1, dtype=torch.int64)).users == 0
    batch = batch_of([*overlapping, event(3, 3)], tokenizer)  # as session 1 ends: not strictly before
    assert TrainingSet(batch, np.ones(1), 0.0, torch.zeros(1, dtype=torch.int64)).users == 0
    lesson = lesson_of([*overlapping, event(3, 3.5)], tokenizer, config)
    assert lesson.requests.time_R.tolist() == [0.5 * DAY]
    with pytest.raises(EvaluationError, match="nobody has candidates"):
        held_out(overlapping, tokenizer, Split("last_items", None, None, 1), Part.TEST, told=True)
