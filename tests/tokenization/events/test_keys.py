from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tokenization.events.keys import keys_of
from tokenization.ids import Ids


def keys(pairs: list[tuple[str, str]]) -> list[int]:
    users, ids = (pa.array(column, pa.string()) for column in zip(*pairs, strict=True)) if pairs else ((), ())
    found = keys_of(Ids.of(pa.array(users, pa.string()), "user"), Ids.of(pa.array(ids, pa.string()), "id"))
    return [int(key) for key in found]


texts = st.text(min_size=1, max_size=20)


@given(st.lists(st.tuples(texts, texts), max_size=20), st.randoms())
def test_events_have_one_key_if_user_and_id_are_one(pairs: list[tuple[str, str]], random: np.random.Generator) -> None:
    found = dict(zip(pairs, keys(pairs), strict=True))
    assert len(set(found.values())) == len(set(pairs))
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert keys(shuffled) == [found[pair] for pair in shuffled]  # whatever else is there


def test_keys_are_the_same_for_ever_and_whole_numbers_are_their_text() -> None:
    """Corpora keep them: another hash would know nothing again."""
    assert keys([("ann", "1"), ("ann", "12345678"), ("x", "x"), ("ann", "0123456789abcdef-")]) == [
        -4192531117090450120,
        7011670947651201967,
        3456205801916612620,
        -3799070201851966798,
    ]
    numbers = keys_of(Ids.of(pa.array([7, 7]), "user"), Ids.of(pa.array([1, 2]), "id"))
    assert numbers.tolist() == keys([("7", "1"), ("7", "2")])


def test_keys_of_many_ids_differ() -> None:
    users = Ids.of(pa.array([f"u{row % 100}" for row in range(200_000)]), "user")
    ids = Ids.of(pa.array(range(200_000)), "id")
    found = keys_of(users, ids)
    assert len(np.unique(found)) == 200_000
    for bit in range(64):
        assert 0.49 < np.mean(found >> bit & 1) < 0.51
