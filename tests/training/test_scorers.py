"""A run whose candidates read the user's states, from training.training_set import read_training_set
from training to the table of figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foundation.config import CandidateConfig
from foundation.heads import Heads
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training import pretrain
from training.beginning import initial_model
from training.evaluate import evaluate_run
from training.holdout import Columns, Part, hold_out
from training.recipes import Recipe
from training.run import Run, start
from training.scorers import inputs, model_scorers
from training.tables import evaluation_rows
from training.training_set import read_training_set


@pytest.fixture(scope="module")
def aware(kiosk_corpus: Corpus, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two epochs of the kiosk; the checkpoints are those of a run that was resumed after the first."""
    folder = tmp_path_factory.mktemp("aware") / "run"
    model = replace(recipe.model, candidates=CandidateConfig(layers=1, heads=2, reach=8))
    run = start(kiosk_corpus, folder, replace(recipe, model=model, epochs=2))
    pretrain.pretrain_bare(run)
    return run


def test_its_loss_is_logged_and_its_weights_move(aware: Run) -> None:
    records = [json.loads(line) for line in aware.log.read_text().splitlines()]
    assert all(np.isfinite(record["losses"]["target_aware"]) for record in records)
    attention = Subgraph.from_pretrained(aware.model).model.target_attention
    assert attention is not None
    assert attention.out.weight.abs().max() > 0


def test_a_run_without_it_logs_and_scores_nothing_of_it(trained: Run) -> None:
    assert "target_aware" not in json.loads(trained.log.read_text().splitlines()[0])["losses"]
    assert list(model_scorers(Subgraph.from_pretrained(trained.model))) == ["embedding", "model"]


def test_the_scorer_reranks_what_the_model_scores_in_any_company(aware: Run, kiosk_corpus: Corpus) -> None:
    subgraph = Subgraph.from_pretrained(aware.model)
    held = hold_out(kiosk_corpus.tokens(), Columns.of(kiosk_corpus.tokenizer), kiosk_corpus.split, Part.VALIDATION)
    score = model_scorers(subgraph)["target_aware"]
    requests = held.requests(0, len(held))
    together = score(requests)
    apart = np.concatenate([score(requests) for _, requests in held.chunks(3)])
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        states = subgraph.states(*inputs(subgraph, requests))
        every = torch.arange(subgraph.model.tower.codes).expand(len(held), -1)
        np.testing.assert_allclose(together, subgraph.model.scores_of(states, every).numpy(), rtol=1e-4, atol=1e-4)


def test_evaluation_has_a_row_for_it_beside_the_others(aware: Run, kiosk_corpus: Corpus) -> None:
    found = evaluate_run(aware.folder, kiosk_corpus, Part.VALIDATION)
    assert {"target_aware", "model", "embedding"} <= set(found.judged)
    assert 0 <= found.figures()["target_aware"]["all"]["ndcg@10"] <= 1
    names = [row.name for row in evaluation_rows(found.figures(), "all")[1]]
    assert names[:3] == ["Model", "Model, target-aware", "Embedding (dot product)"]


def test_the_home_head_starts_from_the_reranked_scores(aware: Run, kiosk_corpus: Corpus) -> None:
    subgraph = Subgraph.from_pretrained(aware.model)
    heads = Heads.untrained(subgraph)
    _, batch = subgraph.pack(kiosk_corpus.tokens().slice(0, 4))
    with torch.no_grad():
        states = subgraph.states(batch)
        torch.testing.assert_close(heads.home(batch), subgraph.model.reranked(states, heads.item_VD))
        assert not torch.allclose(heads.home(batch), subgraph.model.scores(states, heads.item_VD))


def test_a_run_that_is_resumed_learns_what_it_would_have_learned(
    aware: Run, kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    """The slates are drawn from the step and the request, not from a running generator."""
    losses = []
    for _ in range(2):
        torch.rand(7)  # whatever else draws in this process
        training_set = read_training_set(kiosk_corpus, aware.recipe.model)
        model = initial_model(training_set, kiosk_corpus, aware.recipe)
        torch.rand(3 + len(losses))
        records: list[float] = []
        pretrain.train(
            model,
            training_set,
            aware.recipe,
            tmp_path / str(len(losses)),
            pretrain.Ranks.alone(),
            lambda record, told=records: told.append(record.loss),  # type: ignore[misc]
        )
        losses.append(records)
    assert losses[0] == losses[1]


def test_interests_are_scored_by_the_best_of_them(kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    model = replace(recipe.model, interests=2, pools=(2, 8), state_layers=tuple(range(recipe.model.layers)))
    run = start(kiosk_corpus, tmp_path / "run", replace(recipe, model=model, epochs=1))
    pretrain.pretrain_bare(run)
    subgraph = Subgraph.from_pretrained(run.model)
    held = hold_out(kiosk_corpus.tokens(), Columns.of(kiosk_corpus.tokenizer), kiosk_corpus.split, Part.VALIDATION)
    requests = held.requests(0, len(held))
    with torch.no_grad():
        batch, at, _ = inputs(subgraph, requests)
        found = subgraph.interests(batch, at) @ subgraph.item_vectors().T
    np.testing.assert_allclose(
        model_scorers(subgraph)["interests"](requests), found.amax(1).numpy(), rtol=1e-4, atol=1e-4
    )
    figures = evaluate_run(run.folder, kiosk_corpus, Part.VALIDATION).figures()
    assert "Interests (best dot product)" in [row.name for row in evaluation_rows(figures, "all")[1]]
