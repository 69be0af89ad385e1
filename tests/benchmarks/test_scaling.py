"""The law of scaling is found again where it holds, and a loss is what a softmax says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.scaling import Law, Point, fit, losses, parameters
from foundation.space import Space
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.holdout import Columns, Part, hold_out
from training.recipes import small
from training.training_set import read_training_set


def test_a_law_that_holds_is_found_again() -> None:
    true = Law(offset=5.0, size=0.4, of_size=0.5, data=0.8, of_data=0.7)
    sizes, shares = np.array([1 / 64, 1 / 16, 1 / 4, 1.0]), np.array([1 / 8, 1 / 4, 1 / 2])
    asked = [(size, 1.0) for size in sizes] + [(sizes[2], share) for share in shares]
    points = [
        Point(round(6_400 * size), 1e6 * share, np.full(9, true(np.array(size), np.array(share))))
        for size, share in asked
    ]
    found = fit(points, np.arange(9))
    assert found.offset == pytest.approx(5.0, abs=0.05)
    assert found.of_size == pytest.approx(0.5, abs=0.05)
    assert found.of_data == pytest.approx(0.7, abs=0.05)


def test_a_loss_that_falls_on_and_on_has_no_offset_below_zero() -> None:
    shares = [1 / 8, 1 / 4, 1 / 2, 1.0]
    points = [Point(1_000, 1e6 * share, np.full(9, 8.3 - 0.1 * np.log2(share))) for share in shares]
    found = fit(points, None)
    assert 0.0 <= found.offset < 8.3
    assert float(found(np.array(1.0), np.array(0.125))) == pytest.approx(8.6, abs=0.02)


def test_a_loss_is_the_mean_over_a_users_products_of_the_whole_softmax(kiosk_corpus: Corpus) -> None:
    recipe = small(kiosk_corpus)
    model = initial_model(read_training_set(kiosk_corpus, recipe.model), kiosk_corpus, recipe)
    subgraph = Subgraph(model, kiosk_corpus.tokenizer, Space("kiosk", 1, "0" * 64, model.width, 0.0)).eval()
    held = hold_out(kiosk_corpus.tokens(), Columns.of(kiosk_corpus.tokenizer), kiosk_corpus.split, Part.VALIDATION)
    found = losses(subgraph, held)
    catalogue = len(kiosk_corpus.tokenizer.items) - 2
    assert len(found) == (held.truth.sizes > 0).sum()
    assert np.all(found > 0)
    assert found.mean() < 3 * np.log(catalogue)
    tables = sum(one.weight.numel() for one in subgraph.modules() if isinstance(one, torch.nn.Embedding))
    assert parameters(subgraph) + tables == sum(weight.numel() for weight in subgraph.parameters())
