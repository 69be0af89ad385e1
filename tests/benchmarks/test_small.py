"""What is made small stays close, and what is counted of it is what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.small import QUANTISERS, int8_weights, overlap, quantised
from foundation.space import Space
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.recipes import small
from training.training_set import read_training_set


@pytest.mark.parametrize(("name", "steps"), [("fp16", 2048), ("int8", 255), ("int4", 15)])
def test_a_quantised_vector_is_off_by_less_than_a_step_of_its_dimension(name: str, steps: int) -> None:
    vector_ND = torch.randn(500, 9, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 10)
    off_D = (quantised(QUANTISERS[name], vector_ND) - vector_ND).abs().amax(0)
    spread_D = vector_ND.amax(0) - vector_ND.amin(0)
    assert torch.all(off_D <= spread_D / steps)
    assert torch.any(off_D > 0)


def test_overlap_counts_what_both_lists_hold_in_any_order() -> None:
    one, other = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=np.int32), np.array([[4, 3, 9, 1], [5, 6, 7, 8]])
    np.testing.assert_array_equal(overlap(one, other.astype(np.int32)), [0.75, 1.0])


def test_int8_weights_change_vectors_a_little_and_the_model_they_came_from_not_at_all(kiosk_corpus: Corpus) -> None:
    recipe = small(kiosk_corpus)
    model = initial_model(read_training_set(kiosk_corpus, recipe.model), kiosk_corpus, recipe)
    whole = Subgraph(model, kiosk_corpus.tokenizer, Space("kiosk", 1, "0" * 64, model.width, 0.0)).eval()
    with torch.inference_mode():
        before = whole.item_vectors().clone()
        made = int8_weights(whole).item_vectors()
        torch.testing.assert_close(whole.item_vectors(), before, rtol=0, atol=0)
    off = (made - before)[:, :-1].norm(dim=1) / before[:, :-1].norm(dim=1).clamp(min=1e-6)
    assert 0 < float(off.max()) < 0.05
