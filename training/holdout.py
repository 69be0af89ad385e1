"""What is asked of a scorer, and what it may know: requests on one side, the held-out truth on the other.

One request per user: which items stand in the next group with candidates that the user begins. Everything a scorer
gets is in `Requests`, which is cut from the token table *before* the target group; the truth stays in `Holdout` and
only the evaluator reads it. The model and the baselines get the same `Requests`.

Two ways to ask, and a report says which was used (`told`):

- told: the request is made when the target group begins. Its time and context facets are known, and the history
  is every group that was complete before: also what happened between the cut and the request and holds no candidate
  (a mailing, a redeemed coupon), since a live service would have seen it.
- not told: the request is made at the cut, without context, and the history ends at the cut.

A group may last, and overlap with others where the log declares groups. It belongs to a part of the split if it began
and took effect in that part. One that is open at a cut belongs to neither side: nothing is learned from it, as that
would show what happened after requests of the later part were made, and nobody is asked for it, as that would show what
the earlier part may know. Where groups are instants there is none such, and between cut and request there is no group
with candidates, so baselines that count candidates see the same events either way; but where one surface alone is asked
for, what happened on others may lie between.

Users without a candidate in their history are not judged but counted (`cold`): for them every personal method is
popularity by definition.

Shapes: U judged users, R rows of the token table, T tokens, G groups, C context facets, N item events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from tokenization.errors import nearest
from tokenization.tokenizer.lasting import began, lasted_of
from tokenization.tokenizer.split import Split
from tokenization.tokenizer.tokenizer import Tokenizer
from training.errors import EvaluationError
from training.feedback import Feedback, feedback_of
from training.metrics import Codes, Floats, ItemSets
from training.rows import list_values, prefixes, ranges, whole
from training.surface import Surface

Ints = NDArray[np.int64]
UNKNOWN = 1  # item code of everything outside the vocabulary


@dataclass(frozen=True)
class Requests:
    """A chunk of requests: everything a scorer may know.

    Attributes:
        user_ids: one id a request.
        history: rows of the token table in the same order, each cut before the target group; a row may be
        empty. at: time of each request, float64 seconds since the epoch (or position) [n]. context: codes of
        the context facets, int32 [n, C]; 0 where not told or where what the group begins with disagrees.
    """

    user_ids: pa.Array
    history: pa.Table
    at: Floats
    context: Codes

    def __len__(self) -> int:
        return len(self.at)


Scorer = Callable[[Requests], NDArray[np.float32]]
"""Scores of every item for a chunk of requests, float32 [n, V]; higher is better, −inf is not a candidate."""


@dataclass(frozen=True)
class ItemEvents:
    """The candidates' tokens that lie before what is judged and met interest, for counting: one entry a token.

    Attributes:
        row: row of the token table, int64 [N].
        item: item code, int32 [N]; code 1 (unknown) is left out.
        time: seconds since the epoch (or position), float64 [N].
    """

    row: Ints
    item: Codes
    time: Floats


@dataclass(frozen=True)
class Columns:
    """Which columns of the token table hold the candidates, what a request knows of itself, and what events say of
    interest: what met none (an action of weight 0) is no truth to be found. surface: that alone is asked for."""

    item: str
    context: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    feedback: Feedback = field(default_factory=Feedback)
    surface: Surface | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer, surface: Surface | None = None) -> Columns:
        """Those of a tokenizer."""
        names = [facet.name for facet in tokenizer.facets]
        feedback = feedback_of(tokenizer, names)
        actions = tuple(names[column] for column in feedback.columns)
        among = replace(feedback, columns=tuple(range(len(actions))))
        context = tuple(facet.name for facet in tokenizer.context_facets)
        return cls(tokenizer.schema.candidates, context, actions, among, surface)

    def wanted(self, tokens: pa.Table) -> NDArray[np.bool_]:
        """bool [T]: whether a token is a candidate's that met interest."""
        item_T, _ = list_values(tokens[self.item])
        codes = [list_values(tokens[name])[0].astype(np.int64) for name in self.actions]
        code_TA = np.stack(codes, axis=1) if codes else np.zeros((len(item_T), 0), np.int64)
        return np.asarray((item_T > 0) & (self.feedback.rewards(torch.from_numpy(code_TA)).numpy() > 0))


