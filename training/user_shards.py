"""Which users a rank reads: a log in shards of as many users each, learned from in turn.

What decides the batches of a run is the number of shards and not that of ranks: batch b is of shard b mod `count`,
whoever learns it. With a number of ranks that divides it, a rank needs the users of its own shards alone, so what a
machine holds of a log shrinks with the number of machines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tokenization.corpus.corpus import Corpus

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class UserShards:
    """count: shards of the log. mine: those that this rank reads."""

    count: int = 1
    mine: tuple[int, ...] = (0,)

    @classmethod
    def of_rank(cls, rank: int, ranks: int, count: int) -> UserShards:
        """The shards of a rank; all of them where the ranks do not divide their number."""
        return cls(count, tuple(range(rank, count, ranks)) if count % ranks == 0 else tuple(range(count)))


WHOLE = UserShards()


def read_shards(corpus: Corpus, shards: UserShards) -> tuple[pa.Table, NDArray[np.int64]]:
    """Rows of the token table, a shard after the other, and the shard of each."""
    if shards.count == 1:
        tokens = corpus.tokens()
        return tokens, np.zeros(tokens.num_rows, np.int64)
    parts = [list(corpus.scan(shard, shards.count)) for shard in shards.mine]
    rows = [sum(table.num_rows for table in tables) for tables in parts]
    tokens = pa.concat_tables([table for tables in parts for table in tables]).combine_chunks()
    return tokens, np.repeat(np.array(shards.mine, np.int64), rows)
