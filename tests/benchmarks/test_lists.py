"""Lists are judged as what made them: the same figures by the one evaluator, whichever form they came in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import lists as lists_of
from benchmarks.lists import DEPTH, Lists
from tokenization.corpus.corpus import Corpus
from training.evaluate import standard_baselines
from training.holdout import Columns, Holdout, Part, Scorer, hold_out
from training.ranking import Slice, evaluate


@pytest.fixture(scope="module")
def asked(kiosk_corpus: Corpus) -> tuple[Holdout, Scorer, int]:
    tokenizer = kiosk_corpus.tokenizer
    columns, tokens = Columns.of(tokenizer), kiosk_corpus.tokens()
    found = standard_baselines(tokens, columns, kiosk_corpus.split, Part.VALIDATION, len(tokenizer.items), clock=True)
    return (
        hold_out(tokens, columns, kiosk_corpus.split, Part.VALIDATION),
        found["personal_decayed"],
        len(tokenizer.items),
    )


@pytest.mark.parametrize(("filtered", "slice_"), [(False, Slice.ALL), (True, Slice.NEW)])
def test_a_list_has_the_figures_of_the_scorer_that_made_it(
    asked: tuple[Holdout, Scorer, int], filtered: bool, slice_: Slice, tmp_path: Path
) -> None:
    holdout, scorer, items = asked
    lists_of.of_scorer(scorer, holdout, items, filtered).write(tmp_path / "lists.parquet")
    listed = lists_of.scorer_of(Lists.read(tmp_path / "lists.parquet"), items)
    found = evaluate(holdout, {"scorer": scorer, "lists": listed}, items).judged
    for metric, values in found["scorer"].values[slice_].items():
        if metric != "debiased_recall@10":
            np.testing.assert_array_equal(found["lists"].values[slice_][metric], values, metric)


def test_a_long_table_in_any_order_is_the_same_list(kiosk_corpus: Corpus, asked: tuple[Holdout, Scorer, int]) -> None:
    holdout, scorer, items = asked
    ids, made = kiosk_corpus.tokenizer.items.ids, lists_of.of_scorer(scorer, holdout, items, filtered=True)
    row, place = np.nonzero(made.code_UK >= 0)
    table = pa.table(
        {
            "user_id": made.user_ids.take(pa.array(row)),
            "item_id": ids.decode(made.code_UK[row, place]),
            "rank": place + 1,
        }
    )
    shuffled = table.take(np.random.default_rng(0).permutation(len(row)))
    found = lists_of.of_table(shuffled, holdout.user_ids, ids)
    width = made.code_UK.shape[1]
    np.testing.assert_array_equal(found.code_UK[:, :width], made.code_UK)
    assert found.code_UK.shape[1] == DEPTH
    assert np.all(found.code_UK[:, width:] == -1)


def test_whom_nobody_asked_about_is_left_out_and_impossible_ranks_are_refused(
    kiosk_corpus: Corpus, asked: tuple[Holdout, Scorer, int]
) -> None:
    holdout, _, _ = asked
    ids = kiosk_corpus.tokenizer.items.ids
    item, user_type = ids.decode(np.array([2], dtype=np.int32)), holdout.user_ids.type
    stranger = pa.array(["987654"]).cast(user_type)
    table = {"user_id": stranger, "item_id": item, "rank": pa.array([1])}
    assert np.all(lists_of.of_table(pa.table(table), holdout.user_ids, ids).code_UK == -1)
    for rank in (0, DEPTH + 1):
        with pytest.raises(ValueError, match="ranks go from 1 to"):
            lists_of.of_table(pa.table({**table, "rank": pa.array([rank])}), holdout.user_ids, ids)


def test_a_rank_is_the_place_of_the_first_item_that_came_and_0_where_none_did(
    asked: tuple[Holdout, Scorer, int],
) -> None:
    holdout, _, _ = asked
    truth = holdout.truth
    code_UK = np.full((len(holdout), 3), -1, dtype=np.int32)
    for user in range(len(holdout)):
        own = truth.codes[truth.offsets[user] : truth.offsets[user + 1]]
        if user % 2 and len(own):
            code_UK[user, 1] = own[0]
    found = lists_of.ranks(Lists(holdout.user_ids, code_UK), holdout)
    assert found.tolist() == [2 if user % 2 and truth.sizes[user] else 0 for user in range(len(holdout))]
