"""What a run may learn from: all events before a part of the split, packed, with what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from foundation.config import FacetConfig, ItemConfig, ItemGate, ModelConfig
from foundation.embedding import ItemContent, item_content
from foundation.jagged import EventBatch, group_offsets, offsets_of, ranges
from foundation.repeat import FIRST_ITEM
from tokenization.corpus.corpus import Corpus
from tokenization.corpus.windows import cut_windows
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.tokenizer import Tokenizer
from training.asking import askable
from training.errors import TrainingError
from training.feedback import Feedback, feedback_of
from training.item_ages import item_ages
from training.parallel import Ranks, largest, total
from training.surface import Surface, on_surface
from training.user_shards import WHOLE, UserShards, read_shards

ALL = Ranks.alone()  # one rank reads everything


class Until(StrEnum):
    """How far into the log a run learns."""

    VALIDATION = "validation"  # up to the validation part, so that settings can be chosen on it
    TEST = "test"  # up to the test part: the run that is judged there, once the settings are chosen
    END = "end"  # everything, for a release; nothing is left to judge it on


@dataclass(frozen=True)
class TrainingSet:
    """All events that training may read, packed; of some shards of the users where ranks share these out.

    count_V: float64 meetings of each item code among them. end, begin: epoch seconds of the last and of the first
    event. fresh_B: int64 tokens at the beginning of each row that only remind, and are not predicted; 0 but in windows
    of long histories. feedback: what an event's action says of interest in its item. shards: what was read. shard_B:
    int64 shard of each row. per_shard: batches that a pass over a shard has; 0 for as many as there are.
    surface: of which alone something is asked; None: of all.
    """

    events: EventBatch
    count_V: np.ndarray
    end: float
    fresh_B: Tensor
    feedback: Feedback = field(default_factory=Feedback)
    begin: float = 0.0
    shards: UserShards = WHOLE
    shard_B: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    per_shard: int = 0
    surface: Surface | None = None

    @property
    def whole(self) -> bool:
        """Whether all of the log was read."""
        return len(self.shards.mine) == self.shards.count

    @property
    def users(self) -> int:
        """Rows in which something can be asked, which alone have something to learn from."""
        return len(self.trainable)

    @property
    def trainable(self) -> np.ndarray:
        """int64 rows with a group that began after another was complete."""
        border_G1 = group_offsets(self.events)
        first_G = border_G1[:-1]
        owner_G = self.events.user_T[first_G]
        asked_G = askable(self.events, first_G, owner_G, self.fresh_B)
        return np.unique(owner_G[asked_G & on_surface(self.surface, self.events, border_G1)].numpy())


def read_training_set(
    corpus: Corpus, config: ModelConfig, until: Until = Until.VALIDATION, shards: UserShards = WHOLE
) -> TrainingSet:
    """What a run may learn from: all events before a part of the corpus's split, of the users of some shards.

    Raises TrainingError where nothing is left.
    """
    tokens, shard_B = read_shards(corpus, shards)
    events = EventBatch.from_tokens(tokens, config.facet_names, config.attribute_names)
    events = trainable_events(events, corpus.split, until)
    count_V = meetings(events, config)
    time_T = events.time_T + events.start_B[events.user_T]
    begin, end = (float(time_T.min()), float(time_T.max())) if events.tokens else (0.0, 0.0)
    fresh_B, feedback = torch.zeros(events.users, dtype=torch.int64), feedback_of(corpus.tokenizer, config.facet_names)
    counts = (events, count_V, end, fresh_B, feedback, begin)
    training_set = TrainingSet(*counts, shards, shard_B)
    if not training_set.users or not count_V.any():
        raise TrainingError(
            f"no user has two groups of events one after the other, with an item, before the {until} part: "
            "tokenize more events or move `split` in the schema to a later time"
        )
    return training_set


def surfaced(training_set: TrainingSet, surface: Surface | None) -> TrainingSet:
    """The same, asked for one surface alone. Raises TrainingError where nothing is asked there."""
    found = replace(training_set, surface=surface)
    if not found.users:
        raise TrainingError(f"nobody comes to {surface} after anything else: take another surface")
    return found


def trainable_events(events: EventBatch, split: Split, until: Until) -> EventBatch:
    """The same users with only the groups that were complete before a part begins.

    By time, a part begins for all at once. By last items, it begins for each user with the first of the held-out groups
    to begin, of which there are so many as the split says, the last to take effect. A group that is open when a part
    begins is in neither: learned, it would show what happened after a request of the part was made.
    """
    if until is Until.END:
        return events
    if split.last_items is None:
        cut = split.validation if until is Until.VALIDATION else split.time
        assert cut is not None
        return kept(events, events.time_T + events.start_B[events.user_T] < cut)
    groups_B = torch.zeros(events.users, dtype=torch.int64)
    groups_B = groups_B.scatter_reduce_(0, events.user_T, events.group_T + 1, "amax")
    held_out = split.last_items * (2 if until is Until.VALIDATION else 1)
    held_T = events.group_T >= groups_B[events.user_T] - held_out
    cut_B = torch.full((events.users,), torch.inf, dtype=torch.float64)
    cut_B = cut_B.scatter_reduce_(0, events.user_T[held_T], events.begin_T[held_T], "amin")
    return kept(events, ~held_T & (events.time_T < cut_B[events.user_T]))


def meetings(events: EventBatch, config: ModelConfig) -> np.ndarray:
    """float64 [V]: how often each item was met."""
    count_V = np.bincount(events.facet_TF[:, config.item_column].numpy(), minlength=config.item.codes)
    count_V[:FIRST_ITEM] = 0
    return count_V.astype(np.float64)


def kept(events: EventBatch, keep_T: Tensor) -> EventBatch:
    """The same users with some of their tokens."""
    length_B = torch.bincount(events.user_T[keep_T], minlength=events.users)
    offset_B1 = offsets_of(length_B)
    return events.picked(keep_T, offset_B1, torch.arange(events.users))


def facet_configs(tokenizer: Tokenizer) -> tuple[FacetConfig, ...]:
    """The tokenizer's facets as the model's configuration."""
    return tuple(FacetConfig(facet.name, facet.size, str(facet.role), facet.table) for facet in tokenizer.facets)


def item_config(tokenizer: Tokenizer) -> ItemConfig:
    """The tokenizer's candidates as the model's configuration."""
    items = tokenizer.items
    return ItemConfig(
        facet=tokenizer.schema.candidates,
        codes=len(items),
        categories=tuple(items.category_sizes.items()),
        text_width=items.distinct_vectors.shape[1],
        media_width=sum(matrix.shape[1] for matrix in items.media.values()),
        semantic_ids=items.semantic.embedded_sizes if items.semantic else (),
    )


def recency(training_set: TrainingSet) -> Tensor:
    """float64 [T]: what each event counts at the end: what its action says of interest, half of it for every twelfth of
    the log's span that has passed."""
    events = training_set.events
    reward_T = training_set.feedback.rewards(events.facet_TF)
    age_T = training_set.end - (events.time_T + events.start_B[events.user_T])
    return reward_T * torch.exp2(-age_T / max((training_set.end - training_set.begin) / 12, 1.0))


