"""Every method under the same loop: which weights it moves, and that it goes on from a checkpoint as if nothing was."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foundation.model import FoundationModel
from tests.training.conftest import train_until
from tokenization.corpus.corpus import Corpus
from training.beginning import initial_model
from training.errors import TrainingError
from training.loop import train
from training.optimisers import Method, Optimisers, hidden_matrices
from training.parallel import Ranks
from training.recipes import Recipe, with_overrides
from training.training_set import TrainingSet

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, KILLED_IN = 13, 8


def by(method: Method, recipe: Recipe) -> Recipe:
    rate = 2e-3 if method is Method.SOPHIA else 6e-3
    return replace(recipe, optimisation=replace(recipe.optimisation, method=method, rate=rate), checkpoint_seconds=0.0)


@pytest.fixture
def model(kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet) -> FoundationModel:
    return initial_model(training_set, kiosk_corpus, recipe)


@pytest.mark.parametrize("method", list(Method))
def test_a_killed_run_goes_on_bit_for_bit(
    kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet, tmp_path: Path, method: Method
) -> None:
    chosen = by(method, recipe)
    straight, expected = train_until(kiosk_corpus, training_set, chosen, tmp_path / "straight")
    train_until(kiosk_corpus, training_set, chosen, tmp_path / "killed", stop=KILLED_IN)
    resumed, records = train_until(kiosk_corpus, training_set, chosen, tmp_path / "killed")
    assert [record.loss for record in records] == [record.loss for record in expected[KILLED_IN - 1 :]]
    assert records[0].step == KILLED_IN
    for (name, weight), (_, other) in zip(resumed.named_parameters(), straight.named_parameters(), strict=True):
        assert torch.equal(weight, other), name


@pytest.mark.parametrize("method", list(Method))
def test_the_loss_falls(
    kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet, tmp_path: Path, method: Method
) -> None:
    _, records = train_until(kiosk_corpus, training_set, by(method, recipe), tmp_path)
    assert sum(r.loss for r in records[-4:]) < 0.97 * sum(r.loss for r in records[:4])


@pytest.mark.parametrize("method", list(Method))
def test_every_weight_has_one_optimiser(model: FoundationModel, recipe: Recipe, method: Method) -> None:
    optimisers = Optimisers(model, by(method, recipe).optimisation)
    assert {id(weight) for weight in optimisers.parameters} == {id(weight) for weight in model.parameters()}
    assert len(optimisers.parameters) == len(list(model.parameters()))
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    for weight in optimisers.sparse_adam.param_groups[0]["params"]:
        weight.grad = weight.grad.to_sparse(1)
    before = [weight.detach().clone() for weight in model.parameters()]
    optimisers.step(1.0)
    assert all((weight != was).all() for weight, was in zip(model.parameters(), before, strict=True))
    assert all(weight.grad is None for weight in optimisers.parameters)


def test_muon_turns_the_trunks_matrices_and_nothing_else(model: FoundationModel, recipe: Recipe) -> None:
    hidden = {id(weight) for weight in hidden_matrices(model)}
    names = {name for name, weight in model.named_parameters() if id(weight) in hidden}
    block = ("query_key_value", "attention_out", "feed_in", "feed_out")
    assert names == {f"trunk.blocks.0.{name}.weight" for name in block}
    optimisers = Optimisers(model, by(Method.MUON, recipe).optimisation)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        # Directions of very different strength: Muon goes about as far in each of them.
        weight.grad = torch.randn_like(weight)
        if name in names:
            u, _, v = torch.linalg.svd(weight.grad, full_matrices=False)
            weight.grad = (u * torch.linspace(1.0, 0.05, len(v))) @ v
    for weight in optimisers.sparse_adam.param_groups[0]["params"]:
        weight.grad = weight.grad.to_sparse(1)
    optimisers.step(1.0)
    for name in names:
        was, now = before[name], dict(model.named_parameters())[name].detach()
        decayed = was * (1 - recipe.optimisation.rate * recipe.optimisation.weight_decay)
        strength = torch.linalg.svdvals(now - decayed)
        assert strength[-1] > 0.4 * strength[0], name
        # As long a step as AdamW's, by arXiv:2502.16982: 0.2 of the rate a weight.
        length = 0.2 * recipe.optimisation.rate * math.sqrt(was.numel())
        assert float((now - decayed).norm()) == pytest.approx(length, rel=0.3)


@pytest.mark.parametrize("other", [Method.MUON, Method.SOPHIA])
def test_a_checkpoint_of_another_method_is_refused_with_a_sentence(
    kiosk_corpus: Corpus, recipe: Recipe, training_set: TrainingSet, tmp_path: Path, other: Method
) -> None:
    train_until(kiosk_corpus, training_set, by(Method.ADAMW, recipe), tmp_path, stop=3)
    with pytest.raises(TrainingError, match="of another model or userfm than this: take a new run directory"):
        train(
            initial_model(training_set, kiosk_corpus, recipe),
            training_set,
            by(other, recipe),
            tmp_path,
            Ranks.alone(),
            lambda record: None,
        )


def test_the_method_is_a_setting(recipe: Recipe) -> None:
    chosen = with_overrides(recipe, {"method": "muon"})
    assert chosen.optimisation.method is Method.MUON
    assert Recipe.from_json(chosen.to_json()) == chosen
    assert recipe.optimisation.method is Method.ADAMW
    with pytest.raises(TrainingError, match="takes one of adamw, muon, sophia, got 'sgd'"):
        with_overrides(recipe, {"method": "sgd"})


def test_sophia_is_observed_every_tenth_step_only(model: FoundationModel, recipe: Recipe) -> None:
    optimisers = Optimisers(model, by(Method.SOPHIA, recipe).optimisation)
    asked: list[int] = []
    for step in range(21):

        def slope(step: int = step) -> list[torch.Tensor]:
            asked.append(step)
            return [torch.zeros_like(weight) for weight in optimisers.dense]

        optimisers.observe(slope)
        optimisers.step(1.0)
    assert asked == [0, 0, 10, 10, 20, 20]  # a little ahead and a little behind


def test_only_rows_in_use_move(model: FoundationModel, recipe: Recipe) -> None:
    optimisers = Optimisers(model, recipe.optimisation)
    before = model.tower.id.weight.detach().clone()
    model.tower(torch.tensor([5, 9])).square().sum().backward()
    for weight in optimisers.dense:
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
    model.tower.popularity(torch.tensor([5])).sum().backward()
    optimisers.step(1.0)
    moved = (model.tower.id.weight != before).any(1).nonzero().squeeze(1)
    assert moved.tolist() == [5, 9]
    assert all(weight.grad is None for weight in optimisers.parameters)


def test_large_gradients_are_clipped(model: FoundationModel, recipe: Recipe) -> None:
    optimisers = Optimisers(model, recipe.optimisation)
    for weight in optimisers.dense:
        weight.grad = torch.full_like(weight, 100.0)
    for weight in optimisers.sparse_adam.param_groups[0]["params"]:
        weight.grad = torch.zeros_like(weight, layout=torch.sparse_coo)
    count = sum(weight.numel() for weight in optimisers.dense)
    assert optimisers.step(1.0) == pytest.approx(100 * math.sqrt(count), rel=1e-3)
