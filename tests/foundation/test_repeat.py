from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.config import RepeatConfig
from foundation.jagged import EventBatch, Requests
from foundation.repeat import (
    FLOOR,
    Columns,
    RepeatPath,
    feature_count,
    meet,
    own_items,
    slow_decay,
    told_feature_count,
)

CONFIG = RepeatConfig(half_lives=(5.0, 40.0, math.inf), time_unit=2.0, width=8)
COLUMNS = Columns(item=0, context=(1, 2))

# Of each user the groups; of each group the gap before it, and (item, store, hour) of its tokens.
TOKEN = st.tuples(st.sampled_from([0, 1, 2, 3, 4, 9]), st.integers(0, 3), st.integers(2, 4))
GROUP = st.tuples(st.integers(1, 30), st.lists(TOKEN, min_size=1, max_size=4))
USERS = st.lists(st.lists(GROUP, max_size=6), min_size=1, max_size=4)
Users = list[list[tuple[int, list[tuple[int, int, int]]]]]


def batch_of(users: Users) -> EventBatch:
    facets, times, groups, offsets = [], [], [], [0]
    for user in users:
        now = -user[0][0] if user else 0
        for number, (gap, tokens) in enumerate(user):
            now += gap
            facets += tokens
            times += [now] * len(tokens)
            groups += [number] * len(tokens)
        offsets.append(len(facets))
    return EventBatch(
        torch.tensor(facets, dtype=torch.int64).view(-1, 3),
        torch.tensor(times, dtype=torch.float64),
        torch.tensor(times, dtype=torch.float64),
        torch.ones(len(times), dtype=torch.bool),
        torch.tensor(groups, dtype=torch.int64),
        torch.tensor(offsets),
        torch.zeros(len(users), dtype=torch.float64),
        torch.zeros(len(users), 0, dtype=torch.int64),
    )


def asked_everywhere(batch: EventBatch, users: Users) -> Requests:
    """At the beginning of every group and after the last, half told the store, half nothing."""
    rows: list[tuple[int, int, float, list[int]]] = []
    for number, user in enumerate(users):
        token = int(batch.offset_B1[number])
        for place, (_, tokens) in enumerate(user):
            rows.append((number, token, float(batch.time_T[token]), [tokens[0][1], 0] if place % 2 else [0, 0]))
            token += len(tokens)
        last = float(batch.time_T[token - 1]) if user else 0.0
        rows.append((number, token, last + 3.0, [2, 3]))
    user_R, end_R, time_R, context_RC = zip(*rows, strict=True)
    return Requests(*map(torch.tensor, (user_R, end_R)), torch.tensor(time_R).double(), torch.tensor(context_RC))


def naive(batch: EventBatch, requests: Requests) -> dict[tuple[int, int], list[float]]:
    """Features of every (request, own item), by loops."""
    found: dict[tuple[int, int], list[float]] = {}
    item, group, time = batch.facet_TF[:, 0].tolist(), batch.group_T.tolist(), batch.time_T.tolist()
    slow = slow_decay(CONFIG)
    for row in range(len(requests)):
        start, end = int(batch.offset_B1[requests.user_R[row]]), int(requests.end_R[row])
        tokens = range(start, end)
        age = {token: (float(requests.time_R[row]) - time[token]) / CONFIG.time_unit for token in tokens}
        lives = [half_life / CONFIG.time_unit for half_life in CONFIG.half_lives]
        first_of_group = [token for token in tokens if token == start or group[token] != group[token - 1]]

        def weight(chosen: list[int], life: float, age: dict[int, float] = age) -> float:
            return sum(2 ** (-age[token] / life) for token in chosen)

        for code in {item[token] for token in tokens if item[token] >= 2}:
            met = [token for token in tokens if item[token] == code]
            ages = [age[token] for token in met]
            count, groups = [weight(met, life) for life in lives], [weight(first_of_group, life) for life in lives]
            interval = (max(ages) - min(ages)) / max(len(met) - 1, 1)
            again = len(met) > 1
            features = [math.log(c + FLOOR) for c in count]
            features += [math.log((c + FLOOR) / (g + 0.1)) for c, g in zip(count, groups, strict=True)]
            features += [0.3 * math.log(g + 0.1) for g in groups]
            features += [math.log1p(min(ages)), math.log1p(max(ages))]
            features += [math.log1p(group[end - 1] - group[met[-1]] + 1), math.log1p(interval)]
            features += [math.log1p(min(ages) / (interval + 1)) if again else 0.0, float(again)]
            told_counts, told_rates = [], []
            for column in range(2):
                asked = int(requests.context_RC[row, column])
                same = {t for t in tokens if not asked or int(batch.facet_TF[t, 1 + column]) == asked}
                own = weight([t for t in met if t in same], lives[slow])
                all_groups = weight([t for t in first_of_group if any(group[s] == group[t] for s in same)], lives[slow])
                told_counts.append(math.log(own + FLOOR))
                told_rates.append(math.log((own + FLOOR) / (all_groups + 0.1)))
            found[row, code] = features + told_counts + told_rates
    return found


