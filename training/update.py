"""A run that goes on from yesterday's model: it grows by what is new, and learns the new events beside some old ones.

Learning what is new alone would push out what was known (McCloskey & Cohen, 1989); rows of before among those with news
keep it in (experience replay: Rolnick et al., arXiv:1811.11682). The news of some users are not learned, so that the
model can be judged beside yesterday's by what neither has seen (training/gate.py).

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from foundation import pretrained
from foundation.config import ModelConfig
from foundation.embedding import item_content
from foundation.growth import grown
from foundation.model import FoundationModel
from foundation.pretrained import Pretrained
from tokenization.corpus.corpus import Corpus
from tokenization.tokenizer.tokenizer import Tokenizer
from training.errors import TrainingError
from training.item_ages import item_ages
from training.recipes import Recipe
from training.training_set import TrainingSet, facet_configs, in_windows, item_config, recent_counts, select_users


@dataclass(frozen=True)
class Update:
    """What a run goes on from.

    base: model directory. since: epoch seconds until which that had learned. replay: rows that are asked for anything,
    for each row that is asked for its news. held: share of the users whose news are not learned, and judge.
    """

    base: str
    since: float
    replay: float = 1.0
    held: float = 0.1

    def __post_init__(self) -> None:
        if not self.replay >= 0:
            raise TrainingError(f"update: 'replay' must be at least 0, got {self.replay}")
        if not 0 <= self.held < 1:
            raise TrainingError(f"update: 'held' is a share, from 0 to below 1, got {self.held}")


def of_model(base: Path, replay: float = 1.0, held: float = 0.1) -> Update:
    """An update of a model directory, from where it has learned until. Raises ModelError where it is none."""
    return Update(str(base.resolve()), pretrained.load(base).space.as_of, replay, held)


def recipe_after(recipe: Recipe, corpus: Corpus, rate: float, epochs: int) -> Recipe:
    """The recipe of yesterday's run with the vocabularies of today, for so many passes at a share of its rates."""
    moving = recipe.optimisation
    gentle = replace(moving, rate=rate * moving.rate, table_rate=rate * moving.table_rate, warmup=min(moving.warmup, 5))
    return replace(recipe, model=larger(recipe.model, corpus.tokenizer), optimisation=gentle, epochs=epochs)


def larger(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The configuration with the vocabularies of a tokenizer that has grown."""
    sizes = tuple(tokenizer.users.sizes.items())
    return replace(config, facets=facet_configs(tokenizer), item=item_config(tokenizer), attributes=sizes)


def base_model(update: Update, training_set: TrainingSet, corpus: Corpus, config: ModelConfig) -> FoundationModel:
    """Yesterday's model, grown. Raises ModelError where the corpus's tokenizer did not grow from the model's."""
    column = config.item_column
    recent_V = recent_counts(training_set, column)
    ages = item_ages(training_set.events, training_set.end, recent_V, corpus.tokenizer, column)
    content = item_content(corpus.tokenizer.items, recent_V, ages)
    return grown(pretrained.load(Path(update.base)).model, config, content)


def news(training_set: TrainingSet, update: Update, tokens: int, held_B: NDArray[np.bool_], seed: int) -> TrainingSet:
    """Rows with news, of which only these are asked for, and beside them rows of which anything is; none of users that
    judge.

    tokens: most of a row. held_B: users that judge, of all rows. Raises TrainingError where there is no news.
    """
    kept = torch.from_numpy(np.flatnonzero(~held_B))
    known = replace(training_set, events=select_users(training_set.events, kept), fresh_B=training_set.fresh_B[kept])
    cut = in_windows(known, tokens)
    events = cut.events
    old_T = events.time_T + events.start_B[events.user_T] <= update.since
    old_B = torch.bincount(events.user_T[old_T], minlength=events.users)
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
    texts = user_ids.cast(pa.large_string()).to_pylist()
    found = (hashlib.blake2b(f"judge {text}".encode(), digest_size=8).digest() for text in texts)
    number_B = np.frombuffer(b"".join(found), dtype="<u8")
    return np.asarray(number_B < share * 2.0**64)


def save_grown(update: Update, model: FoundationModel, corpus: Corpus, path: Path, learned: str, as_of: float) -> None:
    """Write the model as a space of its own, with yesterday's as its lineage."""
    base = pretrained.load(Path(update.base))
    Pretrained(model, corpus.tokenizer, base.space, base.card).save_pretrained(path, learned, as_of)
