"""What a system recommends, as a list of items a user: the one form in which systems of any make are judged alike.

A list is scored by one evaluator (`training.ranking`), as if it were a scorer: its first item highest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenization.codes.vocabulary import Vocabulary
from tokenization.corpus.corpus import Corpus
from training.holdout import Columns, Holdout, Part, Requests, Scorer, hold_out
from training.metrics import Codes, top_k

DEPTH = 100
"""Items of a list: deeper than any figure looks."""


@dataclass(frozen=True)
class Lists:
    """code_UK: int32 item codes of each user's list, best first, −1 where it is shorter. user_ids: their users."""

    user_ids: pa.Array
    code_UK: Codes

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `write`."""
        table = pq.read_table(path)
        flat = table["items"].combine_chunks()
        code_UK = np.asarray(flat.flatten()).reshape(table.num_rows, -1)
        return cls(table["user_id"].combine_chunks(), code_UK)

    def write(self, path: Path) -> None:
        """As Parquet, a row a user."""
        items = pa.FixedSizeListArray.from_arrays(pa.array(self.code_UK.ravel()), self.code_UK.shape[1])
        fresh = path.with_suffix(".tmp")
        pq.write_table(pa.table({"user_id": self.user_ids, "items": items}), fresh)
        fresh.rename(path)


def held_out(corpus: Corpus, part: Part) -> Holdout:
    """What every system is asked for on that part."""
    return hold_out(corpus.tokens(), Columns.of(corpus.tokenizer), corpus.split, part)


def of_scorer(scorer: Scorer, holdout: Holdout, items: int, filtered: bool) -> Lists:
    """The lists that a scorer gives. filtered: without what each user met before."""
    found = []
    for start, requests in holdout.chunks(512):
        score_nV = np.array(scorer(requests), dtype=np.float32)
        score_nV[:, :2] = -np.inf
        if filtered:
            seen = holdout.seen.slice(start, start + len(requests))
            score_nV[seen.users, seen.codes] = -np.inf
        found.append(top_k(score_nV, min(DEPTH, items - 2)))
    return Lists(holdout.user_ids, np.concatenate(found))


def of_table(table: pa.Table, user_ids: pa.Array, ids: Vocabulary) -> Lists:
    """Lists out of a long table of columns `user_id`, `item_id` and `rank` from 1, as other systems write them.

    Raises ValueError where a rank is below 1 or beyond the depth of a list.
    """
    row = pc.index_in(table["user_id"].combine_chunks().cast(user_ids.type), user_ids)
    rank = table["rank"].to_numpy()
    if len(rank) and (rank.min() < 1 or rank.max() > DEPTH):
        raise ValueError(f"ranks go from 1 to {DEPTH}, got {rank.min()} to {rank.max()}")
    code_UK = np.full((len(user_ids), DEPTH), -1, dtype=np.int32)
    known = np.asarray(pc.is_valid(row))
    code = ids.encode(table["item_id"].combine_chunks())
    code_UK[np.asarray(row.fill_null(0))[known], rank[known] - 1] = code[known]
    return Lists(user_ids, code_UK)


def scorer_of(lists: Lists, items: int) -> Scorer:
    """Lists as a scorer: each item of a list above the next, everything else below."""

    def score(requests: Requests) -> NDArray[np.float32]:
        row = np.asarray(pc.index_in(requests.user_ids, lists.user_ids))
        code_nK = lists.code_UK[row]
        score_nV = np.full((len(requests), items), -np.inf, dtype=np.float32)
        there_nK = code_nK >= 0
        place = np.broadcast_to(-np.arange(code_nK.shape[1], dtype=np.float32), code_nK.shape)
        score_nV[np.nonzero(there_nK)[0], code_nK[there_nK]] = place[there_nK]
        return score_nV

    return score


def ranks(lists: Lists, holdout: Holdout) -> NDArray[np.int16]:
    """int16 [U]: the place, from 1, of the first item of each list that the user took next; 0 where none is on it."""
    truth = holdout.truth
    found = np.zeros(len(holdout), dtype=np.int16)
    hit_UK = truth.contains(np.repeat(np.arange(len(found)), lists.code_UK.shape[1]), lists.code_UK.ravel())
    hit_UK = hit_UK.reshape(lists.code_UK.shape)
    some_U = hit_UK.any(axis=1)
    found[some_U] = hit_UK[some_U].argmax(axis=1) + 1
    return found
