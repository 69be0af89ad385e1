"""How much a stored vector loses while it waits: 0, 1, 7 and 14 days old, by what the model learned to predict.

Every second household of Complete Journey; the stored vector is made from what was known so many days before the
request, and judged on the basket of the request (validation part, dot product alone). One model predicts the next group
only, one the next three (multi-token), one moreover everything in a window after the request (`future`). The loss
between fresh and old is paired over households, seeds averaged. Draws docs/figures/staleness.svg.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.ablations import Slice, corpus_of, recipe_of
from benchmarks.measure import Measured
from benchmarks.plots import Line, lines
from benchmarks.trials import Progress
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training import metrics, ranking
from training.holdout import Columns, Holdout, Part, hold_out
from training.metrics import Floats, Interval
from training.pretrain import pretrain_bare
from training.rows import list_values
from training.run import start
from training.scorers import model_scorers

DAY = 86_400.0
AGES = (0, 1, 7, 14)
SEEDS = (0, 1)
EPOCHS = 2
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "next group only": {"horizons": "1"},
    "next three groups": {},
    "and a window": {"future": "0.3"},
}
PICTURE = Path(__file__).parent.parent / "docs" / "figures" / "staleness.svg"


def run(progress: Progress) -> Measured:
    """Figures by settings and age: ndcg@10, and what is lost since day 0 with its interval."""
    judged: dict[str, list[dict[int, Floats]]] = {name: [] for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus.open(corpus_of(Slice.JOURNEY, Path(folder), progress))
        for seed in SEEDS:
            for name, settings in SETTINGS.items():
                recipe = replace(recipe_of(corpus, settings, seed), epochs=EPOCHS)
                made = start(corpus, Path(folder) / f"{seed}-{name}", recipe)
                pretrain_bare(made, lambda record, name=name: progress(name, record.step, record.steps))  # type: ignore[misc]
                judged[name].append(by_age(Subgraph.from_pretrained(made.model), corpus))
    found = {name: _means(runs) for name, runs in judged.items()}
    lost = {name: {age: metrics.paired_bootstrap(ages[age], ages[0]) for age in AGES} for name, ages in found.items()}
    _draw(lost)
    figures = {}
    for name, ages in found.items():
        for age in AGES:
            figures[f"{name}.ndcg@10_{age}d"] = metrics.mean(ages[age])
            gap = lost[name][age]
            figures |= {f"{name}.lost_{age}d": gap.mean, f"{name}.lost_{age}d_low": gap.low}
            figures[f"{name}.lost_{age}d_high"] = gap.high
    single, *more = found.values()
    for name, ages in zip(list(found)[1:], more, strict=True):
        gap = metrics.paired_bootstrap(ages[14] - ages[0], single[14] - single[0])
        figures |= {f"{name}.saved_14d": gap.mean, f"{name}.saved_14d_low": gap.low, f"{name}.saved_14d_high": gap.high}
    return Measured(figures, ())


def by_age(subgraph: Subgraph, corpus: Corpus) -> dict[int, Floats]:
    """NDCG@10 of each household by the age of its stored vector in days, [U]."""
    tokenizer = subgraph.tokenizer
    held = hold_out(corpus.tokens(), Columns.of(tokenizer), corpus.split, Part.VALIDATION)
    found = {}
    for age in AGES:
        scorers = {"embedding": model_scorers(subgraph)["embedding"]}
        evaluation = ranking.evaluate(aged(held, age * DAY), scorers, len(tokenizer.items))
        found[age] = evaluation.judged["embedding"].values[ranking.Slice.ALL]["ndcg@10"]
    return found


def aged(held: Holdout, seconds: float) -> Holdout:
    """The same requests and truth, with histories that end so long before, and vectors made then."""
    at_U = held.asked.at - seconds
    time_T, offset_R = list_values(held.tokens["time"])
    begin_U = offset_R[held.asked.row]
    known_U = np.array(
        [
            np.searchsorted(time_T[begin : begin + known], at, side="right")
            for begin, known, at in zip(begin_U, held.asked.known, at_U, strict=True)
        ],
        dtype=np.int64,
    )
    return replace(held, asked=replace(held.asked, known=known_U, at=at_U))


def _means(runs: Sequence[Mapping[int, Floats]]) -> dict[int, Floats]:
    return {age: np.mean([run[age] for run in runs], axis=0) for age in AGES}


def _draw(lost: Mapping[str, Mapping[int, Interval]]) -> None:
    named = {
        name: Line([ages[a].mean for a in AGES], [ages[a].low for a in AGES], [ages[a].high for a in AGES])
        for name, ages in lost.items()
    }
    lines(PICTURE, AGES, named, "age of the stored vector, days", "NDCG@10, change since day 0", "What waiting costs")
