from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenization.logs import Row, dense, magazine, minutes, table_of
from tokenization.errors import SourceError
from tokenization.events.cleaning import clean
from tokenization.events.events import Events
from tokenization.events.stored import from_table, joined, to_table
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer


def events_of(log: list[Row], schema: EventSchema) -> Events:
    return clean(table_of(log, schema), schema).events


@given(log=dense, cut=st.integers(0, 24))
@settings(max_examples=30)
def test_events_that_were_stored_and_joined_are_those_of_the_whole(log: list[Row], cut: int) -> None:
    schema = magazine(split={"time": "2030-01-01"}, items=None, users=None)
    whole = events_of(log, schema)
    tokenizer = Tokenizer.fit(schema, whole)
    early = np.arange(len(whole)) < cut
    kept = to_table(whole.take(early))
    back = from_table(kept, schema, pa.string())
    assert to_table(back).equals(kept)
    both = joined(back, whole.take(~early))
    assert to_table(both).equals(to_table(whole))
    assert tokenizer.transform(both).equals(tokenizer.transform(whole))


def test_a_table_has_one_type_a_column_whatever_it_holds() -> None:
    schema = magazine()
    rich = minutes(
        {"at": 1, "article": "a1", "tags": ["sea"], "cover": [1.0, 2.0], "query": "the wave", "visit": 1, "stars": 2.0}
    )
    full, bare = (to_table(events_of(log, schema)) for log in (rich, minutes({"at": 1})))
    assert full.schema.equals(bare.schema)
    assert full["members.query"].to_pylist() == [["the", "wave"]]
    assert bare["members.tags"].to_pylist() == bare["vector.cover"].to_pylist() == [None]


def test_a_facet_that_was_not_kept_is_absent_and_ids_have_the_type_asked_for() -> None:
    schema = magazine(group=None)
    events = from_table(pa.table({"user": ["7"], "time": [3.0], "id.article": ["a1"]}), schema, pa.int64())
    assert events.users.decode().to_pylist() == [7]
    assert events.ids["device"].missing.all()
    assert to_table(events)["number.stars"].to_pylist() == [None]


def test_vectors_of_another_length_are_named() -> None:
    schema = magazine()
    one, two = (
        events_of(minutes({"at": 1, "article": "a1", "cover": cover}), schema) for cover in ([1.0, 2.0], [1.0] * 3)
    )
    with pytest.raises(SourceError, match="'cover' holds vectors of length 3, where earlier events have 2"):
        joined(one, two)
    assert joined(two, events_of(minutes({"at": 1}), schema)).vectors["cover"].shape == (2, 3)