@dataclass(frozen=True)
class Asked:
    """Who is judged, and what each request says and may read.

    Attributes:
        row: row of each judged user in the token table, ascending, int64 [U].
        known: number of tokens each request may read, int64 [U]; always a prefix of the row.
        at: time of each request, float64 [U].
        context: codes of the context facets, int32 [U, C].
    """

    row: Ints
    known: Ints
    at: Floats
    context: Codes


@dataclass(frozen=True)
class Holdout:
    """Requests and the truth behind them, for one split of one token table.

    Attributes:
        tokens: the token table, one row per user.
        asked: the requests, without the histories that `requests` cuts from `tokens`.
        truth: distinct items of the target group.
        unknown: items of the target group outside the vocabulary, int64 [U]: truth that nobody can hit.
        seen: distinct items among the tokens a request may read.
        before: every user's item events before the cut, for baselines that count.
        cold: users with a target group and no candidate before it; not judged.
        told: whether requests know the time and context of the target group.
    """

    tokens: pa.Table
    asked: Asked
    truth: ItemSets
    unknown: Ints
    seen: ItemSets
    before: ItemEvents
    cold: int
    told: bool

    def __len__(self) -> int:
        return len(self.asked.row)

    @property
    def user_ids(self) -> pa.Array:
        """Ids of the judged users."""
        return whole(self.tokens["user_id"]).take(pa.array(self.asked.row))

    def requests(self, start: int, stop: int) -> Requests:
        """The requests of judged users `start` to `stop`."""
        asked = self.asked
        history = prefixes(self.tokens, asked.row[start:stop], asked.known[start:stop])
        return Requests(whole(history["user_id"]), history, asked.at[start:stop], asked.context[start:stop])

    def chunks(self, size: int) -> Iterator[tuple[int, Requests]]:
        """All requests, `size` at a time, each with the index of its first user."""
        for start in range(0, len(self), size):
            yield start, self.requests(start, min(start + size, len(self)))


class Part(StrEnum):
    """What is held out: the test part judges, the validation part before it tunes."""

    TEST = "test"
    VALIDATION = "validation"


def hold_out(tokens: pa.Table, columns: Columns, split: Split, part: Part = Part.TEST, told: bool = True) -> Holdout:
    """Each user's first group with candidates in the held-out part of a log: the first to begin.

    By time, the test part is every group that begins at `split.time` or later (and the target so is the next group
    that the user begins after the cut), validation every group that begins at `split.validation` or later and is
    complete before the test part. By last items, the test part is the n groups of each user that take effect last and
    begins with the first of them, validation the n before them, as far as these are complete by then.

    Args:
        tokens: the token table, one row per user.
        columns: which columns hold candidates and context.
        split: the resolved split of the corpus.
        part: which part is asked for; validation never looks at the test part.
        told: see the top of this module.

    Raises:
        EvaluationError: if the table lacks a column, or nobody has candidates both before and in the part.
    """
    tokens = tokens.combine_chunks()
    flat = _flatten(tokens, columns)
    if columns.surface is not None:
        code_G = _context(tokens, (columns.surface.facet,), flat, np.arange(len(flat.row_G)))[:, 0]
        flat = replace(flat, judgeable_G=flat.judgeable_G & columns.surface.has(code_G))
    past_G, part_G = _parts(flat, split, part)
    past_T = past_G[flat.group_T]
    target_U = _first_with_items(flat, part_G)
    known_U = _known(flat, target_U, _complete(flat, target_U) if told else past_T)
    warm_U = _has_items(flat, target_U, known_U)
    if not warm_U.any():
        if columns.surface is not None:
            raise EvaluationError(f"nobody comes to {columns.surface} in the {part} part: take another surface")
        raise EvaluationError(f"nobody has candidates both before and in the {part} part; split the log elsewhere")
    cold = int((~warm_U).sum())
    target_U, known_U = target_U[warm_U], known_U[warm_U]
    row_U = flat.row_G[target_U]
    if told:
        at_U, context_UC = flat.begin_G[target_U], _context(tokens, columns.context, flat, target_U)
    else:
        context_UC = np.zeros((len(row_U), len(columns.context)), dtype=np.int32)
        at_U = flat.time_T[flat.offset_R[row_U] + known_U - 1]  # by last items there is no cut but one's last event
        if split.kind == "time":
            at_U = np.full(len(row_U), _from(split, part))
    asked = Asked(row_U, known_U, at_U, context_UC)
    truth, unknown = _truth(flat, target_U)
    return Holdout(tokens, asked, truth, unknown, _seen(flat, asked), _counted(flat, past_T), cold, told)


