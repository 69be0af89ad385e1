"""What goes over the wire, good and bad, to a server in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.service import Limits
from userfm.v1 import embedding_pb2 as pb
from userfm.v1.embedding_pb2_grpc import EmbeddingServiceStub

METHODS = ("Lookup", "Encode", "Search", "Score", "GetSpace")
MEND = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}


@pytest.fixture(scope="module")
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> EmbeddingServiceStub:
    return EmbeddingServiceStub(channel)


def texts(*ids: str) -> pb.Ids:
    return pb.Ids(texts=pb.Ids.Texts(values=ids))


def integers(*ids: int) -> pb.Ids:
    return pb.Ids(integers=pb.Ids.Integers(values=ids))


def vectors(matrix: np.ndarray, fingerprint: str = "f" * 64, dtype: int = pb.DTYPE_FLOAT32) -> pb.SearchRequest.Vectors:
    data = pb.Matrix(data=matrix.astype("<f4").tobytes(), dtype=dtype, dims=matrix.shape)
    return pb.SearchRequest.Vectors(matrix=data, fingerprint=fingerprint)


def refusal(call, request) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(request, timeout=10)
    return error.value.code(), error.value.details()


def test_every_answer_says_its_space(stub: EmbeddingServiceStub) -> None:
    answers = [
        stub.GetSpace(pb.GetSpaceRequest()),
        stub.Lookup(pb.LookupRequest(entity=pb.ENTITY_USER, ids=texts("user-1"))),
        stub.Search(pb.SearchRequest(users=texts("user-1"), k=3)),
    ]
    for answer in answers:
        assert (answer.space.name, answer.space.version, answer.space.fingerprint) == ("shop", 1, "f" * 64)
        assert (answer.space.width, answer.space.metric) == (8, pb.METRIC_DOT)


@pytest.mark.parametrize(
    ("method", "request_", "status", "sentence"),
    [
        ("Lookup", pb.LookupRequest(ids=texts("a")), "INVALID_ARGUMENT", "says no entity"),
        ("Lookup", pb.LookupRequest(entity=7, ids=texts("a")), "INVALID_ARGUMENT", "says no entity"),
        ("Lookup", pb.LookupRequest(entity=pb.ENTITY_USER), "INVALID_ARGUMENT", "names no ids"),
        ("Lookup", pb.LookupRequest(entity=pb.ENTITY_USER, ids=texts()), "INVALID_ARGUMENT", "has 0 ids; 1 to 4096"),
        (
            "Lookup",
            pb.LookupRequest(entity=pb.ENTITY_USER, ids=integers(1)),
            "INVALID_ARGUMENT",
            "stored here are text",
        ),
        ("Search", pb.SearchRequest(k=3), "INVALID_ARGUMENT", "has no query"),
        ("Search", pb.SearchRequest(items=integers(1000)), "INVALID_ARGUMENT", r"has 0 results \(k\); 1 to 1000"),
        ("Search", pb.SearchRequest(items=integers(1000), k=1001), "INVALID_ARGUMENT", "has 1001 results"),
        ("Search", pb.SearchRequest(items=integers(1000, 5), k=3), "NOT_FOUND", "item 1 of the request"),
        ("Search", pb.SearchRequest(vectors=vectors(np.ones((1, 8)), ""), k=3), "FAILED_PRECONDITION", "none given"),
        (
            "Search",
            pb.SearchRequest(vectors=vectors(np.ones((1, 8)), "e"), k=3),
            "FAILED_PRECONDITION",
            "space e, served",
        ),
        ("Search", pb.SearchRequest(vectors=vectors(np.ones((1, 7))), k=3), "INVALID_ARGUMENT", r"takes \[n, 8\]"),
        ("Search", pb.SearchRequest(vectors=vectors(np.ones(8)), k=3), "INVALID_ARGUMENT", r"takes \[n, 8\]"),
        ("Search", pb.SearchRequest(vectors=vectors(np.ones((0, 8))), k=3), "INVALID_ARGUMENT", "has 0 query vectors"),
        ("Search", pb.SearchRequest(vectors=vectors(np.full((1, 8), np.nan)), k=3), "INVALID_ARGUMENT", "finite"),
        ("Search", pb.SearchRequest(vectors=vectors(np.full((1, 8), np.inf)), k=3), "INVALID_ARGUMENT", "finite"),
        ("Search", pb.SearchRequest(vectors=vectors(np.ones((1, 8)), dtype=2), k=3), "INVALID_ARGUMENT", "FLOAT32"),
        ("Encode", pb.EncodeRequest(events=[pb.Event()]), "FAILED_PRECONDITION", "published without a model"),
        ("Score", pb.ScoreRequest(k=3), "FAILED_PRECONDITION", "push the model and publish"),
    ],
)
def test_a_bad_request_has_the_right_status_and_a_sentence(stub, method, request_, status, sentence) -> None:
    code, details = refusal(getattr(stub, method), request_)
    assert code.name == status
    assert re.search(sentence, details)


def test_a_matrix_of_impossible_dims_is_refused(stub: EmbeddingServiceStub) -> None:
    for dims in ([2, 8], [2**63, 8], [2**61, 8], [0, 8]):
        matrix = pb.Matrix(data=bytes(32), dtype=pb.DTYPE_FLOAT32, dims=dims)
        query = pb.SearchRequest.Vectors(matrix=matrix, fingerprint="f" * 64)
        assert refusal(stub.Search, pb.SearchRequest(vectors=query, k=1))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_id_is_zeros_and_said_to_be_unknown(stub: EmbeddingServiceStub) -> None:
    answer = stub.Lookup(pb.LookupRequest(entity=pb.ENTITY_USER, ids=texts("nobody", "user-1", "'; DROP TABLE x --")))
    rows = np.frombuffer(answer.vectors.data, "<f4").reshape(3, 8)
    assert answer.found == b"\0\1\0"
    assert not rows[[0, 2]].any()
    assert rows[1].any()
    assert np.frombuffer(answer.as_of.data, "<f8").tolist() == [0.0, 1e9, 0.0]


def raw(channel: grpc.Channel, method: str):
    return channel.unary_unary(
        f"/userfm.v1.EmbeddingService/{method}", request_serializer=None, response_deserializer=None
    )


@pytest.mark.parametrize("method", METHODS)
def test_malformed_bytes_are_an_invalid_argument(channel: grpc.Channel, method: str) -> None:
    code, details = refusal(raw(channel, method), b"\x0a\xff\xff\xff\xff\x7f not protobuf")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == "the request's bytes are not the protobuf message this method takes"


def test_malformed_bytes_to_the_health_service_are_an_invalid_argument(channel: grpc.Channel) -> None:
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert refusal(check, b"\xff")[0] is grpc.StatusCode.INVALID_ARGUMENT
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
    with pytest.raises(grpc.RpcError) as error:
        list(watch(b"\xff", timeout=5))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_method_that_does_not_exist_is_unimplemented(channel: grpc.Channel) -> None:
    assert refusal(raw(channel, "Drop"), b"")[0] is grpc.StatusCode.UNIMPLEMENTED


def test_a_request_beyond_the_size_limit_is_refused(stub: EmbeddingServiceStub) -> None:
    large = pb.LookupRequest(entity=pb.ENTITY_USER, ids=texts("x" * (Limits().request_bytes + 1)))
    assert refusal(stub.Lookup, large)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_more_ids_than_the_limit_are_refused(stub: EmbeddingServiceStub) -> None:
    many = pb.LookupRequest(entity=pb.ENTITY_ITEM, ids=integers(*range(Limits().ids + 1)))
    assert refusal(stub.Lookup, many) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "the request has 4097 ids; 1 to 4096 are answered",
    )


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(METHODS), data=st.binary(max_size=64), cut=st.integers(0, 200))
def test_no_bytes_at_all_are_an_error_of_the_server(channel: grpc.Channel, method: str, data: bytes, cut: int) -> None:
    sound = pb.SearchRequest(vectors=vectors(np.ones((2, 8))), k=3).SerializeToString()
    for request in (data, sound[:cut] + data, sound[:cut] + data + sound[cut:]):
        answer = raw(channel, method).future(request, timeout=10)
        assert answer.code() in {grpc.StatusCode.OK, *MEND}, (answer.code(), answer.details())
