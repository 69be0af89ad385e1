"""The client against a server in a process of its own."""

from __future__ import annotations

import datetime as dt
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from foundation.space import Space
from serving.rows import Entity, VectorBatch
from serving.store import EmbeddingStore
from serving.supervisor import ServerProcess
from userfm import client as module
from userfm.client import (
    DeadlineExceeded,
    EmbeddingClient,
    InvalidRequest,
    Overloaded,
    Unavailable,
    UnknownId,
    WrongSpace,
)
from userfm.v1 import embedding_pb2 as pb

USERS = dict(zip("abc", np.eye(3, 4, dtype=np.float32), strict=True))
ITEMS = {100 + i: vector for i, vector in enumerate(np.diag([4, 3, 2, 1]).astype(np.float32))}


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[EmbeddingClient]:
    space = Space(name="shop", version=3, fingerprint="ab" * 32, width=4, as_of=5.0, lineage=("shop-v2",))
    store = EmbeddingStore(tmp_path_factory.mktemp("client") / "store")
    for entity, rows in ((Entity.USER, USERS), (Entity.ITEM, ITEMS)):
        n = len(rows)
        store.push(
            space,
            entity,
            [
                VectorBatch(
                    pa.array(list(rows)), np.stack(list(rows.values())), np.arange(n) + 0.5, np.ones(n, np.int64)
                )
            ],
        )
    store.publish(space)
    with ServerProcess(store.root) as server, EmbeddingClient(server.address) as client:
        yield client


def test_space_says_what_is_served(client: EmbeddingClient) -> None:
    served = client.space()
    assert served.space == module.Space("shop", 3, "ab" * 32, 4, 5.0, ("shop-v2",), None)
    assert served.space.id == "shop-v3"
    assert (served.epoch, served.users, served.items, served.encodes) == (1, 3, 4, False)


def test_lookup_returns_the_same_ids_and_the_stored_vectors(client: EmbeddingClient) -> None:
    users = client.lookup_users(["c", "nobody", "a"])
    assert users.ids.tolist() == ["c", "nobody", "a"]
    assert users.found.tolist() == [True, False, True]
    assert users.vectors.dtype == np.float32
    assert np.array_equal(users.vectors, np.stack([USERS["c"], np.zeros(4, np.float32), USERS["a"]]))
    assert users.as_of.tolist() == [2.5, 0.0, 0.5]
    items = client.lookup_items(np.array([103, 100], np.int32))
    assert items.ids.dtype == np.int64
    assert np.array_equal(items.vectors, np.stack([ITEMS[103], ITEMS[100]]))


def test_search_by_users_items_and_vectors(client: EmbeddingClient) -> None:
    by_users = client.search(2, users=["b"])
    assert by_users.rankings[0].ids.tolist()[0] == 101
    assert by_users.rankings[0].scores.tolist() == [3.0, 0.0]
    by_items = client.search(10, items=[100, 101])
    assert [len(ranking.ids) for ranking in by_items.rankings] == [3, 3]
    assert all(item not in r.ids for item, r in zip([100, 101], by_items.rankings, strict=True))
    by_vectors = client.search(1, vectors=[0, 0, 1, 0], space=by_users.space)
    assert by_vectors.rankings[0].ids.tolist() == [102]
    assert by_vectors.rankings[0].scores.tolist() == [2.0]


def test_search_takes_one_query_and_says_its_space(client: EmbeddingClient) -> None:
    with pytest.raises(ValueError, match="one of items, users and vectors"):
        client.search(3)
    with pytest.raises(ValueError, match="one of items, users and vectors"):
        client.search(3, items=[100], users=["a"])
    with pytest.raises(ValueError, match=r"pass space=answer\.space"):
        client.search(3, vectors=np.zeros((1, 4)))


def test_errors_are_typed_sentences(client: EmbeddingClient) -> None:
    space = client.space().space
    with pytest.raises(UnknownId, match="user 0 of the request"):
        client.search(3, users=["nobody"])
    with pytest.raises(WrongSpace, match="served is abab"):
        client.search(3, vectors=np.ones((1, 4)), space=replace(space, fingerprint="cd"))
    with pytest.raises(InvalidRequest, match=r"takes \[n, 4\]"):
        client.search(3, vectors=np.ones((1, 5)), space=space)
    with pytest.raises(InvalidRequest, match="stored here are text"):
        client.lookup_users([1])
    with pytest.raises(InvalidRequest, match="all text or all integers"):
        client.lookup_users(["a", 1])
    with pytest.raises(InvalidRequest, match="all text or all integers"):
        client.lookup_users([2**63])
    with pytest.raises(InvalidRequest, match="k is -1"):
        client.search(-1, items=[100])
    with pytest.raises(WrongSpace, match="published without a model"):
        client.encode([{"user": "a"}])
    with pytest.raises(Overloaded):
        client.lookup_users(["x" * 2**23])


def test_no_server_and_no_answer_are_told_apart(client: EmbeddingClient) -> None:
    sentence = r"127\.0\.0\.1:1, or it is ending; start one"
    with EmbeddingClient("127.0.0.1:1") as nobody, pytest.raises(Unavailable, match=sentence):
        nobody.space()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with EmbeddingClient(address, timeout=0.3) as patient, pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
            patient.space()


def test_events_of_every_kind_of_table_are_the_same_message() -> None:
    rows = [
        {"user": "a", "time": dt.datetime(2017, 1, 2, 3, 4, 5), "amount": 1.5, "count": 2},
        {"user": "b", "time": dt.datetime(2017, 1, 3), "amount": None, "count": 3},
    ]
    expected = [
        pb.Event(
            columns={
                "user": pb.Value(text="a"),
                "time": pb.Value(text="2017-01-02T03:04:05"),
                "amount": pb.Value(number=1.5),
                "count": pb.Value(integer=2),
            }
        ),
        pb.Event(
            columns={
                "user": pb.Value(text="b"),
                "time": pb.Value(text="2017-01-03T00:00:00"),
                "count": pb.Value(integer=3),
            }
        ),
    ]
    for table in (rows, pd.DataFrame(rows), pl.DataFrame(rows), pa.Table.from_pylist(rows)):
        assert module._events(table) == expected


def test_a_cell_that_is_no_value_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="a cell holds a dict"):
        module._events([{"user": {"a": 1}}])
    with pytest.raises(InvalidRequest, match="a list holds neither texts nor floats alone"):
        module._events([{"tags": ["a", 1.0]}])
    with pytest.raises(InvalidRequest, match="does not fit into 64 bits"):
        module._events([{"user": 2**64}])
    cells = {"a": np.datetime64("2017-01-02T03:04:05.5"), "b": np.int8(3), "c": True, "d": np.float32(0.5), "e": pd.NaT}
    values = module._events([cells])[0].columns
    assert values["a"].text.startswith("2017-01-02T03:04:05.5")
    assert (values["b"].integer, values["c"].flag, values["d"].number) == (3, True, 0.5)
    assert "e" not in values


def test_the_client_needs_numpy_grpc_and_protobuf_alone() -> None:
    heavy = "{'torch', 'pyarrow', 'lance', 'pydantic', 'pandas', 'serving', 'foundation', 'tokenization'}"
    code = f"import sys, userfm.client; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
