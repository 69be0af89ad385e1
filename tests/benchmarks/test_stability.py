from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from benchmarks.stability import Pair, agreement, areas, by_meetings, only, percentiles
from foundation.alignment import Shared
from foundation.jagged import EventBatch
from foundation.space import Space
from tokenization.corpus.corpus import Corpus
from training.align import Known, fitted


@pytest.fixture
def pair() -> Pair:
    """Two spaces of width 8 that are one but for a reflection; items met 0 to 199 times."""
    draw = torch.Generator().manual_seed(0)
    users, items = torch.randn(300, 9, generator=draw), torch.randn(200, 9, generator=draw)
    mirror = torch.tensor([-1.0] * 8 + [1.0])
    known = Known(
        Shared(users, users * mirror, torch.ones(300)), Shared(items, items * mirror, torch.arange(200).float())
    )
    models: tuple[object, object] = (None, None)
    return Pair(models, known, fitted(known, Space("kiosk", 1, "a" * 64, 9, 0.0)))  # type: ignore[arg-type]


def test_agreement_is_judged_before_and_after_the_map(pair: Pair) -> None:
    figures, bars = agreement(pair)
    for name in ("users", "items"):
        assert figures[f"cosine_{name}_before"] == pytest.approx(-1.0)
        assert figures[f"cosine_{name}_after"] == pytest.approx(1.0)
    assert {bar.name: str(bar.verdict) for bar in bars} == {
        "cosine_users_after": "met",
        "cosine_items_after": "met",
        "dots_moved": "met",
    }


def test_products_are_told_apart_by_how_often_they_were_met() -> None:
    figures: Mapping[str, float] = by_meetings(
        torch.tensor([0.1, 0.2, 0.4, 0.9, 0.5]),
        torch.tensor([0.0, 1.0, 4.0, 100.0, 100.0]),
        torch.tensor([True, True, True, True, False]),
        "after",
    )
    assert figures["cosine_items_after.met_0"] == pytest.approx(0.1)
    assert figures["cosine_items_after.met_1_to_4"] == pytest.approx(0.3)
    assert figures["cosine_items_after.met_100_on"] == pytest.approx(0.9)


def test_a_classifier_that_knows_has_an_area_of_one_and_the_same_households_are_resampled_for_all() -> None:
    truth = np.arange(60)[:, None] % 2 == 0
    noise = np.random.default_rng(0).random((60, 1))
    found = areas({"knows": truth.astype(float), "guesses": noise, "again": noise}, truth)
    assert found["knows"].min() == 1.0
    assert 0.2 < percentiles(found["guesses"]).mean < 0.8
    assert np.array_equal(found["guesses"], found["again"])


def test_some_tokens_of_the_same_users(kiosk_corpus: Corpus) -> None:
    batch = EventBatch.from_tokens(kiosk_corpus.tokens(), ["product"])
    kept = only(batch, batch.group_T == 0)
    assert kept.users == batch.users
    assert int(kept.group_T.max()) == 0
    assert kept.tokens == int((batch.group_T == 0).sum())
