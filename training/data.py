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

import numpy as np
import torch

from foundation.config import ModelConfig, Switch
from foundation.item_age import Hidden
from foundation.jagged import Requests, group_offsets
from foundation.lesson import Lesson, Objectives
from foundation.objectives.targets import Negatives
from tokenization.corpus.packing import pack
from training.asking import askable, context_of_groups, draw_groups, history_ends, soon_after
from training.dropout import IdDropout, hidden_rows, some_later, some_new, some_rows, some_told
from training.errors import TrainingError
from training.feedback import Feedback
from training.negatives import Draws, Proposal, among_batch, asked_chances, uncorrected, whole_catalogue
from training.surface import on_surface
from training.targets import begun, targets_ahead, targets_in_window
from training.training_set import TrainingSet, in_windows, select_users

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
    shards: int = 1
    id_dropout: IdDropout = field(default_factory=IdDropout)

    def __post_init__(self) -> None:
        for name in ("tokens", "requests", "negatives", "shards"):
            if not getattr(self, name) >= 1:
                raise TrainingError(f"sampling: {name!r} must be at least 1, got {getattr(self, name)}")
        for name in ("context_dropout", "attribute_dropout", "history_dropout", "history_cut"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"sampling: {name!r} is a share, from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.users <= 1:
            raise TrainingError(f"sampling: 'users' is a share, above 0 to 1, got {self.users}")
        if not 0 <= self.negative_power < math.inf:
            raise TrainingError(f"sampling: 'negative_power' must be at least 0, got {self.negative_power}")


@dataclass(frozen=True)
class Position:
    """Where a run stands: `batch` batches of `epoch` are done, of rows that are cut as the stage says."""

    epoch: int = 0
    batch: int = 0
    stage: int = 0

    def in_stage(self, stage: int) -> Position:
        """Where a later stage begins: rows are other rows there, so a pass over the users that was begun is left."""
        return self if stage == self.stage else Position(self.epoch + (self.batch > 0), 0, stage)


def row_tokens(sampling: Sampling) -> int:
    """Most tokens of a row. Raises TrainingError where such a row would not fit a batch."""
    if not 0 <= sampling.history <= sampling.tokens:
        raise TrainingError(
            f"rows of {sampling.history} tokens do not fit batches of {sampling.tokens}: raise `tokens`, or lower "
            "`history` or the stage"
        )
    return sampling.history or sampling.tokens


def batches(training_set: TrainingSet, sampling: Sampling, seed: int, epoch: int, shard: int = 0) -> list[np.ndarray]:
    """Rows (of `in_windows`) of each batch of an epoch over a shard: shuffled, and packed to the token budget.

    Raises TrainingError where no row has two groups.
    """
    tokens, shards = row_tokens(sampling), training_set.shards.count
    training_set = in_windows(training_set, tokens)
    rows = training_set.trainable
    if shards > 1:
        rows = rows[training_set.shard_B[rows] == shard]
    rows = some_rows(rows, sampling.users, seed)
    if not len(rows):
        where = f" in shard {shard}: lower `shards`" if shards > 1 else "; give them more tokens"
        raise TrainingError(
            f"{'rows' if sampling.history else 'batches'} of {tokens} tokens hold no two groups of a user one after "
            f"the other{where}"
        )
    length = np.diff(training_set.events.offset_B1.numpy())[rows]
    drawn_by = [seed, epoch, shard] if shards > 1 else [seed, epoch]
    return [rows[packed] for packed in pack(length, sampling.tokens, drawn_by)]


def fewest_batches(training_set: TrainingSet, sampling: Sampling, seed: int) -> int:
    """Batches of a pass over the shard that has the fewest, of those that were read."""
    return min(len(batches(training_set, sampling, seed, 0, shard)) for shard in training_set.shards.mine)


def epoch_order(training_set: TrainingSet, sampling: Sampling, seed: int, epoch: int) -> list[np.ndarray]:
    """Rows of each batch of an epoch, of shards in turn; empty for batches of shards that were not read.

    UserShards have as many batches as the fewest has: a rank knows no lengths but its own, and all must agree.
    """
    if training_set.shards.count == 1:
        return batches(training_set, sampling, seed, epoch)
    nothing = np.zeros(0, np.int64)
    order = [nothing] * (training_set.per_shard * training_set.shards.count)
    for shard in training_set.shards.mine:
        found = batches(training_set, sampling, seed, epoch, shard)
        # An epoch may pack into one batch less than the first did.
        order[shard :: training_set.shards.count] = [
            found[number % len(found)] for number in range(training_set.per_shard)
        ]
    return order


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
        order = epoch_order(training_set, sampling, seed, epoch)
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
    askable_G &= on_surface(training_set.surface, batch, border_G1)
    askable_G = soon_after(owner_G, askable_G, skipped_B > 0)
    asked_R = draw_groups(owner_G, askable_G, sampling.requests, draw)
    context_RC = context_of_groups(batch, border_G1, config.context_columns)[asked_R]
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


def batch_proposal(training_set: TrainingSet, config: ModelConfig, sampling: Sampling, seed: int) -> Proposal:
    """The chance of each item to be a negative where the targets of a batch are negatives too.

    training_set: of `in_windows`. Counted in batches of the first epoch, so that whoever resumes counts the same.
    """
    events = training_set.events
    border_G1 = group_offsets(events)
    first_G = border_G1[:-1]
    askable_G = askable(events, first_G, events.user_T[first_G], training_set.fresh_B)
    askable_G &= on_surface(training_set.surface, events, border_G1)
    reward_T = training_set.feedback.rewards(events.facet_TF)
    number, codes = len(batches(training_set, sampling, seed, 0)), len(training_set.count_V)
    asked_V = asked_chances(events, config.item_column, askable_G, reward_T, sampling.requests, number, codes)
    draws = Proposal.of_draws(training_set.count_V, sampling.negatives, sampling.negative_power)
    return replace(draws, asked_V=asked_V)