def recent_counts(training_set: TrainingSet, item_column: int, ranks: Ranks = ALL) -> Tensor:
    """float32 [V]: each item's meetings, each as much as `recency` says. training_set: `joined`, where ranks share the
    log out."""
    count_V = torch.zeros(len(training_set.count_V), dtype=torch.float64)
    count_V.index_add_(0, training_set.events.facet_TF[:, item_column], recency(training_set))
    count_V[:FIRST_ITEM] = 0.0
    if not training_set.whole:
        count_V = total(count_V, ranks)
    return count_V.float()


def content_of(training_set: TrainingSet, tokenizer: Tokenizer, config: ModelConfig, ranks: Ranks = ALL) -> ItemContent:
    """What is known of every item, with how it was met lately and since when, as a model begins with it."""
    recent_V = recent_counts(training_set, config.item_column, ranks)
    if config.item_gate is not ItemGate.AGE:
        return item_content(tokenizer.items, recent_V)
    ages = item_ages(training_set.events, training_set.end, recent_V, tokenizer, config.item_column)
    return item_content(tokenizer.items, recent_V, ages)


def joined(training_set: TrainingSet, ranks: Ranks) -> TrainingSet:
    """The same with counts and times of all ranks, where these share the log out."""
    if training_set.whole:
        return training_set
    count_V = total(torch.from_numpy(training_set.count_V), ranks)
    begin = -largest(-training_set.begin, ranks)
    return replace(training_set, count_V=count_V.numpy(), begin=begin, end=largest(training_set.end, ranks))


def in_windows(training_set: TrainingSet, tokens: int) -> TrainingSet:
    """The same with a row a window for users of more than `tokens` tokens, so that all rows fit a batch.

    Each window is reminded of up to a quarter of its tokens that an earlier one predicts; see `cut_windows`.
    """
    events = training_set.events
    offset_B1 = events.offset_B1.numpy()
    if np.diff(offset_B1).max(initial=0) <= tokens:
        return training_set
    windows = cut_windows(offset_B1, events.group_T.numpy(), tokens, tokens // 4)
    begin_N, end_N, fresh_N, user_N = map(torch.from_numpy, (windows.begin, windows.end, windows.fresh, windows.user))
    cut = _select(events, begin_N, end_N - begin_N, user_N)
    shard_B = training_set.shard_B[windows.user] if len(training_set.shard_B) else training_set.shard_B
    return replace(training_set, events=cut, fresh_B=fresh_N - begin_N, shard_B=shard_B)


def select_users(events: EventBatch, users_N: Tensor, skipped: Tensor | int = 0) -> EventBatch:
    """The packed events of some users, in the given order, without so many of each one's first tokens."""
    start_N = events.offset_B1[:-1][users_N] + skipped
    return _select(events, start_N, events.offset_B1[1:][users_N] - start_N, users_N)


def _select(events: EventBatch, first_N: Tensor, length_N: Tensor, user_N: Tensor) -> EventBatch:
    """N rows of so many tokens from `first_N` on, each of the user `user_N`."""
    offset_N1 = offsets_of(length_N)
    return events.picked(ranges(first_N, length_N), offset_N1, user_N)
