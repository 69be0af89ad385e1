"""A run that goes on from yesterday's model: it grows by what is new, and learns the new events beside some old ones.

Learning what is new alone would push out what was known (McCloskey & Cohen, 1989); rows of before among those with news
keep it in (experience replay: Rolnick et al., arXiv:1811.11682). The news of some users are not learned, so that the
model can be judged beside yesterday's by what neither has seen (training/gate.py).

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from foundation import pretrained
from foundation.alignment import UNALIGNED, Alignment
from foundation.config import ModelConfig
from foundation.jagged import EventBatch
from foundation.model import FoundationModel
from foundation.pretrained import Pretrained
from foundation.start import keys_of
from tokenization.corpus.corpus import Corpus
from tokenization.tokenizer.tokenizer import Tokenizer
from training.errors import TrainingError
from training.recipes import Recipe
from training.training_set import TrainingSet, facet_configs, in_windows, item_config, kept, meetings, select_users

WARMUP = 5  # steps


@dataclass(frozen=True)
class Update:
    """What a run goes on from.

    base: model directory; fingerprint: of the model in it; since: epoch seconds until which that had learned. rate:
    share of the recipe's rates. replay: rows that are asked for anything, for each row that is asked for its news.
    held: share of the users whose news are not learned, and judge.
    """

    base: str
    since: float
    rate: float = 0.3
    replay: float = 1.0
    held: float = 0.1
    fingerprint: str = ""

    def __post_init__(self) -> None:
        for name in ("rate", "replay"):
            if not getattr(self, name) >= 0:
                raise TrainingError(f"update: {name!r} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.held < 1:
            raise TrainingError(f"update: 'held' is a share, from 0 to below 1, got {self.held}")

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Of plain numbers and words, as `asdict` and JSON leave it."""
        return cls(**told)


def of_model(base: Path, rate: float, replay: float, held: float) -> Update:
    """An update of a model directory, from where it has learned until.

    Raises ModelError where it is none, TrainingError where its log tells no times, by which news are told.
    """
    known = pretrained.load(base)
    if known.tokenizer.schema.time is None:
        raise TrainingError(f"the log of {known.space.name} has no times, so nothing says what is new: train it again")
    return Update(str(base.resolve()), known.space.as_of, rate, replay, held, known.space.fingerprint)


def recipe_after(recipe: Recipe, corpus: Corpus, epochs: int) -> Recipe:
    """The recipe of yesterday's run with the vocabularies of today, for so many passes. Its rates stay those of the
    first training, of which each update takes its own share: shares of shares would vanish in a week."""
    return replace(recipe, model=larger(recipe.model, corpus.tokenizer), epochs=epochs)


def gentle(recipe: Recipe, rate: float) -> Recipe:
    """The recipe at a share of its rates, which are reached within a few steps."""
    full = recipe.optimisation
    warmup = min(full.warmup, WARMUP)
    some = replace(full, rate=rate * full.rate, table_rate=rate * full.table_rate, warmup=warmup)
    return replace(recipe, optimisation=some)


def larger(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The configuration with the vocabularies of a tokenizer that has grown."""
    sizes = tuple(tokenizer.users.sizes.items())
    return replace(config, facets=facet_configs(tokenizer), item=item_config(tokenizer), attributes=sizes)


def unjudged(training_set: TrainingSet, update: Update, held_B: NDArray[np.bool_], config: ModelConfig) -> TrainingSet:
    """The same without the news of the users who judge, in what is counted as well. held_B: these, of all rows."""
    events = training_set.events
    judging_T = torch.from_numpy(held_B)[events.user_T] & ~_known(events, update)
    events = kept(events, ~judging_T)
    return replace(training_set, events=events, count_V=meetings(events, config))


def news(training_set: TrainingSet, update: Update, tokens: int, seed: int) -> TrainingSet:
    """Rows with news, of which only these are asked for, and beside them rows of which anything is. tokens: most of a
    row. Raises TrainingError where there is no news."""
    cut = in_windows(training_set, tokens)
    events = cut.events
    old_B = torch.bincount(events.user_T[_known(events, update)], minlength=events.users)
    asked = replace(cut, fresh_B=torch.maximum(cut.fresh_B, old_B))
    with_news = asked.trainable
    if not len(with_news):
        raise TrainingError("nobody has done anything since the model was trained: append events first")
    anything = cut.trainable  # whoever has news has a past to be asked for, too
    replayed = np.random.default_rng(seed).permutation(anything)[: round(update.replay * len(with_news))]
    row_N = torch.from_numpy(np.concatenate([with_news, replayed]))
    fresh_N = torch.cat([asked.fresh_B[torch.from_numpy(with_news)], cut.fresh_B[torch.from_numpy(replayed)]])
    return replace(cut, events=select_users(events, row_N), fresh_B=fresh_N)


def judges(user_ids: pa.Array, share: float) -> NDArray[np.bool_]:
    """[B] whose news are not learned: the same users every day, by their ids."""
    return np.asarray(keys_of(user_ids) < share * 2.0**64)


def save_grown(
    base_of: str,
    model: FoundationModel,
    corpus: Corpus,
    path: Path,
    learned: str,
    as_of: float,
    alignment: Alignment = UNALIGNED,
) -> None:
    """Write the model as a space of its own, with that of the model directory `base_of` as its lineage. alignment: to
    that, where it is known already."""
    base = pretrained.load(Path(base_of))
    Pretrained(model, corpus.tokenizer, base.space, base.card).save_pretrained(path, learned, as_of, alignment)


def _known(events: EventBatch, update: Update) -> Tensor:
    """bool [T]: what the model had learned."""
    return events.time_T + events.start_B[events.user_T] <= update.since
