"""AdamW, Muon and Sophia: three rates each, as many steps each, judged on validation.

The default recipe, one pass over every second household of Complete Journey; everything but the method and its rate is
the same in all runs, the item tables' own optimiser included. One seed: the best rate of each is what the rows of
`benchmarks ablations` take, with three.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.ablations import CACHE, Slice, corpus_of, recipe_of
from benchmarks.measure import Measured
from benchmarks.trials import Outcome, Progress, Trial, difference, run_trials, spread
from tokenization.corpus.corpus import Corpus
from training.optimisers import Method

RATES: Mapping[Method, tuple[float, ...]] = {
    Method.ADAMW: (3e-3, 6e-3, 1.2e-2),
    Method.MUON: (6e-3, 1.2e-2, 2.4e-2),
    Method.SOPHIA: (1.5e-3, 3e-3, 6e-3),
}


def run(progress: Progress) -> Measured:
    """Figures by method and rate: ndcg@10, steps, seconds. By method also the best of its rates less the best of
    AdamW's, paired over households, with its interval."""
    with tempfile.TemporaryDirectory() as folder:
        path = corpus_of(Slice.JOURNEY, Path(folder), progress)
        found = dict(run_trials(trials(path), CACHE, len(os.sched_getaffinity(0)), progress))
    figures: dict[str, float] = {}
    for name, outcome in found.items():
        figures |= {f"{name}.ndcg@10": spread([outcome], "model")[0]}
        figures |= {f"{name}.steps": outcome.steps, f"{name}.seconds": outcome.seconds}
    return Measured(figures | differences(found), ())


def trials(corpus: Path) -> dict[str, Trial]:
    """Every method at each of its rates."""
    return {
        _name(method, rate): Trial(corpus, recipe_of(Corpus.open(corpus), {"method": method, "rate": str(rate)}, 0))
        for method, rates in RATES.items()
        for rate in rates
    }


def differences(found: Mapping[str, Outcome]) -> dict[str, float]:
    """NDCG@10 of each method's best rate less that of AdamW's, with the interval over households."""
    best = {
        method: max((found[_name(method, rate)] for rate in rates), key=lambda one: spread([one], "model")[0])
        for method, rates in RATES.items()
    }
    figures: dict[str, float] = {}
    for method in (Method.MUON, Method.SOPHIA):
        gap = difference([best[method]], "model", [best[Method.ADAMW]], "model")
        name = f"{method}_minus_{Method.ADAMW}"
        figures |= {name: gap.mean, f"{name}_low": gap.low, f"{name}_high": gap.high}
    return figures


def _name(method: Method, rate: float) -> str:
    return f"{method}-{rate:g}"
