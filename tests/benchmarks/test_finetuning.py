"""The surface of the busiest stores, and what tuning for it gains there and elsewhere."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.finetuning import UNTUNED, busiest, figures
from tests.conftest import DAY, Kiosk
from tokenization.corpus.corpus import Corpus


def test_the_busiest_stores_are_those_with_most_visits_before_validation(kiosk: Kiosk, kiosk_corpus: Corpus) -> None:
    cut = kiosk_corpus.split.validation
    assert cut is not None
    assert cut == pytest.approx(80 * DAY)
    visits = {(row["visit"], row["store"]) for row in kiosk.events.to_pylist() if row["time"] < cut and row["store"]}
    counted = Counter(store for _, store in visits)
    for number in (1, 2):
        found = busiest(kiosk_corpus, number).values
        assert sorted((counted[store] for store in found), reverse=True) == sorted(counted.values())[: -number - 1 : -1]


def test_each_way_is_compared_with_the_model_as_it_was() -> None:
    untuned = np.tile([0.1, 0.3], 50)
    found = figures("there", {UNTUNED: untuned, "full": untuned + 0.05, "head": untuned})
    assert found["there.requests"] == 100
    assert found["there.full.gained"] == pytest.approx(0.05)
    assert found["there.head.gained"] == found["there.head.gained_high"] == 0
    assert "there.untuned.gained" not in found
