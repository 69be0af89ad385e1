from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.optimisers import RATES, differences, judged, recipe_by
from tokenization.corpus.corpus import Corpus
from training.optimisers import Method


def test_methods_differ_in_nothing_but_themselves_and_their_rate(kiosk_corpus: Corpus) -> None:
    assert set(RATES) == set(Method)
    assert all(len(rates) == 3 for rates in RATES.values())
    one, other = (recipe_by(kiosk_corpus, method, 0.1) for method in (Method.ADAMW, Method.SOPHIA))
    assert (one.model, one.sampling, one.epochs, one.seed) == (other.model, other.sampling, other.epochs, other.seed)


def test_every_method_takes_as_many_steps_and_is_judged_on_the_same_users(kiosk_corpus: Corpus, tmp_path: Path) -> None:
    found = {
        method: judged(kiosk_corpus, tmp_path / method, method, 1e-3, lambda stage, done, total: None)
        for method in Method
    }
    assert len({figures["steps"] for figures, _ in found.values()}) == 1
    assert len({len(ndcg_U) for _, ndcg_U in found.values()}) == 1
    assert all(0 <= figures["ndcg@10"] <= 1 for figures, _ in found.values())
    gaps = differences({method: ndcg_U for method, (_, ndcg_U) in found.items()})
    assert gaps["muon_minus_adamw_low"] <= gaps["muon_minus_adamw"] <= gaps["muon_minus_adamw_high"]
    assert np.isfinite(list(gaps.values())).all()
