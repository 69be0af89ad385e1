"""The probe finds what is in the features, nothing where there is nothing, and says how sure it is."""

from __future__ import annotations

import numpy as np
import pytest

from training.errors import EvaluationError
from training.metrics import Interval
from training.probe import corrected_interval, fold_scores, probe, purchase_svd

ORDER = ["low", "middle", "high"]


def informative(users: int = 300, seed: int = 0) -> tuple[np.ndarray, list[str | None]]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((users, 6))
    rank = np.digitize(x @ rng.standard_normal(6), [-1.0, 1.0])
    return x, [ORDER[r] for r in rank]


def test_a_label_on_a_line_is_found_and_noise_is_not() -> None:
    x, label = informative()
    noise = np.random.default_rng(1).standard_normal(x.shape)
    found = probe({"embedding": x, "baseline": noise}, {"age": label}, {"age": ORDER})["age"]
    assert found["embedding"] > 0.8
    assert abs(found["baseline"]) < 0.2
    assert found["embedding_minus_baseline"]["low"] > 0
    assert found["intervals"]["embedding"]["low"] < found["embedding"] < found["intervals"]["embedding"]["high"]
    assert found["users"] == 300


def test_users_without_a_label_are_left_out() -> None:
    x, label = informative()
    masked: list[str | None] = [None if i % 3 == 0 else value for i, value in enumerate(label)]
    kept = [i for i in range(300) if i % 3]
    found = probe({"embedding": x}, {"age": masked}, {"age": ORDER})["age"]
    alone = probe({"embedding": x[kept]}, {"age": [label[i] for i in kept]}, {"age": ORDER})["age"]
    assert found == alone
    assert found["users"] == 200


def test_a_class_of_one_user_does_no_harm() -> None:
    x, label = informative()
    found = probe({"embedding": x}, {"age": ["rare", *label[1:]]}, {"age": ["rare", *ORDER]})["age"]
    assert found["embedding"] > 0.75


def test_the_same_folds_give_the_same_scores() -> None:
    x, label = informative()
    rank = np.array([ORDER.index(str(value)) for value in label])
    np.testing.assert_array_equal(fold_scores(x, rank), fold_scores(x, rank))


def test_a_constant_feature_is_chance() -> None:
    _, label = informative()
    assert probe({"embedding": np.ones((300, 1))}, {"age": label}, {"age": ORDER})["age"]["embedding"] == 0.0


def test_the_interval_is_wider_than_that_of_independent_folds() -> None:
    scores = np.array([0.3, 0.4, 0.5, 0.35, 0.45] * 5)
    got = corrected_interval(scores)
    naive = 1.96 * scores.std(ddof=1) / np.sqrt(len(scores))
    assert got.mean == pytest.approx(0.4)
    assert got.high - got.mean > 2 * naive
    assert isinstance(got, Interval)


def test_a_class_outside_the_order_is_named() -> None:
    x, label = informative()
    with pytest.raises(EvaluationError, match="'strange'"):
        probe({"embedding": x}, {"age": ["strange", *label[1:]]}, {"age": ORDER})


def test_too_few_users_are_refused() -> None:
    with pytest.raises(EvaluationError, match="5 users"):
        probe({"embedding": np.ones((5, 1))}, {"age": ["low"] * 5}, {"age": ORDER})


def test_svd_features_keep_what_users_bought_apart() -> None:
    row = np.repeat(np.arange(40), 3)
    item = (2 + 3 * (row % 2) + np.tile([0, 1, 2], 40)).astype(np.int32)
    features = purchase_svd(row, item, users=40, items=8, width=2)
    assert features.shape == (40, 2)
    even, odd = features[0], features[1]
    np.testing.assert_allclose(features[::2], np.tile(even, (20, 1)), atol=1e-5)
    np.testing.assert_allclose(features[1::2], np.tile(odd, (20, 1)), atol=1e-5)
    assert np.linalg.norm(even - odd) > 1