def _first_with_items(flat: _Flat, part_G: NDArray[np.bool_]) -> Ints:
    """Each row's group with candidates in the part that begins first; of several the first to be complete."""
    group = np.flatnonzero(flat.judgeable_G & part_G)
    group = group[np.lexsort((flat.begin_G[group], flat.row_G[group]))]
    return group[np.unique(flat.row_G[group], return_index=True)[1]]


def _complete(flat: _Flat, target_U: Ints) -> NDArray[np.bool_]:
    """[T] whether a token's group was complete strictly before its row's target began; no row has two targets."""
    at_R = np.full(len(flat.offset_R) - 1, -np.inf)
    at_R[flat.row_G[target_U]] = flat.begin_G[target_U]
    return np.asarray(flat.time_T < at_R[flat.row_G[flat.group_T]])


def _known(flat: _Flat, target_U: Ints, before_T: NDArray[np.bool_]) -> Ints:
    """How many tokens of its row are before a request: the first so many, since a row is in the order of time."""
    row_U = flat.row_G[target_U]
    count_T = np.concatenate([[0], np.cumsum(before_T)])
    return np.asarray(count_T[flat.offset_R[row_U + 1]] - count_T[flat.offset_R[row_U]], dtype=np.int64)


def _has_items(flat: _Flat, target_U: Ints, known_U: Ints) -> NDArray[np.bool_]:
    """Whether any of the tokens that a request may read is a candidate's."""
    items_before = np.concatenate([[0], np.cumsum(flat.item_T > 0)])
    begin_U = flat.offset_R[flat.row_G[target_U]]
    return np.asarray(items_before[begin_U + known_U] > items_before[begin_U])


def _counted(flat: _Flat, past_T: NDArray[np.bool_]) -> ItemEvents:
    counted_T = past_T & flat.wanted_T & (flat.item_T > UNKNOWN)
    return ItemEvents(flat.row_G[flat.group_T[counted_T]], flat.item_T[counted_T], flat.time_T[counted_T])


def _from(split: Split, part: Part) -> float:
    begin = split.time if part is Part.TEST else split.validation
    if begin is None:
        raise EvaluationError(f"the corpus has no {part} time; give `split` a time in the schema")
    return begin


