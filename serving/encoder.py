"""The model behind the service: fresh events in, user vectors and rankings out.

Events go through the tokenizer that is saved with the model, the one the batch job used: same events, same vector.

Shapes: B users of the request, D width of the space, C context facets, V item codes, K results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from foundation.heads import Heads
from foundation.jagged import EventBatch
from foundation.space import Space
from foundation.subgraph import Subgraph
from serving.errors import InvalidRequest, NoModel, UnknownId
from serving.ids import canonical
from serving.index import Ranking, top
from serving.rows import Float32s
from tokenization.codes.vocabulary import UNKNOWN
from tokenization.corpus.newcomers import rule_of_users
from tokenization.errors import UserfmError, nearest
from tokenization.sources.tables import columns_of_users

Cell = str | int | float | list[str] | list[float] | None


@dataclass(frozen=True)
class Encoded:
    """The users found in the request and their vectors [B, D]."""

    users: pa.Array
    vectors_BD: Float32s


@dataclass(frozen=True)
class Scored:
    """The users found in the request and a ranking for each."""

    users: pa.Array
    rankings: list[Ranking]


class Encoder:
    """A pretrained model and its heads, for one request at a time. Every method computes: call it off the event loop.

    Events are a table with the schema's columns, of which any may be left out; users, what is known of some of them or
    of others, likewise. `at` is the moment of the request in seconds since 1970 UTC. InvalidRequest says what is wrong.
    """

    def __init__(self, subgraph: Subgraph, heads: Heads) -> None:
        self._subgraph = subgraph
        self._heads = heads

    @classmethod
    def load(cls, folder: Path) -> Encoder:
        """Read a model directory. Raises ModelError."""
        subgraph = Subgraph.from_pretrained(folder)
        return cls(subgraph, Heads.load(folder, subgraph))

    @property
    def space(self) -> Space:
        """The space of the vectors."""
        return self._subgraph.aligned_space

    @torch.inference_mode()
    def encode(self, events: pa.Table, users: pa.Table | None, at: float | None) -> Encoded:
        """Vectors of the users in `events` and `users` at a moment; None: each user's last event."""
        with _requests_fault():
            ids, batch = self._read(events, users)
            user_BD = self._subgraph.aligned(self._subgraph(batch, _every(at, batch)))
        return Encoded(canonical(ids), user_BD.numpy())

    @torch.inference_mode()
    def home(
        self, events: pa.Table, users: pa.Table | None, at: float | None, context: Mapping[str, Cell], k: int
    ) -> Scored:
        """The `k` items for each user now; `context` is by name of the schema's context facets."""
        with _requests_fault():
            ids, batch = self._read(events, users)
            score_BV = self._heads.home(batch, _every(at, batch), self._context(batch, at, context))
        return Scored(canonical(ids), self._rankings(score_BV, k))

    @torch.inference_mode()
    def search(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """The `k` items meant by each query. Raises NoModel where the model's items have no text."""
        try:
            score_QV = self._heads.search(list(queries))
        except UserfmError as error:
            raise NoModel(str(error)) from error
        return self._rankings(score_QV, k)

    @torch.inference_mode()
    def item_to_item(self, ids: pa.Array, k: int) -> list[Ranking]:
        """The `k` items that go with each item. Raises UnknownId for one the model has not seen."""
        codes = self._subgraph.tokenizer.items.ids.encode(ids)
        unknown = np.flatnonzero(codes <= UNKNOWN)
        if len(unknown):
            raise UnknownId(f"item {unknown[0]} of the request (counted from 0) is not known to the model")
        return self._rankings(self._heads.item_to_item(torch.from_numpy(codes.astype(np.int64))), k)

    def _read(self, events: pa.Table, users: pa.Table | None) -> tuple[pa.Array, EventBatch]:
        tokenizer = self._subgraph.tokenizer
        events = _complete(events, tokenizer.schema.columns, "the schema")
        if users is not None:
            columns = columns_of_users(rule_of_users(tokenizer.schema))
            users = _complete(users, columns, "the users table")
        return self._subgraph.tokenize(events, users)

    def _context(self, batch: EventBatch, at: float | None, context: Mapping[str, Cell]) -> Tensor | None:
        """What is known of the request as codes [B, C]; users differ only in gap and tenure."""
        if not context and at is None:
            return None
        first_B, previous_B = _first_and_last(batch)
        codes_BC = self._subgraph.tokenizer.encode_context(
            {name: [value] * batch.users for name, value in context.items()},
            at=None if at is None else np.full(batch.users, at),
            previous=None if at is None else previous_B.numpy(),
            first=None if at is None else first_B.numpy(),
        )
        return torch.from_numpy(codes_BC.astype(np.int64))

    def _rankings(self, score_NV: Tensor, k: int) -> list[Ranking]:
        items = self._subgraph.tokenizer.items.ids
        found = [top(score_V, k) for score_V in score_NV.float().numpy()]
        return [Ranking(canonical(items.decode(hits.rows_K.astype(np.int32))), hits.scores_K) for hits in found]


def _complete(table: pa.Table, columns: Sequence[str], where: str) -> pa.Table:
    """The table with every one of the columns, null where the request has none."""
    for name in table.column_names:
        if name not in columns:
            raise InvalidRequest(f"no column of {where} is called {name!r}; {nearest(name, columns)}")
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows))
    return table


def _first_and_last(batch: EventBatch) -> tuple[Tensor, Tensor]:
    """float64 [B] epoch seconds of each user's first and last event, NaN for a user without one."""
    there_B = batch.offset_B1[1:] > batch.offset_B1[:-1]
    first_B, last_B = torch.full((2, batch.users), torch.nan, dtype=torch.float64)
    first_B[there_B] = batch.start_B[there_B]
    last_B[there_B] = first_B[there_B] + batch.time_T[batch.offset_B1[1:][there_B] - 1]
    return first_B, last_B


@contextmanager
def _requests_fault() -> Iterator[None]:
    """What tokenizer and model say of the events and the moment given is for whoever sent them."""
    try:
        yield
    except InvalidRequest:
        raise
    except UserfmError as error:
        raise InvalidRequest(str(error)) from error


def _every(at: float | None, batch: EventBatch) -> Tensor | None:
    return None if at is None else torch.full((batch.users,), at, dtype=torch.float64)
