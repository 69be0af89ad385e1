"""What a run begins with: a new model, or one that goes on from another, and what is learned of the log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foundation import pretrained
from foundation.growth import grown
from foundation.model import FoundationModel
from foundation.pretrained import Pretrained
from foundation.start import shared_start
from foundation.teaching import Teaching
from tokenization.corpus.corpus import Corpus
from tokenization.tokenizer.translation import translation
from training.data import row_tokens
from training.distill import Distillation, teaching_of
from training.errors import TrainingError
from training.finetune import FineTuning, let_learn
from training.parallel import Ranks
from training.recipes import Recipe, Start
from training.run import Run
from training.training_set import ALL, TrainingSet, content_of, joined, read_training_set, surfaced
from training.update import Update, gentle, judges, news, unjudged
from training.user_shards import UserShards


@dataclass(frozen=True)
class Beginning:
    """What a run begins with on one rank.

    model: on the CPU, the same on every rank and device; weights that need no gradient don't learn. training_set: what
    this rank learns. recipe: as it is followed. teaching: by another model, if any.
    """

    model: FoundationModel
    training_set: TrainingSet
    recipe: Recipe
    teaching: Teaching | None = None


def begin(run: Run, corpus: Corpus, ranks: Ranks) -> Beginning:
    """What a run begins with, whatever it goes on from.

    Raises ModelError, TrainingError or SchemaError where that is no longer what it was, or means other things by its
    codes than the corpus does.
    """
    recipe = run.recipe
    shards = UserShards.of_rank(ranks.rank, ranks.count, recipe.sampling.shards)
    known = joined(read_training_set(corpus, recipe.model, run.until, shards), ranks)
    match run.origin:
        case Update() as update:
            return _updated(update, known, corpus, recipe)
        case FineTuning() as tuning:
            return _tuned(tuning, known, corpus, recipe, ranks)
        case Distillation() as distillation:
            return _taught(distillation, known, corpus, recipe, ranks)
    return Beginning(initial_model(known, corpus, recipe, ranks), known, recipe)


def initial_model(training_set: TrainingSet, corpus: Corpus, recipe: Recipe, ranks: Ranks = ALL) -> FoundationModel:
    """A new model of the recipe, its weights drawn as the recipe's `start` says."""
    tokenizer = corpus.tokenizer
    content = content_of(training_set, tokenizer, recipe.model, ranks)
    if recipe.start is Start.SHARED:
        ids = tokenizer.items.ids
        return shared_start(recipe.model, content, ids.decode(np.arange(len(tokenizer.items), dtype=np.int32)))
    torch.manual_seed(recipe.seed)
    return FoundationModel(recipe.model, content)


def _updated(update: Update, known: TrainingSet, corpus: Corpus, recipe: Recipe) -> Beginning:
    known = unjudged(known, update, judges(corpus.user_ids, update.held), recipe.model)
    model = _grown(_as_told(update.base, update.fingerprint), known, corpus, recipe, ALL)
    fresh = news(known, update, row_tokens(recipe.sampling), recipe.seed)
    return Beginning(model, fresh, gentle(recipe, update.rate))


def _tuned(tuning: FineTuning, known: TrainingSet, corpus: Corpus, recipe: Recipe, ranks: Ranks) -> Beginning:
    model = _grown(_as_told(tuning.base, tuning.fingerprint), known, corpus, recipe, ranks)
    torch.manual_seed(recipe.seed)
    let_learn(model, tuning)
    return Beginning(model, surfaced(known, tuning.surface), gentle(recipe, tuning.rate))


def _taught(distillation: Distillation, known: TrainingSet, corpus: Corpus, recipe: Recipe, ranks: Ranks) -> Beginning:
    teacher = _as_told(distillation.teacher, distillation.fingerprint)
    if teacher.tokenizer.fingerprint != corpus.tokenizer.fingerprint:
        raise TrainingError(
            f"{teacher.space.origin} was trained with another tokenizer than this corpus has: teach with a model of it"
        )
    return Beginning(
        initial_model(known, corpus, recipe, ranks), known, recipe, teaching_of(distillation, teacher.model)
    )


def _as_told(base: str, fingerprint: str) -> Pretrained:
    """A model directory with the model that the run was begun with. (Updates of earlier versions did not note it.)"""
    found = pretrained.load(Path(base))
    if fingerprint and found.space.fingerprint != fingerprint:
        raise TrainingError(
            f"{base} holds {found.space.origin} now, and this run began with {fingerprint[:12]}: "
            "bring that back, or --restart"
        )
    return found


def _grown(base: Pretrained, known: TrainingSet, corpus: Corpus, recipe: Recipe, ranks: Ranks) -> FoundationModel:
    """The trained model, with room for what the corpus has had since."""
    translation(corpus.tokenizer, base.tokenizer)  # names a facet whose codes mean something else
    return grown(base.model, recipe.model, content_of(known, corpus.tokenizer, recipe.model, ranks))