def _parts(flat: _Flat, split: Split, part: Part) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which groups are complete before the part, and which begin and are complete in it, bool [G] each."""
    if split.last_items is not None:
        from_end_G = np.searchsorted(flat.row_G, flat.row_G, side="right") - 1 - np.arange(len(flat.row_G))
        test_G = from_end_G < split.last_items
        if part is Part.TEST:
            return flat.time_G < _begin_of(flat, test_G), test_G
        held_G = from_end_G < 2 * split.last_items
        part_G = held_G & ~test_G & (flat.time_G < _begin_of(flat, test_G))
        return flat.time_G < _begin_of(flat, held_G), part_G
    begin = _from(split, part)
    end = np.inf if part is Part.TEST else _from(split, Part.TEST)
    return flat.time_G < begin, (flat.begin_G >= begin) & (flat.time_G < end)


def _begin_of(flat: _Flat, held_G: NDArray[np.bool_]) -> Floats:
    """[G] when the first of the held groups of the same row begins."""
    begin_R = np.full(len(flat.offset_R) - 1, np.inf)
    np.minimum.at(begin_R, flat.row_G[held_G], flat.begin_G[held_G])
    return np.asarray(begin_R[flat.row_G])


@dataclass(frozen=True)
class _Flat:
    """The token table without its lists. Groups are numbered through all rows, in the order of the rows.

    begin_G, time_G: when each began, and when it took effect. opening_T: tokens that were there when their group began.
    wanted_T: tokens of candidates that met interest.
    """

    offset_R: Ints
    time_T: Floats
    item_T: Codes
    group_T: Ints
    row_G: Ints
    first_G: Ints
    begin_G: Floats
    time_G: Floats
    opening_T: NDArray[np.bool_]
    wanted_T: NDArray[np.bool_]
    judgeable_G: NDArray[np.bool_]


def _flatten(tokens: pa.Table, columns: Columns) -> _Flat:
    needed = ("user_id", "time", "group", columns.item, *columns.context, *columns.actions)
    if missing := [name for name in needed if name not in tokens.column_names]:
        hint = nearest(missing[0], tokens.column_names)
        raise EvaluationError(f"the token table has no column {missing[0]!r}; {hint}")
    for column in tokens.schema:  # a column that is not cut with the others would show what comes after
        static = column.name == "user_id" or column.name.startswith("user.")  # known of a user all along
        if not static and not pa.types.is_list(column.type):
            raise EvaluationError(f"column {column.name!r} of the token table is {column.type}, not one list a user")
    time_T, offset_R = list_values(tokens["time"])
    item_T, _ = list_values(tokens[columns.item])
    ordinal_T, _ = list_values(tokens["group"])
    row_T = np.repeat(np.arange(len(offset_R) - 1), np.diff(offset_R))
    begins_T = np.ones(len(row_T), dtype=np.bool_)
    begins_T[1:] = (np.diff(row_T) != 0) | (np.diff(ordinal_T) != 0)
    first_G, group_T = np.flatnonzero(begins_T), np.cumsum(begins_T) - 1
    wanted_T = columns.wanted(tokens)
    judgeable_G = np.bincount(group_T[wanted_T], minlength=len(first_G)) > 0
    begin_T, opening_T = began(time_T, lasted_of(tokens), first_G)
    begin_G, time_G = begin_T[first_G], time_T[first_G]
    row_G = row_T[first_G]
    return _Flat(offset_R, time_T, item_T, group_T, row_G, first_G, begin_G, time_G, opening_T, wanted_T, judgeable_G)


def _members(flat: _Flat, target_U: Ints) -> tuple[Ints, Ints]:
    """Tokens of the target groups, and the judged user of each, ascending."""
    length_U = np.append(flat.first_G, len(flat.time_T))[target_U + 1] - flat.first_G[target_U]
    return ranges(flat.first_G[target_U], length_U), np.repeat(np.arange(len(target_U)), length_U)


def _truth(flat: _Flat, target_U: Ints) -> tuple[ItemSets, Ints]:
    """The distinct known items of each target group that met interest, and how many unknown ones stand beside them."""
    token_N, user_N = _members(flat, target_U)
    wanted_N = flat.wanted_T[token_N]
    token_N, user_N = token_N[wanted_N], user_N[wanted_N]
    item_N = flat.item_T[token_N]
    known_N, unknown_N = item_N > UNKNOWN, item_N == UNKNOWN
    truth = ItemSets.from_pairs(user_N[known_N], item_N[known_N], len(target_U))
    return truth, np.bincount(user_N[unknown_N], minlength=len(target_U))


def _seen(flat: _Flat, asked: Asked) -> ItemSets:
    """The distinct items that each request may read."""
    item_N = flat.item_T[ranges(flat.offset_R[asked.row], asked.known)]
    user_N = np.repeat(np.arange(len(asked.row)), asked.known)
    return ItemSets.from_pairs(user_N[item_N > UNKNOWN], item_N[item_N > UNKNOWN], len(asked.row))


def _context(tokens: pa.Table, names: Sequence[str], flat: _Flat, target_U: Ints) -> Codes:
    """Context codes of what the target groups begin with, int32 [U, C]. 0 where these tokens disagree: such a value is
    no property of the request, and picking one of them would tell something about the items."""
    token_N, user_N = _members(flat, target_U)
    token_N, user_N = token_N[flat.opening_T[token_N]], user_N[flat.opening_T[token_N]]
    first_U = np.flatnonzero(np.diff(user_N, prepend=-1))
    context_UC = np.zeros((len(target_U), len(names)), dtype=np.int32)
    for c, name in enumerate(names):
        code_N = list_values(tokens[name])[0][token_N]
        low_U, high_U = np.minimum.reduceat(code_N, first_U), np.maximum.reduceat(code_N, first_U)
        context_UC[:, c] = np.where(low_U == high_U, low_U, 0)
    return context_UC
