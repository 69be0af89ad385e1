from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tokenization.corpus.corpus import Corpus
from tokenization.errors import UserfmError
from training.errors import TrainingError
from training.parallel import Compiler, Parallelism, Precision, Scoring, Tables, Weights
from training.recipes import Recipe, with_overrides
from training.run import start

CUT = {"weights": "sharded", "tables": "rows", "scoring": "owners"}


def test_a_plan_is_written_in_words_and_read_as_it_was_written(recipe: Recipe) -> None:
    words = {**CUT, "accumulate": "4", "recompute": "on", "compile": "inductor", "precision": "bfloat16"}
    changed = with_overrides(recipe, words)
    assert changed.parallelism == Parallelism(
        Weights.SHARDED,
        Tables.ROWS,
        Scoring.OWNERS,
        4,
        recompute=changed.parallelism.recompute,
        compile=Compiler.INDUCTOR,
        precision=Precision.BFLOAT16,
    )
    assert str(changed.parallelism.recompute) == "on"
    again = Recipe.from_json(changed.to_json())
    assert again == changed
    assert [type(value) for value in vars(again.parallelism).values()] == [
        type(value) for value in vars(changed.parallelism).values()
    ]


def test_a_recipe_from_before_there_were_plans_is_plain(recipe: Recipe) -> None:
    told = json.loads(recipe.to_json())
    del told["parallelism"]
    assert Recipe.from_json(json.dumps(told)).parallelism == Parallelism()


def test_one_process_has_nobody_to_share_with() -> None:
    plan = Parallelism(Weights.SHARDED, Tables.ROWS, Scoring.OWNERS, 4)
    assert plan.alone() == Parallelism(accumulate=4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"weights": "sharded", "method": "muon"}, "Muon turns whole matrices.* give `method=adamw`"),
        ({"weights": "sharded", "method": "sophia"}, "Sophia looks at .* give `method=adamw`"),
        ({"accumulate": "2", "method": "sophia"}, "leave out `weights=sharded`, `tables=rows` and `accumulate`"),
        ({"accumulate": "2", "candidates.layers": "1"}, "leave out `accumulate` or `candidates.layers`"),
        ({"tables": "rows", "item_gate": "age"}, "leave out `tables=rows` or `item_gate=age`"),
        ({"tables": "rows", "scoring": "owners", "in_batch": "on"}, "`in_batch=on` asks .* give `scoring=local`"),
        ({"tables": "rows", "scoring": "owners", "candidates.layers": "1"}, "`candidates.layers` asks"),
        ({"tables": "rows", "scoring": "owners", "id_dropout.share": "0.1"}, "`id_dropout` asks"),
        ({"layers": "2", "tables": "rows", "scoring": "owners", "distill": "0.1"}, "`distill` asks"),
        ({"scoring": "owners"}, "give `tables=rows` too"),
        ({"accumulate": "0"}, "must be at least 1 lesson, got 0"),
        ({"weights": "halved"}, "takes one of replicated, ddp, sharded, got 'halved'"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(recipe: Recipe, words: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserfmError, match=sentence):
        with_overrides(recipe, words)


def test_nothing_is_written_of_a_run_that_cant_be_spread(kiosk_corpus: Corpus, recipe: Recipe, tmp_path) -> None:
    muon = with_overrides(recipe, {"method": "muon"})
    with pytest.raises(TrainingError, match="Muon turns whole matrices"):
        start(kiosk_corpus, tmp_path / "run", replace(muon, parallelism=Parallelism(weights=Weights.SHARDED)))
    assert not (tmp_path / "run").exists()
