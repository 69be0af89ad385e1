"""The long table of recommendations: user_id, item_id, score, rank."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from foundation.generation import generate
from foundation.heads import Heads
from foundation.repeat import FIRST_ITEM
from foundation.subgraph import Subgraph
from training.errors import TrainingError
from training.metrics import top_k
from training.run import Run

BEAM = 100  # paths that generation follows: beyond, nothing more was found (`python -m benchmarks generation`)
USERS = 64  # scored at a time, each over the whole catalogue


def recommend(run: Run, tokens: pa.Table, k: int = 20) -> pa.Table:
    """Home recommendations for the users of a token table, seen in training or not, best first.

    tokens: rows of `Corpus.tokens()`, or `Tokenizer.transform(events)` for new users. Columns of the result:
    user_id and item_id as they came in, score float32, rank int32 from 1. Raises TrainingError for a bad k or no users.
    """
    subgraph = _asked(run, tokens, k)
    heads = Heads.load(run.model, subgraph)
    tables = [_recommend(heads, tokens.slice(start, USERS), k) for start in range(0, tokens.num_rows, USERS)]
    return pa.concat_tables(tables)


def recommend_generated(run: Run, tokens: pa.Table, k: int = 20, beam: int = BEAM) -> pa.Table:
    """As `recommend`, by decoding semantic IDs from the user state (foundation/generation.py): no item is scored that
    no beam leads to. The score is a log probability, told neither time nor context; `beam` is at least k.

    Raises ModelError where the run's model has no decoder.
    """
    subgraph = _asked(run, tokens, k)
    with torch.inference_mode():
        trie, item_VD = subgraph.model.trie(), subgraph.item_vectors()
        found = []
        for start in range(0, tokens.num_rows, USERS):
            user_ids, batch = subgraph.pack(tokens.slice(start, USERS))
            best = generate(subgraph.model, subgraph.states(batch), item_VD, trie, max(beam, k), k)
            item_ids = subgraph.tokenizer.items.ids.decode(best.item_RK.numpy().ravel())
            users = user_ids.take(pa.array(np.repeat(np.arange(len(user_ids)), k)))
            found.append(_table(users, item_ids, best.log_RK.numpy().ravel(), k))
    return pa.concat_tables(found)


def _asked(run: Run, tokens: pa.Table, k: int) -> Subgraph:
    """The run's model. Raises TrainingError for a bad k or no users."""
    subgraph = Subgraph.from_pretrained(run.model)
    items = len(subgraph.tokenizer.items) - FIRST_ITEM
    if not 1 <= k <= items:
        raise TrainingError(f"k must lie between 1 and the {items} items, got {k}")
    if tokens.num_rows == 0:
        raise TrainingError("there is nobody to recommend to: the table of users is empty")
    return subgraph


def _recommend(heads: Heads, tokens: pa.Table, k: int) -> pa.Table:
    user_ids, batch = heads.subgraph.pack(tokens)
    with torch.inference_mode():
        score_BV = heads.home(batch).numpy()
    ranked_BK = top_k(score_BV, k)
    item_ids = heads.subgraph.tokenizer.items.ids.decode(ranked_BK.ravel())
    users = user_ids.take(pa.array(np.repeat(np.arange(len(ranked_BK)), k)))
    return _table(users, item_ids, np.take_along_axis(score_BV, ranked_BK, axis=1).ravel(), k)


def _table(users: pa.Array, items: pa.Array, score: np.ndarray, k: int) -> pa.Table:
    rank = np.tile(np.arange(1, k + 1, dtype=np.int32), len(users) // k)
    return pa.table(
        {"user_id": users, "item_id": items, "score": pa.array(score, pa.float32()), "rank": pa.array(rank)}
    )
