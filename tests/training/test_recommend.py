from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from foundation.errors import ModelError
from foundation.heads import Heads
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer
from training.errors import TrainingError
from training.pretrain import pretrain_bare
from training.recipes import Recipe, with_overrides
from training.recommend import recommend, recommend_generated
from training.run import Run, start
from training.training_set import facet_configs, item_config


@pytest.fixture(scope="module")
def decoding(kiosk, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Corpus]:
    """A run whose model decodes semantic IDs, trained for one epoch."""
    declared = kiosk.schema.to_dict()
    declared["items"] |= {"semantic_ids": {"levels": 2, "codes": 4}}
    tokenizer = Tokenizer.fit(EventSchema.from_dict(declared), kiosk.events, kiosk.items)
    folder = tmp_path_factory.mktemp("decoding")
    summary = {"events": 1, "tokens": 1, "users": 1, "items": 1}
    corpus = write_corpus(folder / "corpus", [tokenizer.transform(kiosk.events)], tokenizer, summary)
    model = replace(recipe.model, facets=facet_configs(tokenizer), item=item_config(tokenizer))
    settings = {"decoder.layers": "1", "codes": "0.3"}
    run = start(corpus, folder / "run", with_overrides(replace(recipe, model=model, epochs=1), settings))
    told = []
    pretrain_bare(run, told.append)
    assert told[-1].losses["codes"] > 0
    return run, corpus


def test_generated_items_are_those_of_the_highest_probability(decoding: tuple[Run, Corpus]) -> None:
    run, corpus = decoding
    tokens = corpus.tokens()
    found = recommend_generated(run, tokens, k=7)
    assert found.schema == recommend(run, tokens.slice(0, 1), k=1).schema
    assert found.num_rows == 30 * 7
    score_UK = found["score"].to_numpy().reshape(30, 7)
    assert (np.diff(score_UK, axis=1) <= 0).all()
    assert (score_UK < 0).all()
    whole = recommend_generated(run, tokens, k=45)
    np.testing.assert_allclose(np.exp(whole["score"].to_numpy().reshape(30, 45)).sum(1), 1.0, rtol=1e-4)
    assert sorted(whole["item_id"].to_pylist()[:45]) == list(range(100, 145))


def test_a_narrow_beam_still_gives_as_many_as_were_asked_for(decoding: tuple[Run, Corpus]) -> None:
    run, corpus = decoding
    assert recommend_generated(run, corpus.tokens().slice(0, 3), k=9, beam=1).num_rows == 27


def test_a_run_without_a_decoder_generates_nothing(trained: Run, kiosk_corpus: Corpus) -> None:
    with pytest.raises(ModelError, match="declare `semantic_ids` of items"):
        recommend_generated(trained, kiosk_corpus.tokens())


def test_the_table_is_long_and_best_first(trained: Run, kiosk_corpus: Corpus) -> None:
    tokens = kiosk_corpus.tokens()
    found = recommend(trained, tokens, k=7)
    assert found.schema.names == ["user_id", "item_id", "score", "rank"]
    assert [field.type for field in found.schema] == [pa.string(), pa.int64(), pa.float32(), pa.int32()]
    assert found.num_rows == 30 * 7
    assert found["user_id"].to_pylist() == [user for user in tokens["user_id"].to_pylist() for _ in range(7)]
    assert found["rank"].to_pylist() == [*range(1, 8)] * 30
    score_UK = found["score"].to_numpy().reshape(30, 7)
    assert (np.diff(score_UK, axis=1) <= 0).all()
    assert np.isfinite(score_UK).all()
    item_UK = found["item_id"].to_numpy().reshape(30, 7)
    assert all(len(set(row)) == 7 for row in item_UK.tolist())
    assert set(item_UK.ravel().tolist()) <= set(range(100, 145))


def test_scores_are_those_of_the_home_head(trained: Run, kiosk_corpus: Corpus) -> None:
    subgraph = Subgraph.from_pretrained(trained.model)
    tokens = kiosk_corpus.users(pa.array(["c04", "c17"]))
    with torch.inference_mode():
        expected = Heads.load(trained.model, subgraph).home(subgraph.pack(tokens)[1])
    found = recommend(trained, tokens, k=3)
    codes = torch.from_numpy(subgraph.tokenizer.items.ids.encode(found["item_id"].combine_chunks()).astype(np.int64))
    top = expected.topk(3)
    np.testing.assert_allclose(found["score"].to_numpy(), top.values.flatten().numpy(), rtol=1e-5)
    assert torch.equal(codes.view(2, 3), top.indices)


def test_users_unseen_in_training_are_served(trained: Run, kiosk, kiosk_corpus: Corpus) -> None:
    some = kiosk.events.filter(pc.equal(kiosk.events["customer"], "c02"))
    renamed = some.set_column(0, "customer", pa.array(["stranger"] * some.num_rows))
    found = recommend(trained, kiosk_corpus.tokenizer.transform(renamed), k=5)
    assert set(found["user_id"].to_pylist()) == {"stranger"}
    known = recommend(trained, kiosk_corpus.users(pa.array(["c02"])), k=5)
    assert found["item_id"].equals(known["item_id"])


def test_the_whole_catalogue_may_be_asked_for_and_no_more(trained: Run, kiosk_corpus: Corpus) -> None:
    one = kiosk_corpus.tokens().slice(0, 1)
    assert sorted(recommend(trained, one, k=45)["item_id"].to_pylist()) == list(range(100, 145))
    for k in (0, 46, -1):
        with pytest.raises(TrainingError, match=f"k must lie between 1 and the 45 items, got {k}"):
            recommend(trained, one, k=k)


def test_nobody_to_recommend_to_is_a_sentence(trained: Run, kiosk_corpus: Corpus) -> None:
    with pytest.raises(TrainingError, match="nobody to recommend to"):
        recommend(trained, kiosk_corpus.tokens().slice(0, 0))
