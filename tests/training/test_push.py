from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from foundation.config import ItemGate
from foundation.item_age import NEVER, UNKNOWN_AGE
from foundation.subgraph import Subgraph
from serving.rows import Entity
from serving.store import EmbeddingStore
from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.tokenizer.tokenizer import Tokenizer
from training import pretrain
from training.errors import RunError
from training.push import item_batches, push, user_batches
from training.recipes import Recipe
from training.run import Run, start

DAY = 86_400.0


@pytest.fixture(scope="module")
def subgraph(trained: Run) -> Subgraph:
    return Subgraph.from_pretrained(trained.model)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path / "store")


def served(store: EmbeddingStore, entity: Entity, ids: pa.Array) -> np.ndarray:
    snapshot = store.snapshot(store.current(), entity)
    rows = snapshot.index.rows(ids.cast(snapshot.ids.type))
    assert (rows >= 0).all()
    return snapshot.vectors_ND[rows]


def vectors(subgraph: Subgraph, tokens: pa.Table) -> tuple[pa.Array, np.ndarray]:
    users, batch = subgraph.pack(tokens)
    with torch.inference_mode():
        return users, subgraph(batch).numpy()


@pytest.fixture(scope="module")
def later(kiosk, kiosk_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The same log with news: c03 comes again, c05 takes one more of what is in a basket already, c99 is new."""
    events = kiosk.events
    again = events.filter(pc.equal(events["customer"], "c05")).slice(0, 1)  # merges into the token of that line
    visit = events.slice(0, 2).to_pydict()
    visit |= {"customer": ["c03", "c99"], "time": [130 * DAY, 131 * DAY], "visit": ["new", "newer"]}
    tokenizer = kiosk_corpus.tokenizer
    log = pa.concat_tables([events, again, pa.table(visit, schema=events.schema)])
    tokens = tokenizer.transform(log)
    assert tokens.num_rows == 31
    return write_corpus(tmp_path_factory.mktemp("later") / "corpus", [tokens], tokenizer, {})


def test_what_is_looked_up_is_what_the_subgraph_says(
    trained: Run, kiosk_corpus: Corpus, subgraph: Subgraph, store: EmbeddingStore
) -> None:
    heard: list[tuple[str, int, int]] = []
    space = push(trained, kiosk_corpus, store, lambda *told: heard.append(told))
    publication = store.publish(space)
    assert publication.space == space == subgraph.space
    users, expected = vectors(subgraph, kiosk_corpus.tokens())
    np.testing.assert_allclose(served(store, Entity.USER, users), expected, atol=1e-5)
    items = subgraph.tokenizer.items.ids.ids
    with torch.inference_mode():
        np.testing.assert_allclose(served(store, Entity.ITEM, items), subgraph.item_vectors()[2:].numpy(), atol=1e-6)
    assert heard == [("users", 30, 30), ("items", 45, 45)]
    copy = store.model(publication)
    assert copy is not None
    assert Subgraph.from_pretrained(copy).space == space


def test_every_row_says_of_when_it_is_and_how_much_it_has_seen(
    trained: Run, kiosk, kiosk_corpus: Corpus, store: EmbeddingStore
) -> None:
    space = push(trained, kiosk_corpus, store)
    publication = store.publish(space)
    events = kiosk.events.group_by("customer").aggregate([("time", "max"), ("time", "count")]).sort_by("customer")
    users = store.snapshot(publication, Entity.USER)
    order = users.index.rows(events["customer"].combine_chunks().cast(users.ids.type))
    assert users.as_of_N[order].tolist() == events["time_max"].to_pylist()
    pushed = store.pushed(space, Entity.USER).sort_by("id")
    assert pushed["id"].to_pylist() == events["customer"].to_pylist()
    assert pushed["event_seq"].to_pylist() == events["time_count"].to_pylist()
    items = store.snapshot(publication, Entity.ITEM)
    assert set(items.as_of_N.tolist()) == {space.as_of}


def test_only_whoever_has_news_is_pushed_again(
    trained: Run, kiosk_corpus: Corpus, later: Corpus, subgraph: Subgraph, store: EmbeddingStore
) -> None:
    push(trained, kiosk_corpus, store)
    heard: list[tuple[str, int, int]] = []
    push(trained, kiosk_corpus, store, lambda *told: heard.append(told))
    assert [told for told in heard if told[0] == "users"] == []
    space = push(trained, later, store, lambda *told: heard.append(told))
    assert ("users", 3, 3) in heard
    store.publish(space)
    users, expected = vectors(subgraph, later.tokens())
    np.testing.assert_allclose(served(store, Entity.USER, users), expected, atol=1e-5)
    # And an older log never takes a vector back.
    push(trained, kiosk_corpus, store)
    assert store.publish(space) == store.current()
    np.testing.assert_allclose(served(store, Entity.USER, users), expected, atol=1e-5)


def test_an_interrupted_push_goes_on_where_it_stopped(
    trained: Run, kiosk_corpus: Corpus, subgraph: Subgraph, store: EmbeddingStore
) -> None:
    half = kiosk_corpus.tokens().slice(0, 12)
    store.push(subgraph.space, Entity.USER, user_batches(subgraph, half))
    heard: list[tuple[str, int, int]] = []
    space = push(trained, kiosk_corpus, store, lambda *told: heard.append(told))
    assert heard[0] == ("users", 18, 18)
    assert store.publish(space).user.rows == 30


def test_batches_hold_every_candidate_once(subgraph: Subgraph) -> None:
    (batch,) = item_batches(subgraph)
    assert batch.ids.equals(subgraph.tokenizer.items.ids.ids)
    assert batch.vectors_ND.shape == (45, subgraph.space.width)


def test_items_of_a_gated_model_are_pushed_as_of_the_moment_that_is_asked_for(
    kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path
) -> None:
    gated = replace(recipe, model=replace(recipe.model, item_gate=ItemGate.AGE), epochs=1)
    run = start(kiosk_corpus, tmp_path / "run", gated)
    space = pretrain.pretrain_bare(run)
    subgraph = Subgraph.from_pretrained(run.model)
    (now,), (same,), (later,) = (item_batches(subgraph, at) for at in (None, space.as_of, space.as_of + 1e8))
    assert (now.as_of_N == space.as_of).all()
    np.testing.assert_allclose(same.vectors_ND, now.vectors_ND)
    assert (later.as_of_N == space.as_of + 1e8).all()
    aged = np.abs(later.vectors_ND - now.vectors_ND).max(axis=1) > 1e-6
    gate = subgraph.model.tower.gate
    assert gate is not None
    since_V = gate.since_V.numpy()[2:]
    assert aged.any()
    assert not aged[(since_V == NEVER) | (since_V == UNKNOWN_AGE)].any()


def test_a_corpus_of_another_tokenizer_is_refused(trained: Run, kiosk, store: EmbeddingStore, tmp_path: Path) -> None:
    tokenizer = Tokenizer.fit(kiosk.schema, kiosk.events.slice(0, 500), kiosk.items)
    other = write_corpus(tmp_path / "other", [tokenizer.transform(kiosk.events)], tokenizer, {})
    with pytest.raises(RunError, match=r"has tokens of another tokenizer than the model: '\w+' has other"):
        push(trained, other, store)


@pytest.fixture(scope="module")
def retrained(kiosk_corpus: Corpus, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = start(kiosk_corpus, tmp_path_factory.mktemp("retrained") / "run", replace(recipe, epochs=1, seed=4))
    pretrain.pretrain_bare(run)
    return run


def test_a_model_that_was_trained_again_takes_the_next_version(
    trained: Run, retrained: Run, kiosk_corpus: Corpus, subgraph: Subgraph, store: EmbeddingStore
) -> None:
    first, second = (push(run, kiosk_corpus, store) for run in (trained, retrained))
    assert (first.id, second.id) == ("kiosk-v1", "kiosk-v2")
    assert store.spaces() == [first, second]
    users = kiosk_corpus.user_ids
    for space, run in ((first, trained), (second, retrained)):
        made = store.publish(space)
        assert made.space == space
        expected = vectors(Subgraph.from_pretrained(run.model), kiosk_corpus.tokens())[1]
        np.testing.assert_allclose(served(store, Entity.USER, users), expected, atol=1e-5)
        model = store.model(made)
        assert model is not None
        assert Subgraph.from_pretrained(model).space == space
    assert store.rollback().space == first


def test_the_same_model_keeps_the_version_it_has(
    trained: Run, retrained: Run, kiosk_corpus: Corpus, store: EmbeddingStore
) -> None:
    for run, version in ((retrained, 1), (trained, 2), (retrained, 1), (trained, 2)):
        assert push(run, kiosk_corpus, store).version == version
    assert len(store.spaces()) == 2
