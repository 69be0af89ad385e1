"""A linear probe: how much of what is known about users can be read off their embedding with a straight line.

The labels are ordered classes (age, income, household size), so a ridge regression on the class's rank is judged by
Spearman's rank correlation on users it has not seen: 0 is chance, 1 a perfect order, and classes of few users
do no harm. Its one hyperparameter is chosen inside each training fold. The same probe, on the same folds, reads
the strongest linear features that need no training: a truncated SVD of purchase counts of the same width.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016, arXiv:1610.01644.
Shapes: U users with labels, D width, N item events, J folds over all repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats  # type: ignore[import-untyped]
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.errors import EvaluationError
from training.metrics import Floats, Interval

Matrix = NDArray[np.floating[Any]]

FOLDS = 5
REPEATS = 5
ALPHAS = tuple(np.logspace(-1, 5, 13))


def purchase_svd(
    row_N: NDArray[np.int64], item_N: NDArray[np.int32], users: int, items: int, width: int, seed: int = 0
) -> NDArray[np.float32]:
    """The baseline's features: log(1 + count) of every item per user, reduced to `width` columns, float32 [users, D].

    Args:
        row_N: user of each item event, 0 to users − 1; take the events that the model had read, too.
        item_N: its item code.
        users: number of rows.
        items: size of the catalogue with its reserved codes.
        width: columns to keep; the width of the embedding it stands beside. Where there are fewer users or items
            than that, there are fewer columns.
        seed: of the randomised SVD (Halko et al., SIAM Review 53(2), 2011).
    """
    counts = sparse.csr_matrix((np.ones(len(row_N)), (row_N, item_N)), shape=(users, items))
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)
    rank = min(width, users - 1, items - 1)
    return np.asarray(TruncatedSVD(rank, random_state=seed).fit_transform(counts), dtype=np.float32)


def probe(
    features: Mapping[str, Matrix], labels: Mapping[str, Sequence[str | None]], orders: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """The probe of every label on every set of features, all on the same folds.

    Args:
        features: name → [U, D], such as `embedding` and `baseline`.
        labels: name → U classes; None where a user has none, who is then left out of that label.
        orders: name → its classes from lowest to highest.

    Returns:
        label → {features' name: mean correlation, "intervals": {features' name: {low, high}}, "users": count}, and
        with `embedding` and `baseline` also "embedding_minus_baseline": {mean, low, high} over the same folds.

    Raises:
        EvaluationError: if a label has a class that its order lacks, or too few users for the folds.
    """
    return {name: _probe_label(name, features, values, orders[name]) for name, values in labels.items()}


def _probe_label(
    name: str, features: Mapping[str, Matrix], values: Sequence[str | None], order: Sequence[str]
) -> dict[str, Any]:
    if strange := sorted({v for v in values if v is not None} - set(order)):
        raise EvaluationError(f"label {name!r} has the class {strange[0]!r}, which its order {list(order)} lacks")
    rank_U = np.array([-1 if value is None else order.index(value) for value in values])
    labelled_U = rank_U >= 0
    rank_U = rank_U[labelled_U]
    if len(rank_U) < 4 * FOLDS or len(np.unique(rank_U)) < 2:
        raise EvaluationError(
            f"label {name!r} has {len(rank_U)} users; a probe needs {4 * FOLDS} of two classes or more"
        )
    fold_J = {part: fold_scores(np.asarray(x)[labelled_U], rank_U) for part, x in features.items()}
    intervals = {part: corrected_interval(scores) for part, scores in fold_J.items()}
    out: dict[str, Any] = {part: interval.mean for part, interval in intervals.items()}
    out["intervals"] = {part: {"low": i.low, "high": i.high} for part, i in intervals.items()}
    out["users"] = len(rank_U)
    if {"embedding", "baseline"} <= fold_J.keys():
        gap = corrected_interval(fold_J["embedding"] - fold_J["baseline"])
        out["embedding_minus_baseline"] = {"mean": gap.mean, "low": gap.low, "high": gap.high}
    return out


def fold_scores(x_UD: Matrix, rank_U: NDArray[np.int64], seed: int = 0) -> Floats:
    """Spearman's correlation on each held-out fold, float64 [J]; equal seeds mean equal folds."""
    classes, smallest = np.unique(rank_U, return_counts=True)
    # Stratified by class; rare classes are joined with the nearest, or they could not be spread over the folds.
    strata_U = np.searchsorted(_strata(classes, smallest), rank_U, side="right")
    folds = RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=seed)
    scores = []
    for train, test in folds.split(x_UD, strata_U):
        line = make_pipeline(StandardScaler(), RidgeCV(alphas=ALPHAS)).fit(x_UD[train], rank_U[train])
        guess = line.predict(x_UD[test])
        constant = np.ptp(guess) == 0 or np.ptp(rank_U[test]) == 0
        scores.append(0.0 if constant else float(stats.spearmanr(guess, rank_U[test]).statistic))
    return np.array(scores)


def corrected_interval(score_J: Floats, level: float = 0.95) -> Interval:
    """Mean over repeated folds with an interval that knows that training sets overlap.

    Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003: the variance of the
    mean is (1/J + test/train) times the folds' variance, far more than 1/J.
    """
    centre = float(score_J.mean())
    error = float(score_J.std(ddof=1)) * np.sqrt(1.0 / len(score_J) + 1.0 / (FOLDS - 1))
    reach = float(stats.t.ppf((1.0 + level) / 2.0, len(score_J) - 1)) * error
    return Interval(centre, centre - reach, centre + reach)


def _strata(classes: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Upper borders of runs of neighbouring classes with at least one user a fold; the last run takes what is left."""
    borders: list[int] = []
    filled = 0
    for rank, count in zip(classes.tolist(), size.tolist(), strict=True):
        filled += count
        if filled >= FOLDS:
            borders.append(rank + 1)
            filled = 0
    return np.array(borders[:-1], dtype=np.int64)
