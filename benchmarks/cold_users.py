"""Users of whom little is known: the same requests, with a history cut to its last events, or to none at all."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenization.tokenizer.tokenizer import Tokenizer
from training.dropout import SINCE
from training.holdout import Requests, Scorer
from training.rows import list_values, ranges, whole


def knowing_last(scorer: Scorer, events: int, tokenizer: Tokenizer) -> Scorer:
    """The scorer, told only the last `events` tokens of each history. Without any, the clock has nothing to count from
    either; what is known of the user beside the events stays."""
    since = [place for place, facet in enumerate(tokenizer.context_facets) if facet.name in SINCE]

    def score(requests: Requests) -> NDArray[np.float32]:
        context = requests.context.copy()
        if not events:
            context[:, since] = 0
        return scorer(Requests(requests.user_ids, last_tokens(requests.history, events), requests.at, context))

    return score


def last_tokens(tokens: pa.Table, events: int) -> pa.Table:
    """The same rows of a token table with only their last tokens."""
    _, offset_R1 = list_values(tokens["time"])
    kept_R = np.minimum(np.diff(offset_R1), events)
    place = pa.array(ranges(offset_R1[1:] - kept_R, kept_R))
    kept_R1 = pa.array(np.concatenate([[0], np.cumsum(kept_R)]), pa.int32())
    columns = []
    for column in tokens.columns:
        one = whole(column)
        if pa.types.is_list(one.type):
            values = pa.array(list_values(one)[0], one.type.value_type)
            one = pa.ListArray.from_arrays(kept_R1, values.take(place), type=one.type)
        columns.append(one)
    return pa.table(columns, schema=tokens.schema)


def described(tokens: pa.Table, tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """[rows] whether anything is known of a user beside the events."""
    told = [tokens[f"user.{name}"].to_numpy() > 1 for name in tokenizer.users.sizes]
    return np.any(told, axis=0) if told else np.zeros(tokens.num_rows, np.bool_)