@given(users=USERS)
@settings(max_examples=60)
def test_features_equal_a_loop_over_every_users_history(users: Users) -> None:
    batch = batch_of(users)
    requests = asked_everywhere(batch, users)
    own = own_items(batch, requests, meet(batch, requests, COLUMNS, CONFIG), COLUMNS, CONFIG)
    expected = naive(batch, requests)
    pairs = list(zip(own.request_P.tolist(), own.code_P.tolist(), strict=True))
    assert pairs == sorted(expected)  # each once, ordered by request
    assert own.feature_PX.shape == (len(pairs), feature_count(CONFIG))
    assert own.told_PX.shape == (len(pairs), told_feature_count(CONFIG, 2))
    assert torch.equal(own.told_PX[:, : feature_count(CONFIG)], own.feature_PX)
    if pairs:
        wanted = torch.tensor([expected[pair] for pair in pairs])
        torch.testing.assert_close(own.told_PX, wanted, atol=2e-4, rtol=2e-4)


def test_a_batch_without_a_token_has_no_own_items() -> None:
    batch = batch_of([[], []])
    requests = Requests(
        torch.tensor([0, 1]), torch.tensor([0, 0]), torch.zeros(2).double(), torch.zeros(2, 2, dtype=torch.int64)
    )
    own = own_items(batch, requests, meet(batch, requests, COLUMNS, CONFIG), COLUMNS, CONFIG)
    assert (len(own.request_P), len(own.feature_PX)) == (0, 0)


def test_the_path_starts_as_the_log_of_the_decayed_count() -> None:
    path = RepeatPath(CONFIG, width=4, features=feature_count(CONFIG))
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(3, feature_count(CONFIG), generator=draw)
    place = torch.tensor([0, 1, 1])
    bonus = path(features, place, torch.randn(2, 4, generator=draw), torch.randn(2, 4, generator=draw), place)
    torch.testing.assert_close(bonus, features[:, slow_decay(CONFIG)] + 3.0)


def test_every_input_of_the_path_gets_a_gradient_once_it_has_moved(shake) -> None:
    path = shake(RepeatPath(CONFIG, width=4, features=feature_count(CONFIG)))
    features, state, item = torch.randn(3, feature_count(CONFIG)), torch.randn(2, 4), torch.randn(2, 4)
    for x in (features, state, item):
        x.requires_grad_()
    path(features, torch.tensor([0, 0, 1]), state, item, torch.tensor([0, 1, 1])).sum().backward()
    for x in (features, state, item, *path.parameters()):
        assert x.grad is not None
        assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("half_lives", "expected"), [((1.0, 4.0, 16.0, math.inf), 1), ((math.inf,), 0), ((8.0,), 0), ((1.0, 100.0), 0)]
)
def test_the_slow_decay_is_near_a_quarter_of_the_longest(half_lives: tuple[float, ...], expected: int) -> None:
    assert slow_decay(replace(CONFIG, half_lives=half_lives)) == expected
