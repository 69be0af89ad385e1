"""Batch inference → the store: every user's embedding and every item's vector, as one space."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from foundation.repeat import FIRST_ITEM
from foundation.space import Space
from foundation.subgraph import Subgraph
from serving.ids import canonical
from serving.rows import Entity, VectorBatch
from serving.store import EmbeddingStore
from tokenization.corpus.corpus import Corpus
from training.reading import tokens_for
from training.rows import list_values
from training.run import Run

USERS = 256  # encoded at a time
ITEMS = 16_384

Progress = Callable[[str, int, int], None]


def push(
    run: Run,
    corpus: Corpus,
    store: EmbeddingStore,
    progress: Progress = lambda stage, done, total: None,
    as_of: float | None = None,
) -> Space:
    """Write the run's users, items and model into the store; `publish` makes them current.

    The corpus is the run's own, or of a later revision of its schema, of which the model reads what it knows.

    Returns their space, under the version that this store gives it: a model that is new to the store takes the next
    free one of its name, the same model pushed again the one it has.

    as_of: epoch seconds of which item vectors are, where they age (`item_gate`): push again with a later one, and young
    items are up to date. None: the end of training.

    Users whose vector has seen all their events are left out, so that an interrupted push goes on where it stopped
    and a later one encodes only who has been active since. Raises RunError, StoreError, ModelError.
    """
    subgraph = Subgraph.from_pretrained(run.model)
    tokens = tokens_for(subgraph.tokenizer, corpus)
    space = store.numbered(subgraph.aligned_space)
    tokens = tokens.filter(pa.array(_has_news(tokens, store.pushed(space, Entity.USER))))
    total = tokens.num_rows
    store.push(space, Entity.USER, user_batches(subgraph, tokens), lambda rows: progress("users", rows, total))
    items = len(subgraph.tokenizer.items) - FIRST_ITEM
    store.push(space, Entity.ITEM, item_batches(subgraph, as_of), lambda rows: progress("items", rows, items))
    store.push_model(space, run.model)
    return space


def user_batches(subgraph: Subgraph, tokens: pa.Table) -> Iterator[VectorBatch]:
    """Embeddings of the users in a token table, each as of the user's last event, in the subgraph's aligned space."""
    for start in range(0, tokens.num_rows, USERS):
        chunk = tokens.slice(start, USERS)
        user_ids, batch = subgraph.pack(chunk)
        with torch.inference_mode():
            user_BD = subgraph.aligned(subgraph(batch))
        end_B = batch.offset_B1[1:].numpy()
        last_B = batch.start_B.numpy().copy()
        has_events = end_B > batch.offset_B1[:-1].numpy()
        last_B[has_events] += batch.time_T.numpy()[end_B[has_events] - 1]
        yield VectorBatch(user_ids, user_BD.numpy(), last_B, _events_seen(chunk))


def _has_news(tokens: pa.Table, pushed: pa.Table) -> NDArray[np.bool_]:
    """[users] whether the token table knows more events of a user than the stored vector has seen."""
    ids = canonical(tokens["user_id"])
    if ids.type != pushed["id"].type:
        return np.ones(len(ids), dtype=np.bool_)
    stored = pushed["event_seq"].take(pc.index_in(ids, value_set=pushed["id"].combine_chunks()))
    return np.asarray(_events_seen(tokens) > stored.fill_null(-1).to_numpy())


def _events_seen(tokens: pa.Table) -> NDArray[np.int64]:
    """[users] raw events, of which a token may hold several."""
    count_T, offset_B1 = list_values(tokens["events"])
    before_T = np.concatenate([[0], np.cumsum(count_T, dtype=np.int64)])
    return np.asarray(before_T[offset_B1[1:]] - before_T[offset_B1[:-1]])


def item_batches(subgraph: Subgraph, as_of: float | None = None) -> Iterator[VectorBatch]:
    """Vectors of every candidate, as of a moment, epoch seconds; None: the end of training; in the
    subgraph's aligned space."""
    moment = subgraph.space.as_of if as_of is None else as_of
    ids = subgraph.tokenizer.items.ids
    codes = len(subgraph.tokenizer.items)
    for start in range(FIRST_ITEM, codes, ITEMS):
        code_N = torch.arange(start, min(start + ITEMS, codes))
        with torch.inference_mode():
            item_ND = subgraph.aligned(subgraph.model.item_vectors(code_N, as_of))
        count = len(code_N)
        yield VectorBatch(
            ids.decode(code_N.numpy().astype(np.int32)),
            item_ND.numpy(),
            np.full(count, moment),
            np.zeros(count, dtype=np.int64),
        )
