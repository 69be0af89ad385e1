from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.generation import BEAMS, Asked, Judged, figures_of, interleaved, recalls
from foundation.trie import CodeTrie
from training.metrics import ItemSets


def test_a_union_takes_turns_and_has_each_item_once() -> None:
    one, other = np.array([[5, 6, 7, -1]], np.int32), np.array([[6, 8, 5, 9]], np.int32)
    assert interleaved(one, other, 4).tolist() == [[5, 6, 8, 7]]
    assert interleaved(one, other, 6).tolist() == [[5, 6, 8, 7, 9, -1]]


@pytest.fixture(scope="module")
def judged() -> Judged:
    """Two households, of whom one has nothing to find; the generative list has one item more than the dense one."""
    trie = CodeTrie.of(torch.zeros(300, 1, dtype=torch.int64), torch.zeros(300), 2, (3,))
    truth = ItemSets(np.array([3, 150], np.int32), np.array([0, 2, 2]))
    asked = Asked(truth, truth.sizes, trie, torch.ones(300, dtype=torch.bool), new=False)
    dense = np.tile(np.arange(2, 102, dtype=np.int32), (2, 1))
    first = np.array([[150], [151]], np.int32)
    lists = {"dense": dense, "generative": np.concatenate([first, dense[:, :99]], axis=1)}
    value = np.array([0.25, 0.75])
    plain = dict.fromkeys(("model.ndcg@10", "generative.ndcg@10"), value)
    beams, seconds = dict.fromkeys(BEAMS, value), dict.fromkeys((0, *BEAMS), 0.001)
    return Judged(plain, {"all": recalls(lists, asked)}, beams, seconds, {"linking.texts": 3.0}, {"items": 298})


def test_recalls_are_of_lists_of_one_length_and_of_both_together(judged: Judged) -> None:
    found = judged.recalls["all"]
    assert found["dense@10"][0] == 0.5
    assert found["generative@10"][0] == 1.0
    assert found["union@10"][0] == 1.0
    assert found["both@50+50"][0] == 1.0
    assert np.isnan(found["dense@10"][1])


def test_figures_have_differences_with_intervals(judged: Judged) -> None:
    without = Judged({"model.ndcg@10": np.array([0.25, 0.25])}, {}, {}, {}, {}, {})
    figures = figures_of([judged, judged], [without, without])
    assert figures["all.generative@10_minus_dense@10"] == 0.5
    assert figures["all.both@50+50_minus_dense@100_low"] == 0.5
    assert figures["model.ndcg@10_with_minus_without"] == 0.25
    assert figures["generative_minus_model_ndcg@10"] == 0.0
    assert figures["beam_5.recall@50"] == 0.5
    assert figures["dense.processor_ms"] == 1.0
    assert figures["linking.texts"] == 3.0
