from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pyarrow as pa
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foundation.space import Space
from serving import server
from serving.errors import ServerError
from serving.rows import Entity, VectorBatch
from serving.store import EmbeddingStore
from serving.supervisor import ServerProcess
from userfm.client import EmbeddingClient, Unavailable
from userfm.v1 import embedding_pb2 as pb
from userfm.v1.embedding_pb2_grpc import EmbeddingServiceStub


def health_of(address: str, name: str = "") -> int:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status


def test_health_says_serving(address: str) -> None:
    for name in ("", server.SERVICE):
        assert health_of(address, name) == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as error:
        health_of(address, "another.Service")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_can_be_watched(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=5)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_a_port_in_use_is_one_sentence(published: EmbeddingStore) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"port {port} of 127\.0\.0\.1 is in use; stop what listens there"):
            ServerProcess(published.root, port=port)


@pytest.mark.parametrize(
    ("host", "port", "sentence"),
    [("127.0.0.1", 70_000, "70000 is no port"), ("not a host", 0, "can't listen on not a host")],
)
def test_an_impossible_address_is_one_sentence(published, capsys, host: str, port: int, sentence: str) -> None:
    assert server.main([str(published.root), "--host", host, "--port", str(port)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(sentence)
    assert "\n" not in said


def test_nothing_to_serve_is_one_sentence(tmp_path) -> None:
    with pytest.raises(ServerError, match="there is no embedding store at"):
        ServerProcess(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> EmbeddingStore:
    """A store whose searches take long enough to be interrupted."""
    wide = Space(name="wide", version=1, fingerprint="d" * 64, width=64, as_of=0.0)
    store = EmbeddingStore(tmp_path_factory.mktemp("large") / "store")
    rng = np.random.default_rng(0)
    for entity, n in ((Entity.USER, 10), (Entity.ITEM, 60_000)):
        vectors = rng.standard_normal((n, 64)).astype(np.float32)
        store.push(wide, entity, [VectorBatch(pa.array(np.arange(n)), vectors, np.zeros(n), np.ones(n, np.int64))])
    store.publish(wide)
    return store


def refuses(address: str) -> bool:
    try:
        with EmbeddingClient(address, timeout=30) as late:
            late.lookup_items([1])
    except Unavailable:
        return True
    return False


def test_sigterm_finishes_what_was_accepted_and_refuses_what_is_new(large: EmbeddingStore) -> None:
    query = pb.SearchRequest(items=pb.Ids(integers=pb.Ids.Integers(values=range(256))), k=1000)
    # A busy machine may need far longer than the usual ten seconds for what takes one on an idle machine.
    with ServerProcess(large.root, drain_seconds=100) as process, grpc.insecure_channel(process.address) as channel:
        stub = EmbeddingServiceStub(channel)
        stub.GetSpace(pb.GetSpaceRequest(), timeout=60)  # connects: from now on what is sent first arrives first
        answers = [stub.Search.future(query, timeout=120) for _ in range(32)]
        stub.GetSpace(pb.GetSpaceRequest(), timeout=60)
        assert not answers[-1].done()
        process.drain()
        while not refuses(process.address):
            time.sleep(0.01)
        assert not answers[-1].done()
        assert [len(answer.result().rankings) for answer in answers] == [256] * 32
        assert process.wait(timeout=60) == 0


def test_what_outlasts_the_drain_is_unavailable(large: EmbeddingStore) -> None:
    with ServerProcess(large.root, drain_seconds=0.05) as process, EmbeddingClient(process.address, 120) as client:

        def search(_: int) -> int:
            try:
                return len(client.search(1000, items=list(range(256))).rankings)
            except Unavailable:
                return 0

        client.space()
        with ThreadPoolExecutor(16) as threads:
            answers = [threads.submit(search, number) for number in range(16)]
            time.sleep(0.1)
            process.drain()
            found = [answer.result() for answer in answers]
        assert set(found) <= {0, 256}
        assert 0 in found
        assert process.wait(timeout=60) == 0
        assert [line.split(" INFO ")[1].split()[0] for line in process.log().splitlines()] == ["serving", "draining"]


def test_a_drain_that_cuts_off_a_watch_leaves_no_traceback(published: EmbeddingStore) -> None:
    with ServerProcess(published.root, drain_seconds=1) as process, grpc.insecure_channel(process.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        process.drain()
        assert process.wait(timeout=60) == 0
        assert [line.split(" INFO ")[1].split()[0] for line in process.log().splitlines()] == ["serving", "draining"]


def test_a_server_that_stops_frees_its_port(store, space, fill) -> None:
    fill(store)
    with ServerProcess(store.root) as first:
        port = int(first.address.rsplit(":")[-1])
    with ServerProcess(store.root, port=port) as second, EmbeddingClient(second.address) as client:
        assert client.space().epoch == 1


def test_a_server_starts_in_a_folder_that_owns_another_serving(published, tmp_path, monkeypatch) -> None:
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "__init__.py").write_text("raise ImportError('not ours')")
    monkeypatch.chdir(tmp_path)
    with ServerProcess(published.root) as process:
        assert health_of(process.address) == health_pb2.HealthCheckResponse.SERVING


def test_no_user_id_is_logged(store, fill) -> None:
    fill(store)
    with ServerProcess(store.root) as process, EmbeddingClient(process.address) as client:
        client.lookup_users(["user-1", "user-secret"])
        with pytest.raises(Exception, match="has no stored vector"):
            client.search(users=["user-secret"])
        assert "user-" not in process.log()
        assert "serving shop-v1, epoch 1" in process.log()
