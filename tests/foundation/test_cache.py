from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation import cache as cache_module
from foundation.cache import TrunkCache, empty_cache, encode_onto
from foundation.config import AttentionConfig, FacetConfig, ItemConfig, ModelConfig, RepeatConfig, Rotary
from foundation.errors import ModelError
from foundation.jagged import Stream
from foundation.transformer import Trunk
from tests.foundation.attention.conftest import USERS, Users, borders, offsets

ATTENTIONS = st.builds(
    AttentionConfig,
    windows=st.tuples(st.integers(0, 12), st.integers(1, 12)),
    sinks=st.integers(0, 10),
    memory=st.integers(0, 2),
    memory_block=st.integers(1, 9),
    memory_reach=st.integers(1, 4),
    rotary=st.sampled_from(list(Rotary)),
)


def trunk_of(attention: AttentionConfig, width: int = 8) -> Trunk:
    torch.manual_seed(0)
    config = ModelConfig(
        facets=(FacetConfig("item", 3, "entity"),),
        item=ItemConfig("item", 3, (), 0),
        repeat=RepeatConfig((1.0,), 1.0),
        width=width,
        layers=2,
        heads=2,
        attention=attention,
    )
    return Trunk(config).double()


def stream_of_groups(users: Users, first: list[int]) -> Stream:
    """The groups of each user, numbered from `first` on; an hour between two."""
    place = [
        start + number
        for start, sizes in zip(first, users, strict=True)
        for number, size in enumerate(sizes)
        for _ in range(size)
    ]
    place_T = torch.tensor(place, dtype=torch.int64)
    return Stream(borders(users), offsets(users), place_T, place_T.double() * 3_600.0)


STEPS = st.lists(st.lists(st.integers(0, 9), min_size=5, max_size=5), max_size=4)  # groups that come for each user


@pytest.mark.parametrize("dense", [0, cache_module.DENSE])
@given(users=USERS, attention=ATTENTIONS, steps=STEPS)
@settings(max_examples=60)
def test_a_life_in_any_steps_has_the_states_of_the_whole(
    dense: int, users: Users, attention: AttentionConfig, steps: list[list[int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "DENSE", dense)
        see_that_steps_are_the_whole(users, attention, steps)


def see_that_steps_are_the_whole(users: Users, attention: AttentionConfig, steps: list[list[int]]) -> None:
    trunk = trunk_of(attention)
    draw = torch.Generator().manual_seed(0)
    x_by_user = [torch.randn(sum(sizes), 8, generator=draw, dtype=torch.float64) for sizes in users]
    whole = stream_of_groups(users, [0] * len(users))
    expected = trunk(torch.cat(x_by_user), whole).detach().split([sum(sizes) for sizes in users])

    cache = empty_cache(trunk, len(users))
    had = [0] * len(users)  # groups of each user
    for step in [*steps, [99] * 5]:
        ends = [min(before + more, len(sizes)) for before, more, sizes in zip(had, step, users, strict=False)]
        # Of whoever has something new, the newest group of before is given again.
        begins = [max(before - 1, 0) if end > before else before for before, end in zip(had, ends, strict=True)]
        fresh = [sizes[begin:end] for sizes, begin, end in zip(users, begins, ends, strict=True)]
        starts = [sum(sizes[:begin]) for sizes, begin in zip(users, begins, strict=True)]
        parts = [x[start : start + sum(sizes)] for x, start, sizes in zip(x_by_user, starts, fresh, strict=True)]
        states_TD, cache = encode_onto(trunk, cache, torch.cat(parts), stream_of_groups(fresh, begins))
        found = states_TD.split([sum(sizes) for sizes in fresh])
        for one, of_life, start in zip(found, expected, starts, strict=True):
            torch.testing.assert_close(one, of_life[start : start + len(one)], rtol=1e-5, atol=1e-6)
        assert cache.closed_B.tolist() == [
            sum(sizes[: max(end - 1, 0)]) for sizes, end in zip(users, ends, strict=True)
        ]
        had = ends


def test_a_cache_does_not_grow_with_the_life() -> None:
    attention = AttentionConfig((16, 8), sinks=6, memory=2, memory_block=8, memory_reach=3)
    trunk, sizes = trunk_of(attention), []
    cache = empty_cache(trunk, 1)
    for group in range(120):
        fresh = [3] * min(group + 1, 2)
        stream = stream_of_groups([fresh], [max(group - 1, 0)])
        _, cache = encode_onto(trunk, cache, torch.randn(sum(fresh), 8, dtype=torch.float64), stream)
        sizes.append(len(cache.place_S) + len(cache.block_end_N))
    assert max(sizes[60:]) <= max(sizes[:40])
    assert max(sizes) < 6 + 16 + 8 + 2 * 3 + 3 + 16


def test_what_is_closed_can_not_be_given_again() -> None:
    trunk = trunk_of(AttentionConfig((8,)))
    x_TD = torch.zeros(6, 8, dtype=torch.float64)
    _, cache = encode_onto(trunk, empty_cache(trunk, 1), x_TD, stream_of_groups([[2, 2, 2]], [0]))
    with pytest.raises(ModelError, match="a group that is closed: give only what came after it"):
        encode_onto(trunk, cache, x_TD[:4], stream_of_groups([[2, 2]], [1]))


def test_nobody_and_nothing_new_is_nothing() -> None:
    trunk = trunk_of(AttentionConfig((8, 4), memory=1))
    cache: TrunkCache = empty_cache(trunk, 2)
    states_TD, after = encode_onto(
        trunk, cache, torch.zeros(0, 8, dtype=torch.float64), stream_of_groups([[], []], [0, 0])
    )
    assert states_TD.shape == (0, 8)
    assert after.closed_B.tolist() == [0, 0]
