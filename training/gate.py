"""A model beside the one that it came from: both judged by what neither has learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.translation import translation
from training.errors import EvaluationError
from training.evaluate import refuse_other_split
from training.holdout import Columns, Holdout, Part, Requests, Scorer, hold_out
from training.metrics import Interval, mean, paired_bootstrap
from training.ranking import Slice, evaluate
from training.recipes import Recipe
from training.run import Run
from training.scorers import model_scorers
from training.surface import Surface
from training.training_set import Until
from training.update import Update, judges

ALLOWED = 0.005
UNLEARNED: Mapping[Until, Part | None] = {Until.VALIDATION: Part.VALIDATION, Until.TEST: Part.TEST, Until.END: None}
"""The part of the log that a run has not learned, and comes first."""


@dataclass(frozen=True)
class Beside:
    """NDCG@10 of both models over the same users. gap: new − old, paired, with its interval. on: what they were judged
    by, in words."""

    users: int
    new: float
    old: float
    gap: Interval
    on: str = "the news"

    def sentence(self) -> str:
        """For people."""
        gap = f"{self.gap.mean:+.4f}, {self.gap.low:+.4f} to {self.gap.high:+.4f}"
        return (
            f"NDCG@10 on {self.on} of {self.users:,} users, which it has not learned: {self.new:.4f}, the old model "
            f"{self.old:.4f} ({gap})"
        )


@dataclass(frozen=True)
class Verdict:
    """Whether today's model may take the place of yesterday's. allowed: loss of NDCG@10 that is no reason to refuse."""

    found: Beside
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether today's model may be published: it is not worse by more than was allowed, nor surely worse at all."""
        return self.found.gap.mean >= -self.allowed and self.found.gap.high >= 0

    def sentence(self) -> str:
        """For people."""
        word = "may take the place of the old one" if self.passed else "is worse than the old one"
        return f"{self.found.sentence()}: the new model {word}"


def verdict(run: Run, update: Update, corpus: Corpus, allowed: float = ALLOWED) -> Verdict:
    """Judge the model of an update beside its base, on the first new group of each judging user. allowed: as in
    `Verdict`.

    Raises EvaluationError where none of the judging users has done anything new.
    """
    held = corpus.tokens().filter(pa.array(judges(corpus.user_ids, update.held)))
    # Everything up to and including the last event that the base has learned is history.
    split = Split("time", float(np.nextafter(update.since, np.inf)), None, None)
    try:
        holdout = hold_out(held, Columns.of(corpus.tokenizer), split)
    except EvaluationError as error:
        raise EvaluationError(
            f"none of the {held.num_rows:,} users who judge has news after a past: raise --held, or update less often"
        ) from error
    return Verdict(_beside(run, update.base, holdout, corpus, "the news"), allowed)


def beside(run: Run, base: str, corpus: Corpus, part: Part, surface: Surface | None = None) -> Beside:
    """Judge a run's model beside the one that it was made from, on a part of the log that neither has learned.

    surface: that alone is asked for. Raises EvaluationError where nobody comes to it in that part.
    """
    on = f"the {part} part" + ("" if surface is None else f" of {surface}")
    return _beside(run, base, judged_on(corpus, part, surface), corpus, on)


def judged_on(corpus: Corpus, part: Part, surface: Surface | None = None) -> Holdout:
    """What is asked on a part of the log. Raises EvaluationError where nothing is."""
    return hold_out(corpus.tokens(), Columns.of(corpus.tokenizer, surface), corpus.split, part)


def unlearned_part(before: Run, corpus: Corpus) -> Part | None:
    """The part of the log by which a run that goes on from another will be judged beside it; None: there is none.

    Raises EvaluationError where the log is cut elsewhere now than when that one learned it: it may have learned what it
    would be judged by.
    """
    part = UNLEARNED[before.until]
    if part is not None:
        refuse_other_split(before.folder, corpus.split, part)
    return part


def answering(recipe: Recipe) -> str:
    """The scorer by which a model of the recipe answers: what was not learned is no answer."""
    if recipe.model.candidates.layers:
        return "target_aware"
    return "model" if recipe.objectives.next else "embedding"


def as_before(old: Subgraph, corpus: Corpus, items: int, scorer: str = "model") -> Scorer:
    """The scores of a model that knows less than the corpus: what came since is unknown to it, and no candidate."""
    score, known = model_scorers(old)[scorer], len(old.tokenizer.items)
    same = corpus.tokenizer.fingerprint == old.tokenizer.fingerprint
    told = None if same else translation(corpus.tokenizer, old.tokenizer)

    def scored(requests: Requests) -> NDArray[np.float32]:
        history = requests.history if told is None else told.apply(requests.history)
        context = np.where(requests.context < _sizes(old), requests.context, 1)
        found_nW = score(replace(requests, history=history, context=context))
        score_nV = np.full((len(requests), items), -np.inf, np.float32)
        score_nV[:, :known] = found_nW
        return score_nV

    return scored


def _beside(run: Run, base: str, holdout: Holdout, corpus: Corpus, on: str) -> Beside:
    new, old = Subgraph.from_pretrained(run.model), Subgraph.from_pretrained(base)
    items, scorer = len(corpus.tokenizer.items), answering(run.recipe)
    scorers = {"new": model_scorers(new)[scorer], "old": as_before(old, corpus, items, scorer)}
    judged = evaluate(holdout, scorers, items).judged
    ndcg_U = {name: one.values[Slice.ALL]["ndcg@10"] for name, one in judged.items()}
    gap = paired_bootstrap(ndcg_U["new"], ndcg_U["old"])
    return Beside(len(holdout), mean(ndcg_U["new"]), mean(ndcg_U["old"]), gap, on)


def _sizes(model: Subgraph) -> NDArray[np.int64]:
    """Codes that the model knows of each context facet."""
    return np.array([facet.size for facet in model.model.config.context], dtype=np.int64)
