"""A trained model goes on for one surface: what of it learns, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch
from torch import Tensor

from foundation.errors import ModelError
from foundation.jagged import EventBatch, requests_now
from foundation.model import FoundationModel
from foundation.pretrained import load
from foundation.subgraph import Subgraph
from tests.conftest import DAY, Kiosk
from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.errors import SchemaError
from tokenization.tokenizer.tokenizer import Tokenizer
from training.beginning import begin, initial_model
from training.errors import RunError, TrainingError
from training.finetune import FineTuning, Learns, check_fine_tuning, let_learn, tuning_of
from training.loop import train
from training.optimisers import Method
from training.parallel import Parallelism, Ranks, Weights
from training.pretrain import pretrain_bare
from training.recipes import Recipe, with_overrides
from training.run import Run, start
from training.surface import Surface, surface_of
from training.training_set import read_training_set
from training.update import recipe_after

Tune = Callable[[Learns], Run]


@pytest.fixture(scope="module")
def tune(trained: Run, kiosk_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Tune:
    """A finished run for one store, of the trained model; made once for all of the learns that learn."""
    made: dict[Learns, Run] = {}

    def tuned(learns: Learns) -> Run:
        if learns not in made:
            tuning = tuning_of(trained.model, learns, surface_of("store=s1", kiosk_corpus.tokenizer), 1.0, rank=2)
            folder = tmp_path_factory.mktemp("tuned") / "run"
            made[learns] = start(kiosk_corpus, folder, replace(trained.recipe, epochs=2), origin=tuning)
            pretrain_bare(made[learns])
        return made[learns]

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
    ("learns", "changed"),
    [
        (Learns.ANSWERS, {"scores"}),
        (Learns.LOW_RANK, {"scores", "users"}),
        (Learns.FULL, {"scores", "users", "items"}),
    ],
)
def test_what_learns_changes_what_it_is_read_for_and_nothing_else(
    tune: Tune, trained: Run, kiosk_corpus: Corpus, learns: Learns, changed: set[str]
) -> None:
    before, after = (answers(load(run.model).model, kiosk_corpus) for run in (trained, tune(learns)))
    assert {name for name in before if not torch.equal(before[name], after[name])} == changed


@pytest.mark.parametrize("learns", list(Learns))
def test_the_tuned_model_is_an_ordinary_one_that_descends_from_the_trained_one(
    tune: Tune, trained: Run, learns: Learns
) -> None:
    base, tuned = load(trained.model), load(tune(learns).model)
    assert tuned.space.lineage[-1] == base.space.origin
    assert tuned.model.config == base.model.config
    assert f"fine-tuned ({learns}" in tuned.card
    assert "for store=s1" in tuned.card


def test_vectors_that_stay_are_aligned_to_those_of_the_trained_model(tune: Tune, trained: Run) -> None:
    base, tuned, other = (
        Subgraph.from_pretrained(run.model) for run in (trained, tune(Learns.ANSWERS), tune(Learns.FULL))
    )
    assert base.aligned_space.accepts(tuned.aligned_space)
    assert not base.aligned_space.accepts(other.aligned_space)
    vector_VD = base.aligned(base.item_vectors())
    torch.testing.assert_close(tuned.aligned(tuned.item_vectors()), vector_VD, rtol=0, atol=0)


def test_candidates_own_looks_are_answers_too(trained: Run, kiosk_corpus: Corpus) -> None:
    recipe = with_overrides(trained.recipe, {"candidates.layers": "1"})
    model = initial_model(read_training_set(kiosk_corpus, recipe.model), kiosk_corpus, recipe)
    let_learn(model, FineTuning("", "", Learns.ANSWERS))
    assert model.target_attention is not None
    assert all(weight.requires_grad for weight in model.target_attention.parameters())
    assert not any(weight.requires_grad for weight in (*model.trunk.parameters(), *model.tower.parameters()))


def test_a_base_that_is_another_model_now_is_a_sentence(trained: Run, kiosk_corpus: Corpus, tmp_path: Path) -> None:
    other = replace(tuning_of(trained.model, Learns.FULL), fingerprint="0" * 64)
    run = start(kiosk_corpus, tmp_path / "run", trained.recipe, origin=other)
    with pytest.raises(TrainingError, match="and this run began with 000000000000: bring that back, or --restart"):
        pretrain_bare(run)


def test_a_corpus_whose_codes_mean_something_else_is_refused_before_anything_is_learned(
    trained: Run, kiosk: Kiosk, kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    later = kiosk.events.filter(pc.greater(kiosk.events["time"], 30 * DAY))
    tokenizer = Tokenizer.fit(kiosk.schema, later, kiosk.items)
    corpus = write_corpus(tmp_path / "corpus", [tokenizer.transform(later)], tokenizer, kiosk_corpus.summary)
    recipe = recipe_after(trained.recipe, corpus, 1)
    run = start(corpus, tmp_path / "run", recipe, origin=tuning_of(trained.model, Learns.FULL))
    with pytest.raises(SchemaError, match="has other codes in the two"):
        pretrain_bare(run)
    assert not (run.folder / "training.jsonl").exists()


def test_a_run_in_which_nothing_was_learned_may_become_another(
    trained: Run, kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    first, second = (tuning_of(trained.model, Learns.LOW_RANK, rank=rank) for rank in (1, 2))
    start(kiosk_corpus, tmp_path / "run", trained.recipe, origin=first)
    assert start(kiosk_corpus, tmp_path / "run", trained.recipe, origin=second).origin == second


def test_few_numbers_learn_where_changes_are_of_low_rank(trained: Run, kiosk_corpus: Corpus, tmp_path: Path) -> None:
    counts = {}
    for learns in Learns:
        tuning = tuning_of(trained.model, learns, rank=1)
        run = start(kiosk_corpus, tmp_path / learns, trained.recipe, origin=tuning)
        model = begin(run, kiosk_corpus, Ranks.alone()).model
        counts[learns] = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    trunk = load(trained.model).model.trunk
    assert (
        counts[Learns.ANSWERS]
        < counts[Learns.LOW_RANK]
        < counts[Learns.ANSWERS] + sum(w.numel() for w in trunk.parameters())
    )
    assert counts[Learns.LOW_RANK] < counts[Learns.FULL]


@pytest.mark.parametrize("learns", list(Learns))
def test_a_run_that_was_cut_off_goes_on_to_the_same_model(
    tune: Tune, kiosk_corpus: Corpus, tmp_path: Path, learns: Learns, one_thread: None
) -> None:
    whole = tune(learns)
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
    run = tune(Learns.ANSWERS)
    assert Run.open(run.folder).origin == run.origin
    assert isinstance(run.origin, FineTuning)
    other = replace(run.origin, surface=surface_of("store=s2", kiosk_corpus.tokenizer))
    with pytest.raises(RunError, match="holds a run with another finetune"):
        start(kiosk_corpus, run.folder, run.recipe, origin=other)


def test_what_a_recipe_cannot_follow_is_a_sentence(recipe: Recipe) -> None:
    answers_, low = FineTuning("model", "", Learns.ANSWERS), FineTuning("model", "", Learns.LOW_RANK, rank=4)
    stored = replace(recipe, objectives=replace(recipe.objectives, next=0.0))
    with pytest.raises(TrainingError, match="answers by its stored vectors alone, so no answer can be tuned"):
        check_fine_tuning(answers_, stored)
    cut = replace(recipe, parallelism=Parallelism(weights=Weights.SHARDED))
    with pytest.raises(TrainingError, match=r"too small to be cut: set `parallelism\.weights=ddp`"):
        check_fine_tuning(low, cut)
    muon = replace(recipe, optimisation=replace(recipe.optimisation, method=Method.MUON))
    with pytest.raises(TrainingError, match="Muon moves whole matrices"):
        check_fine_tuning(low, muon)
    check_fine_tuning(answers_, muon)
    with pytest.raises(TrainingError, match="'rate' must be above 0"):
        FineTuning("model", "", rate=0.0)
    with pytest.raises(ModelError, match="a matrix of 16 × 16 has no rank 17"):
        check_fine_tuning(replace(low, rank=17), recipe)
    shards = replace(recipe, sampling=replace(recipe.sampling, shards=2))
    with pytest.raises(TrainingError, match="a surface is looked for in the whole log: set `shards=1`"):
        check_fine_tuning(replace(answers_, surface=Surface("store", 0, ("s1",), (2,))), shards)
