"""How the loss falls with parameters and with data: four sizes, four shares of the users, one fitted law.

Every second household of Complete Journey, one pass, two seeds. Sizes: width and layers of the trunk, on all users;
data: a share of the users, at the default size. One pass each, so compute grows with both. The loss is the
cross-entropy of the next basket's products over the whole catalogue on the validation part, told time and store, a
household's products weighing alike. Parameters are those of the model without its tables (Kaplan et al.,
arXiv:2001.08361), data are tokens.

The law is L = E + A / N^a + B / D^b (Hoffmann et al., arXiv:2203.15556), least squares over all points; E, what no
size and no log would take away and which is no less than 0, with its 95 % interval, and the exponents, over resampled
households: where the points bend too little, that interval says that they tell nothing of it. Draws
docs/figures/scaling.svg.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares  # type: ignore[import-untyped]
from torch import nn

from benchmarks.ablations import Slice, corpus_of, recipe_of
from benchmarks.measure import Measured
from benchmarks.models import trained
from benchmarks.plots import Line, lines
from benchmarks.trials import Progress, Trial
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training.holdout import Columns, Holdout, Part, hold_out
from training.metrics import Floats
from training.scorers import inputs

SEEDS = (0, 1)
SIZES: tuple[Mapping[str, str], ...] = (
    {"width": "16", "layers": "1", "heads": "1"},
    {"width": "32", "layers": "2", "heads": "1"},
    {"width": "64", "layers": "2", "heads": "2"},
    {"width": "128", "layers": "4", "heads": "4"},
)
DEFAULT = 2  # the size at which data are varied
SHARES = (0.125, 0.25, 0.5, 1.0)
RESAMPLES = 300
CACHE = Path("out") / "scaling"
PICTURE = Path(__file__).parent.parent / "docs" / "figures" / "scaling.svg"
_SMALLEST = 1e-3  # of an exponent


@dataclass(frozen=True)
class Point:
    """One size on one share: parameters without tables, tokens learned from, and the loss of each household [U]."""

    parameters: int
    tokens: float
    loss_U: Floats

    @property
    def loss(self) -> float:
        """Mean over the households."""
        return float(self.loss_U.mean())


@dataclass(frozen=True)
class Law:
    """L = offset + size / N^of_size + data / D^of_data; N and D in units of the largest measured."""

    offset: float
    size: float
    of_size: float
    data: float
    of_data: float

    def __call__(self, size: Floats, data: Floats) -> Floats:
        """Loss at N and D in units of the largest measured."""
        return np.asarray(self.offset + self.size * size**-self.of_size + self.data * data**-self.of_data)


def run(progress: Progress) -> Measured:
    """Losses by size and by share, and the law with its intervals."""
    corpus = Corpus.open(corpus_of(Slice.JOURNEY, CACHE / "log", progress))
    asked = [(size, 1.0) for size in range(len(SIZES))] + [(DEFAULT, share) for share in SHARES[:-1]]
    trials = {
        (size, share, seed): Trial(corpus.folder, recipe_of(corpus, {**SIZES[size], "users": str(share)}, seed))
        for size, share in asked
        for seed in SEEDS
    }
    models = trained(list(trials.values()), CACHE, len(os.sched_getaffinity(0)), progress)
    points = [point([models[trials[size, share, seed]] for seed in SEEDS], corpus, share) for size, share in asked]
    sizes, shares = points[: len(SIZES)], [*points[len(SIZES) :], points[DEFAULT]]
    fitted, resampled = fit(points, None), _resampled(points)
    _draw(sizes, shares, fitted)
    return Measured(_figures(sizes, shares, fitted, resampled), ())


def point(models: Sequence[Path], corpus: Corpus, share: float) -> Point:
    """The mean over seeds. share: of the users that were learned from."""
    held = hold_out(corpus.tokens(), Columns.of(corpus.tokenizer), corpus.split, Part.VALIDATION)
    subgraphs = [Subgraph.from_pretrained(path) for path in models]
    loss_U = np.mean([losses(subgraph, held) for subgraph in subgraphs], axis=0)
    return Point(parameters(subgraphs[0]), share * len(held.before.item), loss_U)


def parameters(subgraph: Subgraph) -> int:
    """Those of everything but tables."""
    tables = {id(one.weight) for one in subgraph.modules() if isinstance(one, nn.Embedding)}
    return sum(weight.numel() for weight in subgraph.parameters() if id(weight) not in tables)


def losses(subgraph: Subgraph, held: Holdout) -> Floats:
    """[U] mean negative log likelihood of the products that each user takes next, over the whole catalogue."""
    found, truth = np.zeros(len(held)), held.truth
    with torch.inference_mode():
        item_VD = subgraph.item_vectors()
        for start, requests in held.chunks(128):
            logit_nV = subgraph.model.scores(subgraph.states(*inputs(subgraph, requests)), item_VD)
            share_nV = torch.log_softmax(logit_nV, 1).numpy()
            for row in range(len(requests)):
                code = truth.codes[truth.offsets[start + row] : truth.offsets[start + row + 1]]
                found[start + row] = -share_nV[row, code].mean() if len(code) else np.nan
    return found[~np.isnan(found)]


def fit(points: Sequence[Point], rows: NDArray[np.int64] | None) -> Law:
    """The law that is nearest to all points; rows: households that count, None for all."""
    loss = np.array([one.loss_U.mean() if rows is None else one.loss_U[rows].mean() for one in points])
    size = np.array([one.parameters for one in points]) / max(one.parameters for one in points)
    data = np.array([one.tokens for one in points]) / max(one.tokens for one in points)

    def off(told: Floats) -> Floats:
        return np.asarray(law(told)(size, data) - loss)

    spread = max(float(np.ptp(loss)), 1e-6)
    begin = [float(loss.min()) - spread, np.log(spread / 2), np.log(0.3), np.log(spread / 2), np.log(0.3)]
    least = [0.0, *[-np.inf] * 4]  # a cross-entropy is never below 0
    return law(least_squares(off, begin, bounds=(least, np.inf), max_nfev=2000).x)


def law(told: Floats) -> Law:
    """Out of five free numbers: what must be above zero is told by its logarithm."""
    offset, size, of_size, data, of_data = told
    bounded = np.exp(np.clip([size, of_size, data, of_data], np.log(_SMALLEST), np.log(50.0)))
    return Law(float(offset), *map(float, bounded))


def _resampled(points: Sequence[Point]) -> list[Law]:
    draw, users = np.random.default_rng(0), len(points[0].loss_U)
    return [fit(points, draw.integers(0, users, users)) for _ in range(RESAMPLES)]


def _figures(
    sizes: Sequence[Point], shares: Sequence[Point], fitted: Law, resampled: Sequence[Law]
) -> dict[str, float]:
    figures = {f"loss_at_{one.parameters}_parameters": one.loss for one in sizes}
    figures |= {f"loss_at_{one.tokens:.0f}_tokens": one.loss for one in shares}
    for name in ("offset", "of_size", "of_data"):
        low, high = np.percentile([getattr(one, name) for one in resampled], [2.5, 97.5])
        figures |= {name: getattr(fitted, name), f"{name}_low": float(low), f"{name}_high": float(high)}
    return figures


def _draw(sizes: Sequence[Point], shares: Sequence[Point], fitted: Law) -> None:
    """Both on one axis: the part of the largest size, and of all data."""
    part = np.array(SHARES)
    of_size = np.array([one.parameters for one in sizes]) / sizes[-1].parameters
    default = of_size[DEFAULT]
    x, ticks = list(range(len(SHARES))), [f"{one:g}" for one in SHARES]
    named = {
        "parameters": _line(sizes),
        "law of parameters": _exact(fitted(of_size, np.ones(len(sizes)))),
        "data": _line(shares),
        "law of data": _exact(fitted(np.full(len(part), default), part)),
    }
    label = "share of the data; sizes from the smallest to the largest"
    lines(PICTURE, x, named, label, "validation loss", "Loss by parameters and by data", ticks)


def _line(points: Sequence[Point]) -> Line:
    off = [1.96 * one.loss_U.std() / np.sqrt(len(one.loss_U)) for one in points]
    values = [one.loss for one in points]
    low, high = (np.array(values) + sign * np.array(off) for sign in (-1, 1))
    return Line(values, low.tolist(), high.tolist())


def _exact(loss: Floats) -> Line:
    return Line(loss.tolist(), loss.tolist(), loss.tolist())
