from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation.heads import Heads
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.tokenizer.tokenizer import Tokenizer
from training.errors import RunError
from training.heads import fit_heads, synthetic_queries
from training.run import Run, start

Figures = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def fitted(
    trained: Run, kiosk_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Figures, set[str]]:
    """A copy of the run with its heads fitted, the figures and the stages that were told of."""
    folder = shutil.copytree(trained.folder, tmp_path_factory.mktemp("fitted") / "run")
    run = replace(trained, folder=folder)
    finished: set[str] = set()

    def progress(stage: str, done: int, total: int) -> None:
        if done == total:
            finished.add(stage)

    return run, fit_heads(run, kiosk_corpus, progress), finished


def test_each_head_is_judged_beside_popularity(fitted: tuple[Run, Figures, set[str]]) -> None:
    _, figures, finished = fitted
    assert set(figures) == finished == {"home", "search", "item_to_item"}
    for found in figures.values():
        assert set(found) == {"ndcg@10", "baseline_ndcg@10", "requests"}
        assert 0 <= found["baseline_ndcg@10"] <= 1
        assert 0 <= found["ndcg@10"] <= 1
        assert found["requests"] > 10


def test_home_and_search_beat_popularity_even_here(fitted: tuple[Run, Figures, set[str]]) -> None:
    """Customers like one kind of article, and texts name the kind."""
    figures = fitted[1]
    for name in ("home", "search"):
        assert figures[name]["ndcg@10"] > figures[name]["baseline_ndcg@10"], name


def test_fitted_heads_are_saved_beside_the_model_and_loaded(
    fitted: tuple[Run, Figures, set[str]], trained: Run
) -> None:
    run = fitted[0]
    subgraph = Subgraph.from_pretrained(run.model)
    heads, untrained = Heads.load(run.model, subgraph), Heads.untrained(subgraph)
    assert {path.stem for path in (run.model / "heads").iterdir()} == {"home", "search", "item_to_item"}
    for name, module in heads.modules().items():
        before = untrained.modules()[name].state_dict()
        assert any(not torch.equal(weight, before[key]) for key, weight in module.state_dict().items()), name
        assert not module.training
    with torch.inference_mode():
        assert torch.isfinite(heads.search(["cheese"])[:, 2:]).all()


def test_the_same_run_has_the_same_heads_whatever_else_was_drawn(
    fitted: tuple[Run, Figures, set[str]], kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    run = replace(fitted[0], folder=Path(shutil.copytree(fitted[0].folder, tmp_path / "run")))
    torch.rand(7)
    assert fit_heads(run, kiosk_corpus) == fitted[1]


def test_fitting_heads_leaves_the_model_and_its_space_alone(
    fitted: tuple[Run, Figures, set[str]], trained: Run
) -> None:
    one, other = (Subgraph.from_pretrained(run.model) for run in (fitted[0], trained))
    assert one.space == other.space
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_items_without_text_have_no_search(kiosk, trained: Run, kiosk_corpus: Corpus, tmp_path: Path) -> None:
    from tokenization.schema.event_schema import EventSchema
    from training import pretrain

    schema = {key: value for key, value in kiosk.schema.to_dict().items() if key != "items"}
    tokenizer = Tokenizer.fit(EventSchema.from_dict(schema), kiosk.events)
    corpus = write_corpus(tmp_path / "corpus", [tokenizer.transform(kiosk.events)], tokenizer, kiosk_corpus.summary)
    recipe = trained.recipe
    model = replace(
        recipe.model, item=replace(recipe.model.item, codes=len(tokenizer.items), categories=(), text_width=0)
    )
    run = start(corpus, tmp_path / "run", replace(recipe, model=model, epochs=1))
    pretrain.pretrain_bare(run)
    assert set(fit_heads(run, corpus)) == {"home", "item_to_item"}
    assert {path.stem for path in (run.model / "heads").iterdir()} == {"home", "item_to_item"}


def test_a_corpus_of_another_tokenizer_is_refused(trained: Run, kiosk, tmp_path: Path) -> None:
    tokenizer = Tokenizer.fit(kiosk.schema, kiosk.events.slice(0, 500), kiosk.items)
    other = write_corpus(tmp_path / "other", [tokenizer.transform(kiosk.events)], tokenizer, {})
    with pytest.raises(RunError, match=r"has tokens of another tokenizer than .*: fit its heads on its own corpus"):
        fit_heads(trained, other)


def test_queries_are_words_of_the_items_text_in_their_order() -> None:
    text = pa.array(["", "", "Dairy Whole-Milk 2% dairy brand X", "  ", "Bread"])
    draw = np.random.default_rng(0)
    for _ in range(20):
        milk, nothing, bread = synthetic_queries(text, np.array([2, 3, 4]), draw)
        words = milk.split()
        assert 1 <= len(words) <= 3
        assert len(set(words)) == len(words)
        order = ["dairy", "whole", "milk", "brand"]  # single characters are no words
        assert [word for word in order if word in words] == words
        assert (nothing, bread) == ("", "bread")
