"""A corpus as batches: rank-sharded, resumable to the exact batch, the same for every number of ranks.

Order and draws come from (seed, epoch, batch), not from a running generator: whoever knows those three numbers
can make the batch again.

A request for a group is made when the group begins, and reads what was complete strictly before: other groups of the
user that were open then, of which the log may hold many where declared groups overlap, are neither read nor predicted
by it at the first horizon. Later horizons go by the order in which groups begin, as requests for them are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from foundation.config import FacetConfig, ItemConfig, ModelConfig, Switch
from foundation.item_age import Hidden
from foundation.jagged import EventBatch, Requests, group_offsets, offsets_of, ranges
from foundation.lesson import Lesson, Objectives
from foundation.objectives.targets import Negatives
from foundation.repeat import FIRST_ITEM
from tokenization.corpus.corpus import Corpus
from tokenization.corpus.packing import pack
from tokenization.corpus.windows import cut_windows
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.tokenizer import Tokenizer
from training.asking import askable, draw_groups, group_context, history_ends, soon_after
from training.dropout import IdDropout, hidden_rows, some_later, some_new, some_rows, some_told
from training.errors import TrainingError
from training.feedback import Feedback, feedback_of
from training.negatives import Draws, Proposal, among_batch, asked_chances, drawn, uncorrected, whole_catalogue
from training.targets import begun, targets_ahead, targets_in_window

ALONE = Objectives()  # nothing but what is always learned


@dataclass(frozen=True)
class Sampling:
    """How a corpus becomes lessons.

    tokens: budget of a batch. history: most tokens of a row, which is a user, or a window of a user who has more; 0 for
    as many as the budget. requests: group borders drawn per row and batch. negatives: drawn per batch with probability
    ∝ count ** negative_power. context_dropout: share of requests that are told nothing; of the rest, each context facet
    is hidden with half that probability. attribute_dropout: the same of users and what is known of them.
    history_dropout: share of requests that read no event, as those of a new user. history_cut: share of rows that begin
    later than their user does, and are asked right after that, as a user of few events is. id_dropout: items whose own
    rows are hidden. users: share of them that is learned from, to see what more of a log is worth; what is counted is
    counted of all.
    """

    tokens: int = 8_192
    requests: int = 24
    negatives: int = 2_048
    negative_power: float = 0.75
    context_dropout: float = 0.2
    attribute_dropout: float = 0.2
    history_dropout: float = 0.0
    history_cut: float = 0.0
    users: float = 1.0
    history: int = 0
    id_dropout: IdDropout = field(default_factory=IdDropout)

    def __post_init__(self) -> None:
        for name in ("tokens", "requests", "negatives"):
            if not getattr(self, name) >= 1:
                raise TrainingError(f"sampling: {name!r} must be at least 1, got {getattr(self, name)}")
        for name in ("context_dropout", "attribute_dropout", "history_dropout", "history_cut"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"sampling: {name!r} is a share, from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.users <= 1:
            raise TrainingError(f"sampling: 'users' is a share, above 0 to 1, got {self.users}")
        if not 0 <= self.negative_power < math.inf:
            raise TrainingError(f"sampling: 'negative_power' must be at least 0, got {self.negative_power}")


class Until(StrEnum):
    """How far into the log a run learns."""

    VALIDATION = "validation"  # up to the validation part, so that settings can be chosen on it
    TEST = "test"  # up to the test part: the run that is judged there, once the settings are chosen
    END = "end"  # everything, for a release; nothing is left to judge it on


@dataclass(frozen=True)
class Position:
    """Where a run stands: `batch` batches of `epoch` are done, of rows that are cut as the stage says."""

    epoch: int = 0
    batch: int = 0
    stage: int = 0

    def in_stage(self, stage: int) -> Position:
        """Where a later stage begins: rows are other rows there, so a pass over the users that was begun is left."""
        return self if stage == self.stage else Position(self.epoch + (self.batch > 0), 0, stage)


@dataclass(frozen=True)
class TrainingSet:
    """All events that training may read, packed.

    count_V: float64 meetings of each item code among them. end: epoch seconds of the last event. fresh_B: int64 tokens
    at the beginning of each row that only remind, and are not predicted; 0 but in windows of long histories. feedback:
    what an event's action says of interest in its item.
    """

    events: EventBatch
    count_V: np.ndarray
    end: float
    fresh_B: Tensor
    feedback: Feedback = field(default_factory=Feedback)

    @property
    def users(self) -> int:
        """Rows in which something can be asked, which alone have something to learn from."""
        return len(self.trainable)

    @property
    def trainable(self) -> np.ndarray:
        """int64 rows with a group that began after another was complete."""
        first_G = group_offsets(self.events)[:-1]
        owner_G = self.events.user_T[first_G]
        return np.unique(owner_G[askable(self.events, first_G, owner_G, self.fresh_B)].numpy())


def read_training_set(corpus: Corpus, config: ModelConfig, until: Until = Until.VALIDATION) -> TrainingSet:
    """What a run may learn from: all events before a part of the corpus's split.

    Raises TrainingError where nothing is left.
    """
    events = EventBatch.from_tokens(corpus.tokens(), config.facet_names, config.attribute_names)
    events = trainable_events(events, corpus.split, until)
    count_V = np.bincount(events.facet_TF[:, config.item_column].numpy(), minlength=config.item.codes)
    count_V[:FIRST_ITEM] = 0
    time_T = events.time_T + events.start_B[events.user_T]
    end = float(time_T.max()) if events.tokens else 0.0
    fresh_B, feedback = torch.zeros(events.users, dtype=torch.int64), feedback_of(corpus.tokenizer, config.facet_names)
    training_set = TrainingSet(events, count_V.astype(np.float64), end, fresh_B, feedback)
    if not training_set.users or not count_V.any():
        raise TrainingError(
            f"no user has two groups of events one after the other, with an item, before the {until} part: "
            "tokenize more events or move `split` in the schema to a later time"
        )
    return training_set


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
        return _keep(events, events.time_T + events.start_B[events.user_T] < cut)
    groups_B = torch.zeros(events.users, dtype=torch.int64)
    groups_B = groups_B.scatter_reduce_(0, events.user_T, events.group_T + 1, "amax")
    held_out = split.last_items * (2 if until is Until.VALIDATION else 1)
    held_T = events.group_T >= groups_B[events.user_T] - held_out
    cut_B = torch.full((events.users,), torch.inf, dtype=torch.float64)
    cut_B = cut_B.scatter_reduce_(0, events.user_T[held_T], events.begin_T[held_T], "amin")
    return _keep(events, ~held_T & (events.time_T < cut_B[events.user_T]))


def _keep(events: EventBatch, keep_T: Tensor) -> EventBatch:
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
    return reward_T * torch.exp2(-age_T / max(float(age_T.max()) / 12, 1.0))


def recent_counts(training_set: TrainingSet, item_column: int) -> Tensor:
    """float32 [V]: each item's meetings, each as much as `recency` says."""
    count_V = torch.zeros(len(training_set.count_V), dtype=torch.float64)
    count_V.index_add_(0, training_set.events.facet_TF[:, item_column], recency(training_set))
    count_V[:FIRST_ITEM] = 0.0
    return count_V.float()


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
    return replace(training_set, events=cut, fresh_B=fresh_N - begin_N)


