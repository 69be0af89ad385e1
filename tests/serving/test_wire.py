from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import wire
from serving.errors import InvalidRequest
from serving.ids import INTEGER, TEXT
from serving.wire import events_to_table, ids_from_proto, ids_to_proto, matrix_to_proto, vectors_from_proto
from tests.tokenization.logs import ITEMS, USERS, Row, magazine, rows, whole
from tokenization.events.cleaning import clean
from tokenization.events.live import events_of, events_of_table
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.tables import from_rows
from tokenization.tokenizer.tokenizer import Tokenizer
from userfm import client
from userfm.v1 import embedding_pb2 as pb

TEXTS = st.lists(st.text()).map(lambda ids: pa.array(ids, TEXT))
INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1)).map(lambda ids: pa.array(ids, INTEGER))


@given(TEXTS | INTEGERS)
def test_the_same_ids_come_back(ids: pa.Array) -> None:
    sent = pb.Ids.FromString(ids_to_proto(ids).SerializeToString())
    assert ids_from_proto(sent).equals(ids)


def test_a_matrix_is_bytes_with_dtype_and_dims() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    message = matrix_to_proto(matrix)
    assert (message.dtype, list(message.dims)) == (pb.DTYPE_FLOAT32, [2, 3])
    assert message.data == bytes.fromhex("000000000000803f00000040000040400000804000 00a040".replace(" ", ""))
    assert np.array_equal(vectors_from_proto(message, 3), matrix)
    assert matrix_to_proto(np.zeros(2)).dtype == pb.DTYPE_FLOAT64


def test_events_become_columns_with_nulls_where_a_cell_is_left_out() -> None:
    events = [
        pb.Event(columns={"user": pb.Value(integer=1), "amount": pb.Value(integer=2), "note": pb.Value()}),
        pb.Event(columns={"user": pb.Value(integer=2), "amount": pb.Value(number=0.5), "shop": pb.Value(text="x")}),
    ]
    table = events_to_table(events)
    assert table["user"].to_pylist() == [1, 2]
    assert table["amount"].to_pylist() == [2.0, 0.5]
    assert table["note"].to_pylist() == [None, None]
    assert table["shop"].to_pylist() == [None, "x"]
    assert table.num_rows == 2


def test_a_column_of_text_and_numbers_is_refused() -> None:
    events = [pb.Event(columns={"user": pb.Value(integer=1)}), pb.Event(columns={"user": pb.Value(text="1")})]
    with pytest.raises(InvalidRequest, match="column 'user' holds text in some events and numbers in others"):
        events_to_table(events)


_zones = st.sampled_from([None, UTC, ZoneInfo("Asia/Tokyo"), timezone(timedelta(hours=-5))])


@given(
    moments=st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), min_size=1, max_size=4),
    zone=_zones,
    unit=st.sampled_from(["us", "ns"]),
)
@settings(max_examples=50)
def test_a_category_that_is_a_time_is_one_value_in_a_log_live_and_over_the_wire(
    moments: list[datetime], zone: tzinfo | None, unit: str
) -> None:
    schema = magazine(drop=None)
    column = pa.array([m.replace(tzinfo=zone) for m in moments], pa.timestamp(unit, zone and "America/New_York"))
    log = [{"reader": "ann", "at": 1.7e9, "what": "open", "device": m.replace(tzinfo=zone)} for m in moments]
    logged = from_rows([{**row, "device": None} for row in log], schema)
    logged = logged.set_column(logged.column_names.index("device"), "device", column)
    batch, live = clean(logged, schema).events, clean(from_rows(log, schema), schema).events
    sent = client._events(log)
    wired = clean(_whole(events_to_table(sent), schema), schema).events
    told = batch.ids["device"].decode()
    assert live.ids["device"].decode().equals(told)
    assert wired.ids["device"].decode().equals(told)


def test_a_flag_is_one_value_in_a_log_live_and_over_the_wire() -> None:
    schema = magazine(drop=None)
    flags = [True, None, False, True]
    log = [{"reader": "ann", "at": 1.7e9, "what": "open", "device": flag} for flag in flags]
    batch, table = clean(from_rows(log, schema), schema).events, _whole(events_to_table(client._events(log)), schema)
    assert batch.ids["device"].decode().to_pylist() == ["true", None, "false", "true"]
    for live in (clean(table, schema).events, events_of(log, schema, {}), events_of_table(table, schema, {})):
        assert live.ids["device"].decode().equals(batch.ids["device"].decode())
    tags = client._events([{"tags": [True, False]}])[0].columns["tags"]
    assert list(tags.texts.values) == batch.ids["device"].values.cast(pa.string()).to_pylist()
    mixed = [pb.Event(columns={"n": pb.Value(flag=True)}), pb.Event(columns={"n": pb.Value(integer=1)})]
    with pytest.raises(InvalidRequest, match="column 'n' holds flags in some events and numbers in others"):
        events_to_table(mixed)


def _whole(table: pa.Table, schema: EventSchema) -> pa.Table:
    absent = pa.nulls(table.num_rows)
    return pa.table({n: table[n] if n in table.column_names else absent for n in schema.columns})


@given(log=rows)
@settings(max_examples=25)
def test_events_of_every_kind_that_come_over_the_wire_are_the_tokens_of_the_batch(log: list[Row]) -> None:
    schema = magazine()
    whole_log = clean(from_rows(whole(log, schema), schema), schema).events
    tokenizer = Tokenizer.fit(schema, whole_log, ITEMS, users=USERS)
    sent = [pb.Event.FromString(event.SerializeToString()) for event in client._events(log)]
    table = wire.events_to_table(sent)
    for name in schema.columns:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(log)))
    batch = clean(from_rows(log, schema), schema).events
    assert tokenizer.transform(table).to_pylist() == tokenizer.transform(batch).to_pylist()


def test_what_is_no_set_and_no_vector_is_said() -> None:
    with pytest.raises(InvalidRequest, match="a vector of 3 bytes is cut off"):
        wire.cell(pb.Value(vector=b"abc"))
    mixed = [pb.Event(columns={"tags": client._value(value)}) for value in (["sea"], "sea")]
    with pytest.raises(InvalidRequest, match="'tags' holds lists in some events and single values in others"):
        wire.events_to_table(mixed)
    mixed = [pb.Event(columns={"tags": client._value(value)}) for value in (["sea"], [1.0])]
    with pytest.raises(InvalidRequest, match="'tags' holds texts in some events and vectors in others"):
        wire.events_to_table(mixed)
    with pytest.raises(client.InvalidRequest, match="a list holds neither texts nor floats alone"):
        client._value([1.0, "sea"])
    assert client._value([1, 2]).texts.values == ["1", "2"]
