"""Rows for users of whom there is no event yet, but attributes, or nothing at all but an id."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from tokenization.corpus.rows import Place, join, place_users
from tokenization.ids import Ids, as_type, one_chunk
from tokenization.schema.event_schema import EventSchema
from tokenization.schema.rules import UsersRule
from tokenization.sources.tables import TableLike, read_users
from tokenization.tokenizer.tokenizer import Tokenizer


def rule_of_users(schema: EventSchema) -> UsersRule:
    """What a table of users holds: what the schema declares, or ids alone where it declares nothing."""
    return schema.users or UsersRule(id=schema.user)


def with_newcomers(tokenizer: Tokenizer, events: TableLike, users: TableLike) -> pa.Table:
    """Tokens of everybody in the events or in the users table, one row a user in the order of their ids; the lists of
    whoever has no event are empty.

    users: as `rule_of_users` says; other columns are not read.

    Raises:
        SourceError: as `Tokenizer.transform`; a row of users without an id, or one id twice.
    """
    known = read_users(users, rule_of_users(tokenizer.schema))
    tokens = tokenizer.transform(events, known if tokenizer.schema.users else None)
    new = _without_events(tokenizer, known)
    if not tokens.num_rows:
        return new
    ids = as_type(one_chunk(new["user_id"]), tokens["user_id"].type)
    if not ids.null_count:  # "17" of one table is 17 of the other
        new = new.set_column(0, "user_id", ids)
    everybody, places = place_users([one_chunk(table["user_id"]) for table in (tokens, new)])
    tables = [_in_place(table, place, everybody.type) for table, place in zip((tokens, new), places, strict=True)]
    return join(tables, [place.user for place in places])


def _in_place(rows: pa.Table, place: Place, kind: pa.DataType) -> pa.Table:
    rows = rows.set_column(0, "user_id", rows["user_id"].cast(kind))
    return rows if place.row is None else rows.take(pa.array(place.row))


def _without_events(tokenizer: Tokenizer, users: pa.Table) -> pa.Table:
    """What `Tokenizer.transform` gives, of users without an event."""
    rule = rule_of_users(tokenizer.schema)
    ids = Ids.of(users.column(rule.id), rule.id).rank()[0]
    attributes = tokenizer.users.encode(rule, users, ids)
    return replace(
        tokenizer.encode([]), users=ids, offsets=np.zeros(len(ids) + 1, np.int64), attributes=attributes
    ).table()
