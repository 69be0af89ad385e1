"""The long table of recommendations: user_id, item_id, score, rank."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from foundation.heads import Heads
from foundation.repeat import FIRST_ITEM
from foundation.subgraph import Subgraph
from training.errors import TrainingError
from training.metrics import top_k
from training.pretrain import Run

USERS = 64  # scored at a time, each over the whole catalogue


def recommend(run: Run, tokens: pa.Table, k: int = 20) -> pa.Table:
    """Home recommendations for the users of a token table, seen in training or not, best first.

    tokens: rows of `Corpus.tokens()`, or `Tokenizer.transform(events)` for new users. Columns of the result:
    user_id and item_id as they came in, score float32, rank int32 from 1. Raises TrainingError for a bad k or no users.
    """
    subgraph = Subgraph.from_pretrained(run.model)
    items = subgraph.tokenizer.items
    if not 1 <= k <= len(items) - FIRST_ITEM:
        raise TrainingError(f"k must lie between 1 and the {len(items) - FIRST_ITEM} items, got {k}")
    heads = Heads.load(run.model, subgraph)
    if tokens.num_rows == 0:
        raise TrainingError("there is nobody to recommend to: the table of users is empty")
    tables = [_recommend(heads, tokens.slice(start, USERS), k) for start in range(0, tokens.num_rows, USERS)]
    return pa.concat_tables(tables)


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
