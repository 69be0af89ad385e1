"""Rows for users of whom there is no event yet, but attributes, or nothing at all but an id."""

from __future__ import annotations

import pyarrow as pa

from tokenization.corpus.rows import join, place_users
from tokenization.ids import as_type, one_chunk
from tokenization.sources.tables import TableLike
from tokenization.tokenizer.tokenizer import Tokenizer


def with_newcomers(tokenizer: Tokenizer, events: TableLike, users: TableLike) -> pa.Table:
    """Tokens of everybody in the events or in the users table, one row a user in the order of their ids; the lists of
    whoever has no event are empty.

    users: as `schema.users` declares; where it declares none, of its columns only the ids are read.

    Raises:
        SourceError: as `Tokenizer.transform` and `Tokenizer.without_events`.
    """
    known = tokenizer.read_users(users)
    tokens = tokenizer.transform(events, known if tokenizer.schema.users else None)
    new = tokenizer.without_events(known)
    if not tokens.num_rows:
        return new
    ids = as_type(one_chunk(new["user_id"]), tokens["user_id"].type)
    if not ids.null_count:  # "17" of one table is 17 of the other
        new = new.set_column(0, "user_id", ids)
    names, places = place_users([one_chunk(table["user_id"]) for table in (tokens, new)])
    tables = [table.set_column(0, "user_id", table["user_id"].cast(names.type)) for table in (tokens, new)]
    return join(tables, [place.user for place in places])
