"""Jagged batches: values + offsets, never a padded rectangle.

Shape legend of the whole package (a name's suffix is its shape):

    B  users in the batch              T  tokens of all users, one after another
    G  groups (sets of simultaneous    R  requests: moments at which something is predicted
       events) of all users            P  pairs (request, item the user met before)
    F  facets of a token               C  context facets of a request
    D  width of the model              V  codes of the candidate vocabulary (0 absent, 1 unknown)
    H  attention heads                 K  width of one head
    N  candidates, or blocks           W  attention window in tokens
    E  pairs (request, target)         A  attributes of a user
    1  added to a size: offsets, first 0, last the total
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Self, TypeVar, cast

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.errors import ModelError
from tokenization.tokenizer.lasting import began, lasted_of

Moved = TypeVar("Moved")


@dataclass(frozen=True)
class EventBatch:
    """The completed events of B users as T packed tokens, each user's in order of time.

    facet_TF: int64 codes, one column a facet, in the tokenizer's order.
    time_T: float64 seconds since the user's first event (scaled before any cast to float32): when the token's group
        took effect, and so was complete.
    begin_T: float64, on the same clock: when the token's group began, which is when a request for it is made. The same
        for all tokens of a group; where groups are instants, `time_T`.
    opening_T: bool, whether the token was there when its group began: those alone tell the context of that request.
    group_T: int64 ordinal of the token's group in the user's life, from 0; equal = simultaneous.
    offset_B1: int64; user b owns tokens offset_B1[b] to offset_B1[b + 1].
    start_B: float64 epoch seconds of each user's first event (0 for a user without one).
    attribute_BA: int64 codes of what is known of each user beside the events, the same at every moment: 0 absent,
        1 unknown. A may be 0.
    """

    facet_TF: Tensor
    time_T: Tensor
    begin_T: Tensor
    opening_T: Tensor
    group_T: Tensor
    offset_B1: Tensor
    start_B: Tensor
    attribute_BA: Tensor

    @property
    def users(self) -> int:
        """B."""
        return self.offset_B1.shape[0] - 1

    @property
    def tokens(self) -> int:
        """T."""
        return self.time_T.shape[0]

    @property
    def user_T(self) -> Tensor:
        """int64 [T]: the user that owns each token."""
        return ranges_owner(self.offset_B1[1:] - self.offset_B1[:-1], self.tokens)

    def to(self, device: torch.device | str) -> Self:
        """The same batch with every tensor on `device`."""
        return moved(self, device)

    def picked(self, token_N: Tensor, offset_B1: Tensor, user_B: Tensor) -> Self:
        """A batch of these tokens, by mask or by index, as `offset_B1` cuts them into rows; user_B: int64, the user of
        this batch whose events each row holds, and whose clock and attributes it keeps."""
        return replace(
            self,
            facet_TF=self.facet_TF[token_N],
            time_T=self.time_T[token_N],
            begin_T=self.begin_T[token_N],
            opening_T=self.opening_T[token_N],
            group_T=self.group_T[token_N],
            offset_B1=offset_B1,
            start_B=self.start_B[user_B],
            attribute_BA=self.attribute_BA[user_B],
        )

    @classmethod
    def from_tokens(cls, tokens: pa.Table, facets: Sequence[str], attributes: Sequence[str] = ()) -> Self:
        """Pack a token table (one row per user, list columns) into a batch.

        attributes: of users, read from columns `user.<name>`. Whoever tokenizes with the model's tokenizer has them,
        full of zeros where nobody said anything of the users; so a table without them is of another tokenizer.
        Raises ModelError naming the facet or attribute that the table lacks.
        """
        told = [f"user.{name}" for name in attributes]
        missing = [name for name in ("time", "group", *facets, *told) if name not in tokens.column_names]
        if missing:
            raise ModelError(
                f"the token table has no column {missing[0]!r}: tokenize the events with the tokenizer "
                "that is saved beside this model"
            )
        time_T = _values(tokens, "time").astype(np.float64)
        offset_B1 = _offsets(tokens, "time")
        has_events = offset_B1[1:] > offset_B1[:-1]
        start_B = np.zeros(tokens.num_rows)
        start_B[has_events] = time_T[offset_B1[:-1][has_events]]
        group_T = _values(tokens, "group").astype(np.int64)
        time_T = time_T - np.repeat(start_B, np.diff(offset_B1))
        begin_T, opening_T = began(time_T, lasted_of(tokens), _firsts(group_T, offset_B1))
        return cls(
            facet_TF=_matrix([_values(tokens, name) for name in facets], len(time_T)),
            time_T=torch.from_numpy(time_T),
            begin_T=torch.from_numpy(begin_T),
            opening_T=torch.from_numpy(opening_T),
            group_T=torch.from_numpy(group_T),
            offset_B1=torch.from_numpy(offset_B1),
            start_B=torch.from_numpy(start_B),
            attribute_BA=_matrix([tokens.column(name).to_numpy() for name in told], tokens.num_rows),
        )


@dataclass(frozen=True)
class Stream:
    """What the trunk must know of a batch: who stands where.

    border_G1: int64 packed index at which each group starts, and T. offset_B1: the same for users. place_T: int64
    ordinal of each token's group. time_T: float64 seconds since the user's first event.
    """

    border_G1: Tensor
    offset_B1: Tensor
    place_T: Tensor
    time_T: Tensor


@dataclass(frozen=True)
class Requests:
    """R moments at which something is asked of the model, ordered by user.

    user_R: int64 row of the user in the batch.
    end_R: int64 packed index; the tokens of the user before it are the completed history.
    time_R: float64 seconds since the user's first event at which the request is made.
    context_RC: int64 codes of the context facets; 0 = not told.
    """

    user_R: Tensor
    end_R: Tensor
    time_R: Tensor
    context_RC: Tensor

    def __len__(self) -> int:
        return len(self.user_R)


def requests_now(batch: EventBatch, at_B: Tensor | None, context_BC: Tensor) -> Requests:
    """One request per user after the whole history.

    at_B: float64 epoch seconds [B]; None asks at each user's last event. context_BC: int64 [B, C].
    Raises ModelError where a request lies before the user's last event.
    """
    last_B = last_times(batch)
    time_B = last_B if at_B is None else times_asked(batch, at_B)
    early = time_B < last_B
    if bool(early.any()):
        row = int(early.nonzero()[0])
        raise ModelError(
            f"row {row} asks for a moment before the user's last event: pass only events before the request"
        )
    return requests_at(batch, time_B, context_BC)


def requests_at(batch: EventBatch, time_B: Tensor, context_BC: Tensor) -> Requests:
    """One request per user after the whole history, time_B seconds (float64 [B]) after the first event."""
    return Requests(torch.arange(batch.users, device=time_B.device), batch.offset_B1[1:], time_B, context_BC)


def times_asked(batch: EventBatch, at_B: Tensor) -> Tensor:
    """float64 [B]: seconds from each user's first event to these moments (epoch seconds), 0 for a user without one."""
    return torch.where(batch.offset_B1[1:] > batch.offset_B1[:-1], at_B - batch.start_B, 0.0)


