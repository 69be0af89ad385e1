from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.optimisers import RATES, differences, trials
from benchmarks.trials import Outcome
from tokenization.corpus.corpus import Corpus
from training.optimisers import Method


def test_methods_differ_in_nothing_but_themselves_and_their_rate(kiosk_corpus: Corpus) -> None:
    assert set(RATES) == set(Method)
    recipes = [trial.recipe for trial in trials(kiosk_corpus.folder).values()]
    found = {(recipe.optimisation.method, recipe.optimisation.rate) for recipe in recipes}
    assert found == {(method, rate) for method, rates in RATES.items() for rate in rates}
    same = {replace(recipe, optimisation=recipes[0].optimisation) for recipe in recipes}
    assert len(same) == 1


def test_the_best_rate_of_each_method_is_held_against_the_best_of_adamw() -> None:
    found = {
        f"{method}-{rate:g}": Outcome(["a", "b"], {"model": [0.1 * place, 0.2]}, 9, 1.0, 1)
        for method, rates in RATES.items()
        for place, rate in enumerate(rates, start=1 if method is Method.MUON else 0)
    }
    gaps = differences(found)
    assert gaps["muon_minus_adamw"] == pytest.approx(0.05)
    assert gaps["sophia_minus_adamw"] == pytest.approx(0.0)
    assert gaps["muon_minus_adamw_low"] <= gaps["muon_minus_adamw"] <= gaps["muon_minus_adamw_high"]
    assert np.isfinite(list(gaps.values())).all()
