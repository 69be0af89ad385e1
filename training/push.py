"""Batch inference → the store: every user's embedding and every item's vector, as one space."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from foundation.repeat import FIRST_ITEM
from foundation.space import Space
from foundation.subgraph import Subgraph
from serving.rows import Entity, VectorBatch
from serving.store import EmbeddingStore
from tokenization.corpus import Corpus
from training.pretrain import Run

USERS = 256  # encoded at a time
ITEMS = 16_384

Progress = Callable[[str, int, int], None]


def push(
    run: Run, corpus: Corpus, store: EmbeddingStore, progress: Progress = lambda stage, done, total: None
) -> Space:
    """Write the run's users, items and model into the store under the run's space; `publish` makes it current.

    Users who are there already are left out, so that an interrupted push goes on where it stopped. Raises
    StoreError, SpaceConflict, ModelError.
    """
    subgraph = Subgraph.from_pretrained(run.model)
    space = subgraph.space
    tokens = corpus.tokens()
    done = store.pushed(space, Entity.USER)
    waiting = pc.invert(pc.is_in(tokens["user_id"].cast(done.type), value_set=done))
    tokens = tokens.filter(waiting)
    total = tokens.num_rows
    store.push(space, Entity.USER, user_batches(subgraph, tokens), lambda rows: progress("users", rows, total))
    items = len(corpus.tokenizer.items) - FIRST_ITEM
    store.push(space, Entity.ITEM, item_batches(subgraph), lambda rows: progress("items", rows, items))
    store.push_model(space, run.model)
    return space


def user_batches(subgraph: Subgraph, tokens: pa.Table) -> Iterator[VectorBatch]:
    """Embeddings of the users in a token table, each as of the user's last event."""
    for start in range(0, tokens.num_rows, USERS):
        user_ids, batch = subgraph.pack(tokens.slice(start, USERS))
        with torch.inference_mode():
            user_BD = subgraph(batch)
        length_B = (batch.offset_B1[1:] - batch.offset_B1[:-1]).numpy()
        last_B = batch.start_B.numpy().copy()
        has_events = length_B > 0
        last_B[has_events] += batch.time_T.numpy()[batch.offset_B1[1:].numpy()[has_events] - 1]
        yield VectorBatch(user_ids, user_BD.numpy(), last_B, length_B)


def item_batches(subgraph: Subgraph) -> Iterator[VectorBatch]:
    """Vectors of every candidate, as of the end of training."""
    ids = subgraph.tokenizer.items.ids
    codes = len(subgraph.tokenizer.items)
    for start in range(FIRST_ITEM, codes, ITEMS):
        code_N = torch.arange(start, min(start + ITEMS, codes))
        with torch.inference_mode():
            item_ND = subgraph.model.item_vectors(code_N)
        count = len(code_N)
        yield VectorBatch(
            ids.decode(code_N.numpy().astype(np.int32)),
            item_ND.numpy(),
            np.full(count, subgraph.space.as_of),
            np.zeros(count, dtype=np.int64),
        )