def last_times(batch: EventBatch) -> Tensor:
    """float64 [B]: seconds from each user's first event to the last one, 0 for a user without one."""
    end_B = batch.offset_B1[1:]
    return F.pad(batch.time_T, (1, 0))[end_B * (end_B > batch.offset_B1[:-1])]


def segment_ids(offset_N1: Tensor) -> Tensor:
    """int64 [offset_N1[-1]]: for each element the segment that owns it."""
    return ranges_owner(offset_N1[1:] - offset_N1[:-1])


def ranges_owner(length_N: Tensor, total: int | None = None) -> Tensor:
    """int64 [sum]: i repeated length_N[i] times. total: their sum, where it is known without asking the device."""
    row_N = torch.arange(length_N.shape[0], device=length_N.device)
    return torch.repeat_interleave(row_N, length_N, output_size=total)


def ranges(start_N: Tensor, length_N: Tensor) -> Tensor:
    """int64 [sum]: start_N[i], start_N[i] + 1, ... for each i, one after another."""
    return ranges_of(start_N, length_N, ranges_owner(length_N))


def ranges_of(start_N: Tensor, length_N: Tensor, owner_E: Tensor) -> Tensor:
    """`ranges` where the owner of each element, `ranges_owner(length_N)`, is at hand."""
    before_N = torch.cumsum(length_N, 0) - length_N
    return torch.arange(owner_E.shape[0], device=length_N.device) - (before_N - start_N)[owner_E]


def offsets_of(length_N: Tensor) -> Tensor:
    """int64 [N + 1]: where each of N segments of these lengths begins, and where the last ends."""
    return torch.cat([length_N.new_zeros(1), length_N.cumsum(0)])


def changes(user_N: Tensor, place_N: Tensor) -> Tensor:
    """bool [N]: where another user or another place begins; neither is negative."""
    user_before_N, place_before_N = (F.pad(one_N, (1, 0), value=-1)[:-1] for one_N in (user_N, place_N))
    return (user_N != user_before_N) | (place_N != place_before_N)


def group_starts(batch: EventBatch) -> Tensor:
    """bool [T]: whether a token is the first of its group. No group spans two users."""
    return changes(batch.user_T, batch.group_T)


