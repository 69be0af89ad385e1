"""A model that was trained on one revision of a log reads the next: what it knows as ever, and nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from foundation.subgraph import Subgraph
from serving.rows import Entity
from serving.store import EmbeddingStore
from tests.conftest import DECLARATION, Kiosk
from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer
from training.errors import RunError
from training.evaluate import evaluate_run
from training.push import push
from training.reading import tokens_for
from training.recommend import recommend
from training.run import Run


def revised(**keys: Any) -> EventSchema:
    return EventSchema.from_dict({**copy.deepcopy(DECLARATION), "revision": 2, **keys})


@pytest.fixture(scope="module")
def later_events(kiosk: Kiosk) -> pa.Table:
    """The kiosk's log with a column more, in every line its visit's."""
    weather = pc.if_else(pc.less(pc.binary_length(kiosk.events["visit"]), 5), "rain", "sun")
    return kiosk.events.append_column("weather", weather)


@pytest.fixture(scope="module")
def later(kiosk: Kiosk, later_events: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The log under the next revision: a facet was added, one has another name, and items joined."""
    schema = revised(
        context={"store": {"kind": "category"}, "weather": {"kind": "category"}},
        outcome={
            "quantity": {"kind": "number"},
            "rack": {"kind": "category", "column": "shelf", "was": "shelf"},
        },
    )
    joined = pa.concat_tables([kiosk.items, pa.table({"article": [999], "kind": ["milk"], "brand": ["plain"]})])
    tokenizer = Tokenizer.fit(schema, later_events, joined)
    folder = tmp_path_factory.mktemp("later") / "corpus"
    return write_corpus(folder, [tokenizer.transform(later_events)], tokenizer, {})


def test_it_is_judged_on_the_next_revision_as_on_its_own(trained: Run, kiosk_corpus: Corpus, later: Corpus) -> None:
    own, other = evaluate_run(trained.folder, kiosk_corpus), evaluate_run(trained.folder, later)
    assert "weather" in later.tokens().column_names
    assert own.figures() == other.figures()


def test_it_recommends_and_pushes_from_the_next_revision_as_from_its_own(
    trained: Run, kiosk_corpus: Corpus, later: Corpus, tmp_path: Path
) -> None:
    tokenizer = Subgraph.from_pretrained(trained.model).tokenizer
    assert tokens_for(tokenizer, later).equals(kiosk_corpus.tokens())
    assert recommend(trained, tokens_for(tokenizer, later), 3).equals(recommend(trained, kiosk_corpus.tokens(), 3))
    stored = []
    for name, corpus in (("own", kiosk_corpus), ("later", later)):
        store = EmbeddingStore(tmp_path / name)
        space = push(trained, corpus, store)
        store.publish(space)
        stored.append(store.pushed(space, Entity.USER).sort_by("id"))
    assert stored[0].equals(stored[1])


def test_what_was_retired_is_absent_for_it(trained: Run, kiosk: Kiosk, kiosk_corpus: Corpus, tmp_path: Path) -> None:
    schema = revised(outcome={"quantity": {"kind": "number"}}, retired=["shelf"])
    tokenizer = Tokenizer.fit(schema, kiosk.events.drop_columns(["shelf"]), kiosk.items)
    without = write_corpus(tmp_path / "corpus", [tokenizer.transform(kiosk.events)], tokenizer, {})
    own = Subgraph.from_pretrained(trained.model).tokenizer
    read = tokens_for(own, without)
    assert not np.any(read["shelf"].combine_chunks().flatten().to_numpy())
    assert read.drop_columns(["shelf"]).equals(kiosk_corpus.tokens().drop_columns(["shelf"]))
    found = evaluate_run(trained.folder, without).figures()
    assert found["popularity"] == evaluate_run(trained.folder, kiosk_corpus).figures()["popularity"]
    assert 0 < found["model"]["all"]["ndcg@10"] <= 1


def test_a_corpus_read_under_a_later_revision_is_the_same_to_it(trained: Run, kiosk_corpus: Corpus) -> None:
    outcome = {"quantity": {"kind": "number"}, "rack": {"kind": "category", "column": "shelf", "was": "shelf"}}
    assert evaluate_run(trained.folder, kiosk_corpus.under(revised(outcome=outcome))).figures() == (
        evaluate_run(trained.folder, kiosk_corpus).figures()
    )


def test_a_facet_that_means_another_thing_is_refused_by_name(trained: Run, kiosk: Kiosk, tmp_path: Path) -> None:
    schema = revised(outcome={"quantity": {"kind": "category"}, "shelf": {"kind": "category"}}, targets={"product": 1})
    tokenizer = Tokenizer.fit(schema, kiosk.events, kiosk.items)
    other = write_corpus(tmp_path / "corpus", [tokenizer.transform(kiosk.events)], tokenizer, {})
    with pytest.raises(RunError, match=r"outcome\.quantity: a number of the outcome can't become a category"):
        evaluate_run(trained.folder, other)