def row_tokens(sampling: Sampling) -> int:
    """Most tokens of a row. Raises TrainingError where such a row would not fit a batch."""
    if not 0 <= sampling.history <= sampling.tokens:
        raise TrainingError(
            f"rows of {sampling.history} tokens do not fit batches of {sampling.tokens}: raise `tokens`, or lower "
            "`history` or the stage"
        )
    return sampling.history or sampling.tokens


def batches(training_set: TrainingSet, sampling: Sampling, seed: int, epoch: int) -> list[np.ndarray]:
    """Rows (of `in_windows`) of each batch of an epoch: shuffled, and packed to the token budget.

    Raises TrainingError where no row has two groups.
    """
    tokens = row_tokens(sampling)
    training_set = in_windows(training_set, tokens)
    rows = some_rows(training_set.trainable, sampling.users, seed)
    if not len(rows):
        raise TrainingError(
            f"{'rows' if sampling.history else 'batches'} of {tokens} tokens hold no two groups of a user one after "
            "the other; give them more tokens"
        )
    length = np.diff(training_set.events.offset_B1.numpy())[rows]
    return [rows[packed] for packed in pack(length, sampling.tokens, [seed, epoch])]


def lessons(
    training_set: TrainingSet,
    config: ModelConfig,
    sampling: Sampling,
    seed: int,
    start: Position,
    rank: int = 0,
    ranks: int = 1,
    objectives: Objectives = ALONE,
) -> Iterator[tuple[Position, Lesson]]:
    """Endless lessons of one rank, each with the position after it; every rank takes as many steps an epoch."""
    own = range(rank, rank + 1)
    for position, (lesson,) in lessons_of_steps(training_set, config, sampling, seed, start, own, ranks, objectives):
        yield position, lesson