def group_offsets(batch: EventBatch) -> Tensor:
    """int64 [G + 1]: packed index at which each group starts, and T."""
    return torch.cat([group_starts(batch).nonzero().squeeze(1), batch.offset_B1[-1:]])


def group_ids(batch: EventBatch) -> Tensor:
    """int64 [T]: which of the G groups of the whole batch each token belongs to."""
    return group_starts(batch).cumsum(0) - 1


def recent_groups(batch: EventBatch, requests: Requests, reach: int) -> Tensor:
    """int64 [R]: where the last `reach` tokens before each request begin, moved inward to whole groups; `end_R` where
    the newest group alone is longer, and where there is no history."""
    first_R = batch.offset_B1[:-1][requests.user_R]
    earliest_R = torch.maximum(requests.end_R - reach, first_R)
    border_G1 = group_offsets(batch)
    return torch.minimum(border_G1[torch.searchsorted(border_G1, earliest_R)], requests.end_R)


def stream_of(batch: EventBatch) -> Stream:
    """The trunk's view of a batch."""
    return Stream(group_offsets(batch), batch.offset_B1, batch.group_T, batch.time_T)


def as_sequence(batch: EventBatch) -> EventBatch:
    """The same batch with every token a group of its own, in canonical order: what is left of sets when their members
    are read one after another. `group_T` and `group_offsets` of it are the positions and borders of a sequence."""
    position_T = torch.arange(batch.tokens, device=batch.group_T.device) - batch.offset_B1[:-1][batch.user_T]
    return replace(batch, group_T=position_T)


def largest(size_N: Tensor, least: int = 0) -> int:
    """The largest of these sizes and `least`: a number to make tensors of, known as one to tracing."""
    found = cast(int, F.pad(size_N.flatten(), (0, 1), value=least).max().item())
    torch._check(found >= least)  # type: ignore[no-untyped-call]
    return found


def segment_max(value_P: Tensor, segment_P: Tensor, segments: int) -> Tensor:
    """Largest value of each segment, −inf for an empty one; [segments]."""
    out = torch.full((segments,), -torch.inf, dtype=value_P.dtype, device=value_P.device)
    return out.scatter_reduce(0, segment_P, value_P, "amax")


def segment_sum(value_P: Tensor, segment_P: Tensor, segments: int) -> Tensor:
    """Sum of the values of each segment; [segments, ...]."""
    return value_P.new_zeros((segments, *value_P.shape[1:])).index_add(0, segment_P, value_P)


def segment_softmax(logit_P: Tensor, segment_P: Tensor, segments: int, rest: Tensor | float = -torch.inf) -> Tensor:
    """Softmax inside each segment; [P]. rest: logit of one more member of every segment, which has the remainder."""
    rest = torch.as_tensor(rest, dtype=logit_P.dtype, device=logit_P.device)
    top = torch.maximum(segment_max(logit_P.detach(), segment_P, segments), rest.detach())
    exp_P, exp_rest = torch.exp(logit_P - top[segment_P]), torch.exp(rest - top)
    return exp_P / (segment_sum(exp_P, segment_P, segments) + exp_rest)[segment_P]


def moved(value: Moved, device: torch.device | str) -> Moved:
    """A tensor, or what dataclasses and tuples hold of them, on a device; anything else as it is."""
    found: Any = value
    if isinstance(value, Tensor):
        found = value.to(device)
    elif isinstance(value, tuple):
        found = tuple(moved(part, device) for part in value)
    elif is_dataclass(value) and not isinstance(value, type):
        found = replace(value, **{field.name: moved(getattr(value, field.name), device) for field in fields(value)})
    return cast(Moved, found)


def _firsts(group_T: np.ndarray, offset_B1: np.ndarray) -> np.ndarray:
    """int64 [G]: the first token of each group."""
    first_T = np.ones(len(group_T), np.bool_)
    first_T[1:] = np.diff(group_T) != 0
    first_T[offset_B1[:-1][offset_B1[:-1] < len(group_T)]] = True
    return np.flatnonzero(first_T)


def _matrix(columns: Sequence[np.ndarray], rows: int) -> Tensor:
    """int64 [rows, columns], also of no column."""
    matrix = np.stack(columns, axis=1).astype(np.int64) if columns else np.zeros((rows, 0), np.int64)
    return torch.from_numpy(matrix)


def _values(tokens: pa.Table, name: str) -> np.ndarray:
    column = tokens.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # an empty table combines to no chunk
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False))


def _offsets(tokens: pa.Table, name: str) -> np.ndarray:
    lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in tokens.column(name).chunks]
    return np.concatenate([[0], *map(np.asarray, lengths)]).cumsum().astype(np.int64)
