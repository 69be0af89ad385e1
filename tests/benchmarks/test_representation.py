"""How ways to read a user are told beside one another."""

from __future__ import annotations

import pytest

from benchmarks.ablations import recipe_of
from benchmarks.representation import WAYS, figures
from benchmarks.trials import Outcome
from tokenization.corpus.corpus import Corpus


def test_every_way_is_a_recipe(kiosk_corpus: Corpus) -> None:
    ways = {name: recipe_of(kiosk_corpus, dict(settings), 0).model for name, settings in WAYS.items()}
    assert len(set(ways.values())) == len(WAYS)


def outcome(**values: list[float]) -> Outcome:
    return Outcome(["a", "b"], values, steps=1, seconds=2.0, parameters=3)


def test_a_way_stands_beside_the_newest_state_and_interests_beside_the_stored_vector() -> None:
    newest = outcome(embedding=[0.1, 0.3], model=[0.4, 0.4])
    several = outcome(embedding=[0.2, 0.4], model=[0.3, 0.3], interests=[0.5, 0.5])
    found = figures({"newest": [newest], "interests": [several]})
    assert found["newest.stored"] == pytest.approx(0.2)
    assert found["interests.stored.more"] == pytest.approx(0.1)
    assert found["interests.whole.more"] == pytest.approx(-0.1)
    assert found["interests.interests"] == pytest.approx(0.5)
    assert found["interests.interests.more"] == pytest.approx(0.3)
    assert found["interests.interests.low"] <= 0.3 <= found["interests.interests.high"]
    assert "newest.stored.more" not in found
