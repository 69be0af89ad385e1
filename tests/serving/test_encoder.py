"""Encode and Score, over a real socket, against the model they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.embedding import item_content
from foundation.heads import Heads
from foundation.model import FoundationModel
from foundation.pretrained import save
from foundation.subgraph import Subgraph
from serving.rows import Entity, VectorBatch
from serving.store import EmbeddingStore
from serving.supervisor import ServerProcess
from tokenization.codes.users import UserCodecs
from tokenization.schema.rules import UsersRule
from userfm.client import EmbeddingClient, InvalidRequest, UnknownId

LATER = 1.52e9
COLUMNS = ("user", "time", "action", "product", "shop", "amount")


@pytest.fixture(scope="module")
def client(encoding_address: str) -> Iterator[EmbeddingClient]:
    with EmbeddingClient(encoding_address) as client:
        yield client


@pytest.fixture(scope="module")
def subgraph(model: Path) -> Subgraph:
    return Subgraph.from_pretrained(model)


@pytest.fixture(scope="module")
def heads(model: Path, subgraph: Subgraph) -> Heads:
    return Heads.load(model, subgraph)


def of_user(log: pa.Table, user: int) -> pa.Table:
    return log.filter(pc.equal(log["user"], user))


def test_the_server_says_that_it_encodes(client: EmbeddingClient, subgraph: Subgraph) -> None:
    served = client.space()
    assert served.encodes
    assert served.space.fingerprint == subgraph.space.fingerprint


def test_encoding_a_history_gives_the_vector_that_was_pushed(client: EmbeddingClient, log: pa.Table) -> None:
    for user in (3, 17):
        encoded = client.encode(of_user(log, user))
        stored = client.lookup_users([user])
        assert encoded.users.tolist() == [user]
        np.testing.assert_allclose(encoded.vectors, stored.vectors, atol=1e-5)
        assert encoded.space == stored.space


def test_the_order_of_the_events_has_no_influence(client: EmbeddingClient, log: pa.Table) -> None:
    events = of_user(log, 5)
    shuffled = events.take(pa.array(np.random.default_rng(0).permutation(events.num_rows)))
    assert np.array_equal(client.encode(events).vectors, client.encode(shuffled).vectors)


def test_a_fresh_event_moves_the_vector(client: EmbeddingClient, log: pa.Table) -> None:
    events = of_user(log, 3).to_pylist()
    before = client.encode(events).vectors
    after = client.encode([*events, {"user": 3, "time": LATER, "action": "buy", "product": 107}]).vectors
    assert np.abs(after - before).max() > 1e-3


def test_several_users_in_one_request_are_as_if_each_were_alone(client: EmbeddingClient, log: pa.Table) -> None:
    together = client.encode(log.filter(pc.is_in(log["user"], pa.array([2, 9, 11]))))
    assert together.users.tolist() == [2, 9, 11]
    for user, vector in zip(together.users, together.vectors, strict=True):
        np.testing.assert_allclose(client.encode(of_user(log, user)).vectors[0], vector, atol=1e-5)


def test_a_user_never_seen_is_encoded(client: EmbeddingClient) -> None:
    encoded = client.encode([{"user": "somebody new", "time": "2019-05-06T07:08:09Z", "product": 101}])
    assert encoded.users.tolist() == ["somebody new"]
    assert np.isfinite(encoded.vectors).all()


def test_home_is_the_head_with_the_context_of_the_request(client, heads, subgraph, log) -> None:
    events = of_user(log, 3)
    scored = client.score_home(events, k=7, at=LATER, context={"shop": "north"})
    users, batch = subgraph.tokenize(events)
    last = float(np.max(events["time"].to_numpy()))
    context = subgraph.tokenizer.encode_context({"shop": ["north"]}, np.array([LATER]), np.array([last]))
    with torch.inference_mode():
        expected = heads.home(batch, torch.tensor([LATER], dtype=torch.float64), torch.from_numpy(context).long())[0]
    assert scored.users.tolist() == users.to_pylist()
    ranking = scored.rankings[0]
    np.testing.assert_allclose(ranking.scores, expected.topk(7).values.numpy(), atol=1e-5)
    codes = subgraph.tokenizer.items.ids.encode(pa.array(ranking.ids))
    np.testing.assert_allclose(ranking.scores, expected[torch.from_numpy(codes).long()].numpy(), atol=1e-5)


def test_search_and_item_to_item_rank_every_candidate_once(client: EmbeddingClient) -> None:
    for scored in (client.score_search(["bread", "some milk"], k=100), client.score_item_to_item([101, 102], k=100)):
        assert len(scored.rankings) == 2
        for ranking in scored.rankings:
            assert set(ranking.ids.tolist()) <= set(range(100, 140))
            assert len(ranking.ids) == len(set(ranking.ids.tolist())) >= 39
            assert (np.diff(ranking.scores) <= 0).all()


@pytest.mark.parametrize(
    ("events", "at", "sentence"),
    [
        ([], None, "has 0 events; 1 to 20000"),
        ([{"user": 1, "time": 1.5e9, "prodct": 101}], None, "called 'prodct'; did you mean 'product'?"),
        ([{"user": 1, "product": 101}], None, "time is missing"),
        ([{"time": 1.5e9, "product": 101}], None, "user is missing"),
        ([{"user": 1, "time": "soon", "product": 101}], None, "time is no time"),
        ([{"user": 1, "time": 1.5e9, "product": 101, "amount": float("inf")}], None, "amount is no finite number"),
        ([{"user": 1, "time": 1.5e9}, {"user": "x", "time": 1.5e9}], None, "column 'user' holds text in some events"),
        ([{"user": 1, "time": 1.5e9, "product": 101}], 1.4e9, "a moment before the user's last event"),
        ([{"user": 1, "time": 1.5e9, "product": 101}], float("nan"), "at is nan"),
    ],
)
def test_events_that_make_no_sense_are_refused_with_a_sentence(client, events, at, sentence: str) -> None:
    for refused in (lambda: client.encode(events, at), lambda: client.score_home(events, at=at)):
        with pytest.raises(InvalidRequest, match=sentence.replace("?", r"\?")):
            refused()


CELLS = st.one_of(
    st.text(max_size=6),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.sampled_from(["2019-05-06", "2019-05-06T07:08:09+02:00", 1.5e9, 1_500_000_000, "buy", 101]),
)
EVENTS = st.lists(st.dictionaries(st.sampled_from(COLUMNS), CELLS, max_size=6), max_size=4)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, at=st.none() | st.floats(), context=st.dictionaries(st.sampled_from(COLUMNS), CELLS, max_size=2))
def test_no_events_at_all_are_an_error_of_the_server(client: EmbeddingClient, events, at, context) -> None:
    for send in (
        lambda: client.encode(events, at),
        lambda: client.score_home(events, at=at, context=context),
    ):
        with suppress(InvalidRequest):  # the one error that bad events may be; any other fails here
            send()


def test_what_a_request_says_of_itself_is_checked(client: EmbeddingClient, log: pa.Table) -> None:
    with pytest.raises(InvalidRequest, match="no context facet is called 'shp'; did you mean 'shop'"):
        client.score_home(of_user(log, 3), context={"shp": "north"})
    with pytest.raises(UnknownId, match="item 1 of the request"):
        client.score_item_to_item([101, 7])


@pytest.fixture(scope="module")
def club(
    tmp_path_factory: pytest.TempPathFactory, subgraph: Subgraph, log: pa.Table
) -> Iterator[tuple[EmbeddingClient, Subgraph]]:
    """A server whose model knows of users where they live, and how old they are."""
    users = pa.table({"user": np.arange(30), "town": ["Kars", "Bonn", None] * 10, "age": np.arange(30.0)})
    rule = UsersRule(id="user", categories=("town",), numbers=("age",))
    tokenizer = replace(
        subgraph.tokenizer,
        schema=subgraph.tokenizer.schema.model_copy(update={"users": rule}),
        users=UserCodecs.fit(rule, users, pa.array(np.arange(30))),
    )
    torch.manual_seed(0)
    config = replace(subgraph.model.config, attributes=tuple(tokenizer.users.sizes.items()))
    model = FoundationModel(config, item_content(tokenizer.items))
    with torch.no_grad():
        model.attributes.out.weight.normal_()
    root = tmp_path_factory.mktemp("club")
    save(model, tokenizer, root / "model", "club", 1, 1.51e9, "# A test\n")
    knowing = Subgraph.from_pretrained(root / "model")
    ids, batch = knowing.tokenize(log, users)
    with torch.inference_mode():
        vectors, items = (found.numpy() for found in (knowing(batch), knowing.item_vectors()[2:]))
    store, space = EmbeddingStore(root / "store"), knowing.space
    store.push(space, Entity.USER, [VectorBatch(ids, vectors, np.zeros(len(ids)), np.ones(len(ids), np.int64))])
    known = tokenizer.items.ids
    store.push(space, Entity.ITEM, [VectorBatch(known.ids, items, np.zeros(len(items)), known.counts)])
    store.push_model(space, root / "model")
    store.publish(space)
    with ServerProcess(root / "store") as server, EmbeddingClient(server.address) as client:
        yield client, knowing


def test_what_is_known_of_users_travels_with_their_events(club, log: pa.Table) -> None:
    client, subgraph = club
    events, told = of_user(log, 3), [{"user": 3, "town": "Bonn", "age": 7}]
    encoded = client.encode(events, users=told)
    bare = client.encode(events)
    expected = subgraph(subgraph.tokenize(events, pa.Table.from_pylist(told))[1])
    np.testing.assert_allclose(encoded.vectors, expected.numpy(), atol=1e-5)
    assert np.abs(encoded.vectors - bare.vectors).max() > 1e-2
    scored = client.score_home(events, users=told, k=5)
    assert np.abs(scored.rankings[0].scores - client.score_home(events, k=5).rankings[0].scores).max() > 1e-3


def test_a_user_without_an_event_has_a_vector_and_a_ranking(club, log: pa.Table) -> None:
    client, subgraph = club
    told = [{"user": 901, "town": "Kars"}, {"user": 902, "town": "Bonn", "age": 20.5}, {"user": 903}, {"user": 904}]
    for events in ((), of_user(log, 3)):
        encoded = client.encode(events, users=told)
        assert encoded.users.tolist() == [3, 901, 902, 903, 904][len(encoded.users) == 4 :]
        kars, bonn, nobody, nobody_else = encoded.vectors[-4:]
        assert np.isfinite(encoded.vectors).all()
        assert np.abs(kars - bonn).max() > 1e-2
        assert np.abs(kars - nobody).max() > 1e-2
        assert np.array_equal(nobody, nobody_else)
    with torch.inference_mode():
        none = torch.zeros(1, 2, dtype=torch.int64)
        model = subgraph.model
        alone = model.pooling.state(model.attributes(model.empty_D[None], none))[0]
    np.testing.assert_allclose(nobody[:-1], alone.numpy(), atol=1e-5)
    scored = client.score_home(users=told, k=4, at=LATER, context={"shop": "north"})
    assert scored.users.tolist() == [901, 902, 903, 904]
    assert scored.rankings[2].ids.tolist() == scored.rankings[3].ids.tolist()
    assert all(len(ranking.ids) == 4 and np.isfinite(ranking.scores).all() for ranking in scored.rankings)


def test_a_model_that_knows_nothing_of_users_takes_their_ids(client: EmbeddingClient, log: pa.Table) -> None:
    encoded = client.encode(of_user(log, 3), users=[{"user": 3}, {"user": 77}])
    assert encoded.users.tolist() == [3, 77]
    np.testing.assert_allclose(encoded.vectors[:1], client.encode(of_user(log, 3)).vectors, atol=1e-5)
    with pytest.raises(InvalidRequest, match="no column of the users table is called 'town'"):
        client.encode(users=[{"user": 3, "town": "Kars"}])


@pytest.mark.parametrize(
    ("users", "sentence"),
    [
        ([{"user": 3, "twon": "Kars"}], "no column of the users table is called 'twon'; did you mean 'town'?"),
        ([{"town": "Kars"}], "row 0 of the users table has no user"),
        ([{"user": 3}, {"user": 3, "age": 4}], "the users table has a user 2 times"),
        ([{"user": 3, "age": "old"}, {"user": 4, "age": 4}], "column 'age' holds text in some users and numbers"),
        ([{"user": n} for n in range(20_001)], "has 20001 events and users; 1 to 20000"),
    ],
)
def test_users_that_make_no_sense_are_refused_with_a_sentence(club, users, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence.replace("?", r"\?")):
        club[0].encode(users=users)
