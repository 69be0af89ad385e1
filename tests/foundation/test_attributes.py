"""What is known of users beside their events, from the token table to every answer of the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation.config import ModelConfig
from foundation.embedding import item_content
from foundation.errors import ModelError
from foundation.explanation import occlusion
from foundation.folder import fingerprint
from foundation.jagged import EventBatch, Requests, requests_now
from foundation.model import FoundationModel
from foundation.pretrained import load, save
from foundation.subgraph import Subgraph
from tests.foundation.answers import answers
from tokenization.corpus.corpus import Corpus
from tokenization.tokenizer.tokenizer import Tokenizer

KNOWN = ("bare", "told", "user vector", "scores")
WITHOUT = ("own request", "own item", "own features", "own features in the context", "shares of category 0")


@pytest.fixture(scope="module")
def subgraph(config: ModelConfig, club_corpus: Corpus, shake, tmp_path_factory: pytest.TempPathFactory) -> Subgraph:
    tokenizer = club_corpus.tokenizer
    torch.manual_seed(0)
    model = FoundationModel(
        replace(config, attributes=tuple(tokenizer.users.sizes.items())),
        item_content(tokenizer.items, torch.from_numpy(tokenizer.items.count).float()),
    )
    folder = tmp_path_factory.mktemp("club") / "model"
    save(shake(model), tokenizer, folder, "club", 1, 5.0, "# Card\n")
    return Subgraph.from_pretrained(folder)


@pytest.fixture(scope="module")
def histories(subgraph: Subgraph, club_corpus: Corpus) -> EventBatch:
    return subgraph.pack(club_corpus.tokens())[1]


def now(batch: EventBatch, config: ModelConfig) -> Requests:
    return requests_now(batch, None, torch.zeros(batch.users, len(config.context), dtype=torch.int64))


def test_a_corpus_tells_what_is_known_of_each_user(histories: EventBatch, club_corpus: Corpus) -> None:
    likes = club_corpus.tokenizer.users.vocabularies["likes"].encode(pa.array(["apple", "bread"]))
    assert histories.attribute_BA.shape == (30, 2)
    assert histories.attribute_BA[[0, 1, 5], 0].tolist() == [likes[0], likes[1], likes[0]]
    assert histories.attribute_BA[-2:].tolist() == [[0, 0], [0, 0]]  # who are no members


def test_a_table_without_a_column_of_an_attribute_is_of_another_tokenizer(
    subgraph: Subgraph, club_corpus: Corpus
) -> None:
    with pytest.raises(ModelError, match=r"no column 'user\.age': tokenize the events with the tokenizer"):
        subgraph.pack(club_corpus.tokens().drop_columns(["user.age"]))


def test_rows_that_are_picked_keep_what_is_known_of_their_users(histories: EventBatch) -> None:
    rows = torch.arange(int(histories.offset_B1[7]), int(histories.offset_B1[8]))
    one = histories.picked(rows, torch.tensor([0, len(rows)]), torch.tensor([7]))
    assert torch.equal(one.attribute_BA, histories.attribute_BA[[7]])
    assert torch.equal(one.start_B, histories.start_B[[7]])


def test_attributes_move_every_answer_of_their_own_user_and_no_part_that_reads_events(
    subgraph: Subgraph, histories: EventBatch
) -> None:
    model = subgraph.model
    changed = histories.attribute_BA.clone()
    changed[3] = torch.tensor([4, 5])
    assert not torch.equal(changed[3], histories.attribute_BA[3])
    requests = now(histories, model.config)
    one, other = (answers(model, batch, requests) for batch in (histories, replace(histories, attribute_BA=changed)))
    for name in KNOWN:
        moved_B = torch.nan_to_num(one[name] - other[name]).abs().amax(1) > 1e-4  # scores of no candidate: −inf
        assert moved_B.nonzero().flatten().tolist() == [3], name
    for name in WITHOUT:
        assert torch.equal(one[name], other[name]), name


def test_a_new_model_does_not_read_them_yet(subgraph: Subgraph, histories: EventBatch, club_corpus: Corpus) -> None:
    config = subgraph.model.config
    fresh = FoundationModel(config, item_content(club_corpus.tokenizer.items)).eval()
    nothing = replace(histories, attribute_BA=torch.zeros_like(histories.attribute_BA))
    requests = now(histories, config)
    one, other = answers(fresh, histories, requests), answers(fresh, nothing, requests)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_trunk_knows_nothing_of_them_so_its_states_can_be_cached(subgraph: Subgraph, histories: EventBatch) -> None:
    seen: list[torch.Tensor] = []
    handle = subgraph.model.trunk.register_forward_hook(lambda module, given, out: seen.append(out))
    for attribute_BA in (histories.attribute_BA, torch.zeros_like(histories.attribute_BA)):
        subgraph(replace(histories, attribute_BA=attribute_BA))
    handle.remove()
    assert torch.equal(*seen)


def test_a_value_that_came_after_training_reads_as_unknown(subgraph: Subgraph, histories: EventBatch) -> None:
    found = [
        subgraph(replace(histories, attribute_BA=torch.full_like(histories.attribute_BA, code))) for code in (999, 1)
    ]
    assert torch.equal(*found)


def test_a_user_without_an_event_has_the_vector_of_the_attributes_and_one_without_both_that_of_nobody(
    subgraph: Subgraph, club
) -> None:
    extra = {"customer": ["new-apple", "new-milk", "x", "y"], "likes": ["apple", "milk", None, None], "age": [None] * 4}
    users = pa.table(extra, schema=club.users.schema)
    ids, batch = subgraph.tokenize(club.events.slice(0, 0), users)
    assert ids.to_pylist() == ["new-apple", "new-milk", "x", "y"]
    assert batch.tokens == 0
    vectors, scores = subgraph(batch), subgraph.score(batch)
    assert torch.isfinite(vectors).all()
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-3)
    assert not torch.allclose(vectors[0], vectors[2], atol=1e-3)
    assert torch.equal(vectors[2], vectors[3])
    assert torch.isfinite(scores[:, 2:]).all()
    nobody = subgraph.model.attributes(subgraph.model.empty_D[None], torch.zeros(1, 2, dtype=torch.int64))
    torch.testing.assert_close(subgraph.states(batch).bare_RD[2:], nobody.expand(2, -1))


def test_users_with_and_without_events_stand_in_the_order_of_their_ids(subgraph: Subgraph, club) -> None:
    events = club.events.filter(pa.array(np.isin(club.events["customer"].to_pylist(), ["c03", "c29"])))
    ids, batch = subgraph.tokenize(events, club.users)
    assert ids.to_pylist() == sorted({"c29", *club.users["customer"].to_pylist()})
    row = ids.to_pylist().index("c03")
    alone_ids, alone = subgraph.tokenize(events, club.users.filter(pa.array(np.array(club.users["customer"]) == "c03")))
    assert alone_ids.to_pylist() == ["c03", "c29"]
    torch.testing.assert_close(subgraph(alone)[0], subgraph(batch)[row], rtol=1e-4, atol=1e-5)
    bare = subgraph(subgraph.tokenize(events)[1])
    assert not torch.allclose(bare[0], subgraph(alone)[0], atol=1e-3)
    torch.testing.assert_close(bare[1], subgraph(alone)[1], rtol=1e-4, atol=1e-5)  # of whom nothing is known


def test_live_users_get_the_vectors_of_the_corpus(subgraph: Subgraph, histories: EventBatch, club) -> None:
    known = club.users.slice(0, 28)
    _, live = subgraph.tokenize(club.events, known)
    torch.testing.assert_close(subgraph(live), subgraph(histories), rtol=1e-4, atol=1e-5)


def test_an_explanation_goes_on_knowing_the_user(subgraph: Subgraph, club_corpus: Corpus) -> None:
    tokens = club_corpus.users(pa.array(["c05"]))
    score = subgraph.score(subgraph.pack(tokens)[1])[0]
    moved = occlusion(subgraph, tokens, 7)
    batch = subgraph.pack(tokens)[1]
    place = int(moved["position"][0].as_py())
    keep = torch.arange(batch.tokens) != place
    without = batch.picked(keep, torch.tensor([0, batch.tokens - 1]), torch.arange(1))
    at = batch.start_B + batch.time_T[-1]
    expected = float(score[7] - subgraph.score(without, at)[0, 7])
    assert moved["weight"][0].as_py() == pytest.approx(expected, abs=1e-4)


def test_a_fingerprint_covers_the_values_that_were_trained_and_none_that_came_later(
    subgraph: Subgraph, tmp_path: Path
) -> None:
    tokenizer, config = subgraph.tokenizer, subgraph.model.config
    folder = tmp_path / "model"
    space = save(subgraph.model, tokenizer, folder, "club", 1, 5.0, "# Card\n")
    likes = tokenizer.users.vocabularies["likes"]

    def found(**changes: object) -> str:
        return fingerprint(folder, replace(tokenizer, users=replace(tokenizer.users, **changes)), config)

    assert found(vocabularies={"likes": likes.grow(pa.array(["cheesecake"]))}) == space.fingerprint
    backwards = replace(likes, ids=likes.ids.take(pa.array(np.arange(len(likes.ids))[::-1])))
    assert found(vocabularies={"likes": backwards}) != space.fingerprint
    age = tokenizer.users.numbers["age"]
    assert found(numbers={"age": replace(age, edges=(*age.edges[:-1], 99.0))}) != space.fingerprint
    grown = replace(
        tokenizer,
        users=replace(tokenizer.users, vocabularies={"likes": likes.grow(pa.array(["cheesecake"]))}),
    )
    grown.save(folder / "tokenizer")
    assert Tokenizer.load(folder / "tokenizer").users.sizes["likes"] == tokenizer.users.sizes["likes"] + 1
    assert load(folder).space == space
