"""A trained model goes on for one surface: what of it learns, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foundation.jagged import EventBatch, requests_now
from foundation.model import FoundationModel
from foundation.pretrained import load
from tokenization.corpus.corpus import Corpus
from training.beginning import begin
from training.errors import RunError, TrainingError
from training.finetune import FineTuning, Parts, check_fine_tuning
from training.loop import train
from training.optimisers import Method
from training.parallel import Parallelism, Ranks, Weights
from training.pretrain import pretrain_bare
from training.recipes import Recipe
from training.run import Run, start
from training.surface import surface_of

Tune = Callable[[Parts], Run]


@pytest.fixture(scope="module")
def tune(trained: Run, kiosk_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Tune:
    """A finished run for one store, of the trained model; made once for all of the parts that learn."""
    made: dict[Parts, Run] = {}

    def tuned(parts: Parts) -> Run:
        if parts not in made:
            tuning = FineTuning(str(trained.model), parts, surface_of("store=s1", kiosk_corpus.tokenizer), 1.0, rank=2)
            folder = tmp_path_factory.mktemp("tuned") / "run"
            made[parts] = start(kiosk_corpus, folder, replace(trained.recipe, epochs=2), origin=tuning)
            pretrain_bare(made[parts])
        return made[parts]

    return tuned


def answers(model: FoundationModel, corpus: Corpus) -> dict[str, Tensor]:
    """What a model says of everybody now, told where they are."""
    batch = EventBatch.from_tokens(corpus.tokens(), model.config.facet_names)
    context_BC = torch.full((batch.users, len(model.config.context)), 2)
    with torch.no_grad():
        states = model(batch, requests_now(batch, None, context_BC))
        item_VD = model.item_vectors()
        users = model.user_vectors(states)
        return {"users": users, "items": item_VD, "scores": model.scores(states, item_VD)}


@pytest.mark.parametrize(
    ("parts", "changed"),
    [
        (Parts.HEAD, {"scores"}),
        (Parts.LOW_RANK, {"scores", "users"}),
        (Parts.FULL, {"scores", "users", "items"}),
    ],
)
def test_what_learns_changes_what_it_is_read_for_and_nothing_else(
    tune: Tune, trained: Run, kiosk_corpus: Corpus, parts: Parts, changed: set[str]
) -> None:
    before, after = (answers(load(run.model).model, kiosk_corpus) for run in (trained, tune(parts)))
    assert {name for name in before if not torch.equal(before[name], after[name])} == changed


@pytest.mark.parametrize("parts", list(Parts))
def test_the_tuned_model_is_an_ordinary_one_that_descends_from_the_trained_one(
    tune: Tune, trained: Run, parts: Parts
) -> None:
    base, tuned = load(trained.model), load(tune(parts).model)
    assert tuned.space.lineage[-1] == base.space.origin
    assert tuned.model.config == base.model.config
    assert f"fine-tuned ({parts}" in tuned.card
    assert "for store=s1" in tuned.card


def test_few_numbers_learn_where_changes_are_of_low_rank(trained: Run, kiosk_corpus: Corpus, tmp_path: Path) -> None:
    counts = {}
    for parts in Parts:
        tuning = FineTuning(str(trained.model), parts, rank=1)
        run = start(kiosk_corpus, tmp_path / parts, trained.recipe, origin=tuning)
        model = begin(run, kiosk_corpus, Ranks.alone()).model
        counts[parts] = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    trunk = load(trained.model).model.trunk
    assert counts[Parts.HEAD] < counts[Parts.LOW_RANK] < counts[Parts.HEAD] + sum(w.numel() for w in trunk.parameters())
    assert counts[Parts.LOW_RANK] < counts[Parts.FULL]


@pytest.mark.parametrize("parts", list(Parts))
def test_a_run_that_was_cut_off_goes_on_to_the_same_model(
    tune: Tune, kiosk_corpus: Corpus, tmp_path: Path, parts: Parts, one_thread: None
) -> None:
    whole = tune(parts)
    run = start(kiosk_corpus, tmp_path / "run", whole.recipe, origin=whole.origin)
    began, seen = begin(run, kiosk_corpus, Ranks.alone()), list[int]()
    recipe = replace(began.recipe, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(began.model, began.training_set, recipe, run.checkpoints, Ranks.alone(), lambda record: _cut(record.step))
    pretrain_bare(run, lambda record: seen.append(record.step))
    assert seen[0] > 1
    found, expected = (answers(load(one.model).model, kiosk_corpus) for one in (run, whole))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def _cut(step: int) -> None:
    if step == 3:
        raise KeyboardInterrupt


def test_another_surface_is_another_run(tune: Tune, kiosk_corpus: Corpus) -> None:
    run = tune(Parts.HEAD)
    assert Run.open(run.folder).origin == run.origin
    assert isinstance(run.origin, FineTuning)
    other = replace(run.origin, surface=surface_of("store=s2", kiosk_corpus.tokenizer))
    with pytest.raises(RunError, match="holds a run with another finetune"):
        start(kiosk_corpus, run.folder, run.recipe, origin=other)


def test_what_a_recipe_cannot_follow_is_a_sentence(recipe: Recipe) -> None:
    head, low = (FineTuning("model", parts) for parts in (Parts.HEAD, Parts.LOW_RANK))
    stored = replace(recipe, objectives=replace(recipe.objectives, next=0.0))
    with pytest.raises(TrainingError, match="answers by its stored vectors alone, so there is no head to tune"):
        check_fine_tuning(head, stored)
    cut = replace(recipe, parallelism=Parallelism(weights=Weights.SHARDED))
    with pytest.raises(TrainingError, match=r"too small to be cut: set `parallelism\.weights=ddp`"):
        check_fine_tuning(low, cut)
    muon = replace(recipe, optimisation=replace(recipe.optimisation, method=Method.MUON))
    with pytest.raises(TrainingError, match="Muon moves whole matrices"):
        check_fine_tuning(low, muon)
    check_fine_tuning(head, muon)
    with pytest.raises(TrainingError, match="'rate' must be above 0"):
        FineTuning("model", rate=0.0)
