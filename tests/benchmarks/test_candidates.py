from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.candidates import HISTORY, VARIANTS, _gains, _long_history, judged, trained
from foundation.config import CandidateConfig
from foundation.jagged import EventBatch
from tokenization.corpus.corpus import Corpus
from training.recipes import small


def test_the_first_variant_is_the_one_without() -> None:
    assert next(iter(VARIANTS.values())).layers == 0
    assert all(candidates.layers for candidates in list(VARIANTS.values())[1:])


def test_the_long_history_is_the_end_of_one_users(kiosk_corpus: Corpus) -> None:
    events = EventBatch.from_tokens(kiosk_corpus.tokens(), ["product"])
    user = _long_history(events)
    longest = int(torch.diff(events.offset_B1).argmax())
    begin, end = int(events.offset_B1[longest]), int(events.offset_B1[longest + 1])
    assert user.tokens == min(end - begin, HISTORY)
    assert torch.equal(user.facet_TF, events.facet_TF[end - user.tokens : end])


def test_gains_are_paired_with_every_rival() -> None:
    on = {"target_aware": np.array([0.5, 0.7]), "model": np.array([0.4, 0.6]), "embedding": np.array([0.1, 0.3])}
    off = {"model": np.array([0.3, 0.5])}
    found = _gains(
        "on", {f"{name}.ndcg@10": value for name, value in on.items()}, "off", {"model.ndcg@10": off["model"]}
    )
    for other, gain in (("model", 0.1), ("embedding", 0.4), ("off", 0.2)):
        told = f"on.target_aware_minus_{other}"
        assert [found[f"{told}{end}"] for end in ("", "_low", "_high")] == pytest.approx([gain] * 3)


def test_a_variant_learns_for_its_time_and_is_judged_on_the_validation_part(kiosk_corpus: Corpus) -> None:
    recipe = small(kiosk_corpus)
    recipe = replace(recipe, model=replace(recipe.model, candidates=CandidateConfig(layers=1)))
    model, steps = trained(kiosk_corpus, recipe, 0.2, lambda done, total: None)
    assert steps >= 1
    found = judged(model, kiosk_corpus)
    assert {"target_aware.ndcg@10", "model.ndcg@10", "embedding.new_recall@50"} <= set(found)
    assert np.nanmax(found["target_aware.ndcg@10"]) > 0