def lessons_of_steps(
    training_set: TrainingSet,
    config: ModelConfig,
    sampling: Sampling,
    seed: int,
    start: Position,
    own: range,
    count: int,
    objectives: Objectives = ALONE,
) -> Iterator[tuple[Position, tuple[Lesson, ...]]]:
    """Endless steps, each with the position after it: of the `count` lessons of a step those that are one's own.

    Every rank has as many, so all take as many steps an epoch, and the lessons of a step are the same however many
    ranks there are and however many each of them learns one after another.
    """
    dropout = sampling.id_dropout.resolved(training_set.events, training_set.end, config.item_column)
    training_set = in_windows(training_set, row_tokens(sampling))
    if objectives.feedback is Switch.OFF:
        training_set = replace(training_set, feedback=Feedback())
    epoch, first = start.epoch, start.batch
    everything = whole_catalogue(training_set.count_V)
    full = len(everything) <= objectives.full_below
    in_batch = objectives.in_batch is Switch.ON and not full
    proposal = batch_proposal(training_set, config, sampling, seed) if in_batch else None
    draws = Draws.of(training_set.count_V, sampling.negative_power)

    def made(users: np.ndarray, negatives: Negatives, hidden: Hidden, draw: np.random.Generator) -> Lesson:
        lesson = make_lesson(training_set, config, sampling, users, negatives, draw, objectives)
        if proposal is not None:
            lesson = replace(lesson, negatives=among_batch(negatives, lesson.targets[0], proposal))
        if objectives.logq is Switch.OFF:
            lesson = replace(lesson, negatives=uncorrected(lesson.negatives))
        return replace(lesson, hidden=hidden)

    while True:
        order = batches(training_set, sampling, seed, epoch)
        whole = max(len(order) // count, 1) * count
        for batch in range(first, whole, count):
            shared = np.random.default_rng([seed, epoch, batch, 1])
            negatives = everything if full else draws.negatives(sampling.negatives, shared)
            hidden = hidden_rows(dropout, config, training_set.count_V, shared)
            found = tuple(
                made(order[place % len(order)], negatives, hidden, np.random.default_rng([seed, epoch, place]))
                for place in (batch + number for number in own)
            )
            yield Position(epoch, batch + count, start.stage), found
        epoch, first = epoch + 1, 0


def make_lesson(
    training_set: TrainingSet,
    config: ModelConfig,
    sampling: Sampling,
    users: np.ndarray,
    negatives: Negatives,
    draw: np.random.Generator,
    objectives: Objectives = ALONE,
) -> Lesson:
    """The events of some rows, with requests made at the beginning of random groups, and what these and the groups that
    began next hold.

    Requests stand at many borders of each user, so whatever is asked of them is asked densely.
    """
    row_B = torch.from_numpy(np.sort(users))
    skipped_B = some_later(training_set.events, row_B, sampling.history_cut, draw)
    batch = select_users(training_set.events, row_B, skipped_B)
    border_G1 = group_offsets(batch)
    first_G = border_G1[:-1]
    owner_G = batch.user_T[first_G]
    askable_G = askable(batch, first_G, owner_G, training_set.fresh_B[row_B] - skipped_B)
    askable_G = soon_after(owner_G, askable_G, skipped_B > 0)
    asked_R = draw_groups(owner_G, askable_G, sampling.requests, draw)
    context_RC = group_context(batch, border_G1, config)[asked_R]
    requests = Requests(
        user_R=owner_G[asked_R],
        end_R=history_ends(batch, first_G, owner_G)[asked_R],
        time_R=batch.begin_T[first_G[asked_R]],
        context_RC=some_told(context_RC, sampling.context_dropout, draw),
    )
    batch = replace(batch, attribute_BA=some_told(batch.attribute_BA, sampling.attribute_dropout, draw))
    requests = some_new(requests, batch, config, sampling.history_dropout, draw)
    groups, feedback = begun(batch, border_G1), training_set.feedback
    targets = tuple(targets_ahead(batch, groups, asked_R, ahead, config, feedback) for ahead in range(config.horizons))
    if not objectives.future:
        return Lesson(batch, requests, targets, negatives)
    future = targets_in_window(batch, groups, asked_R, config, objectives, feedback)
    return Lesson(batch, requests, targets, negatives, future)


def select_users(events: EventBatch, users_N: Tensor, skipped: Tensor | int = 0) -> EventBatch:
    """The packed events of some users, in the given order, without so many of each one's first tokens."""
    start_N = events.offset_B1[:-1][users_N] + skipped
    return _select(events, start_N, events.offset_B1[1:][users_N] - start_N, users_N)


def _select(events: EventBatch, first_N: Tensor, length_N: Tensor, user_N: Tensor) -> EventBatch:
    """N rows of so many tokens from `first_N` on, each of the user `user_N`."""
    offset_N1 = offsets_of(length_N)
    return events.picked(ranges(first_N, length_N), offset_N1, user_N)


def draw_negatives(count_V: np.ndarray, sampling: Sampling, draw: np.random.Generator) -> Negatives:
    """The negatives of one step."""
    return drawn(count_V, sampling.negatives, sampling.negative_power, draw)


def batch_proposal(training_set: TrainingSet, config: ModelConfig, sampling: Sampling, seed: int) -> Proposal:
    """The chance of each item to be a negative where the targets of a batch are negatives too.

    training_set: of `in_windows`. Counted in batches of the first epoch, so that whoever resumes counts the same.
    """
    events = training_set.events
    first_G = group_offsets(events)[:-1]
    askable_G = askable(events, first_G, events.user_T[first_G], training_set.fresh_B)
    reward_T = training_set.feedback.rewards(events.facet_TF)
    number, codes = len(batches(training_set, sampling, seed, 0)), len(training_set.count_V)
    asked_V = asked_chances(events, config.item_column, askable_G, reward_T, sampling.requests, number, codes)
    draws = Proposal.of_draws(training_set.count_V, sampling.negatives, sampling.negative_power)
    return replace(draws, asked_V=asked_V)
