"""Figures of a log so small that each is worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tokenization.tokenizer.split import Split
from training.errors import EvaluationError
from training.holdout import Columns, Holdout, Requests, hold_out
from training.ranking import Slice, evaluate

ITEMS = 102  # codes 2 to 101 are a catalogue of 100
CUT = Split("time", 100.0, None, None)

# time, group, item, store
LOG = {
    "a": [(1, 0, 2, 2), (2, 1, 3, 2), (101, 2, 2, 2), (101, 2, 4, 2), (101, 2, 5, 2)],  # 2 again; 4, 5 new
    "b": [(1, 0, 2, 2), (102, 1, 2, 2)],  # nothing new
    "c": [(1, 0, 7, 2), (103, 1, 3, 2), (103, 1, 1, 2)],  # nothing again; one item outside the vocabulary
}


@pytest.fixture
def held(token_table) -> Holdout:
    return hold_out(token_table(LOG), Columns("product"), CUT)


def descending(requests: Requests) -> np.ndarray:
    """Everybody gets 2, 3, 4, … in this order."""
    return np.broadcast_to(-np.arange(ITEMS, dtype=np.float32), (len(requests), ITEMS))


def dcg(*places: int) -> float:
    return sum(1 / math.log2(place + 1) for place in places)


def test_every_figure_of_a_tiny_log_is_the_one_worked_out_by_hand(held: Holdout) -> None:
    judged = evaluate(held, {"it": descending}, ITEMS).judged["it"]
    everything, repeat, new = (judged.values[part] for part in (Slice.ALL, Slice.REPEAT, Slice.NEW))
    # a: 2, 4, 5 stand at places 1, 3, 4.  b: 2 stands first.  c: 3 stands second, the unknown item nowhere.
    assert everything["recall@10"].tolist() == [1.0, 1.0, 0.5]
    assert everything["ndcg@10"].tolist() == pytest.approx([dcg(1, 3, 4) / dcg(1, 2, 3), 1.0, dcg(2) / dcg(1, 2)])
    # repeat asks for less of the same ranking; c has nothing to repeat.
    np.testing.assert_equal(repeat["recall@10"], [1.0, 1.0, np.nan])
    np.testing.assert_equal(repeat["ndcg@10"], [1.0, 1.0, np.nan])
    # new takes 2 and 3 from a: 4, 5 are first.  It takes 7 from c: 3 stays second.  b has nothing new.
    np.testing.assert_allclose(new["recall@10"], [1.0, np.nan, 0.5])
    np.testing.assert_allclose(new["ndcg@10"], [1.0, np.nan, dcg(2) / dcg(1, 2)])
    # 2 occurs twice before the cut and 3 once, so their weights are 1/3 and 1/2; 4, 5, unknown ones weigh 1.
    np.testing.assert_allclose(everything["debiased_recall@10"], [1.0, 1.0, 0.5 / 1.5])
    assert judged.coverage == 0.1
    assert judged.top.tolist() == [list(range(2, 12))] * 3


def test_figures_are_means_over_the_users_that_a_slice_has(held: Holdout) -> None:
    figures = evaluate(held, {"it": descending}, ITEMS).figures()
    assert figures["it"]["all"]["recall@10"] == pytest.approx(2.5 / 3)
    assert figures["it"]["repeat"]["recall@50"] == 1.0
    assert figures["it"]["new"]["recall@10"] == 0.75
    assert figures["it"]["coverage@10"] == 0.1
    ends = figures["intervals"]["it"]["all"]["recall@10"]
    assert 0.5 <= ends["low"] <= 2.5 / 3 <= ends["high"] <= 1.0
    assert figures["protocol"] == {
        "users": 3,
        "users_with_truth": {"all": 3, "repeat": 2, "new": 2},
        "users_without_history": 0,
        "catalogue": 100,
        "told_time_and_context": True,
        "unknown_items_in_truth": 1,
    }


def test_the_model_is_compared_with_the_decayed_count_user_by_user(held: Holdout) -> None:
    scorers = {"model": descending, "personal_decayed": lambda requests: -descending(requests)}
    found = evaluate(held, scorers, ITEMS)
    gap = found.figures()["model_minus_personal_decayed"]
    both = [found.judged[name].values[Slice.ALL]["ndcg@10"] for name in scorers]
    assert gap["ndcg@10"] == pytest.approx(float((both[0] - both[1]).mean()))
    assert gap["low"] <= gap["ndcg@10"] <= gap["high"]


def test_a_figure_that_nobody_has_is_null(token_table) -> None:
    held = hold_out(token_table({"b": LOG["b"]}), Columns("product"), CUT)
    figures = evaluate(held, {"it": descending}, ITEMS).figures()
    assert figures["it"]["new"]["ndcg@10"] is None
    assert figures["intervals"]["it"]["new"]["ndcg@10"] == {"low": None, "high": None}


def test_chunks_change_no_figure(token_table, random_log, monkeypatch) -> None:
    held = hold_out(token_table(random_log(4)), Columns("product"), Split("time", 50 * 86400.0, None, None))
    noise = np.random.default_rng(0).random((len(held), 21)).astype(np.float32)
    ids = held.user_ids.to_pylist()

    def scorer(requests: Requests) -> np.ndarray:
        return noise[[ids.index(user) for user in requests.user_ids.to_pylist()]]

    whole = evaluate(held, {"it": scorer}, 21).judged["it"]
    monkeypatch.setattr("training.ranking.CHUNK_BYTES", 3 * 4 * 21)
    pieces = evaluate(held, {"it": scorer}, 21).judged["it"]
    assert whole.coverage == pieces.coverage
    for part in Slice:
        for metric, values in whole.values[part].items():
            np.testing.assert_array_equal(values, pieces.values[part][metric])


def test_new_takes_the_users_earlier_items_out_of_the_ranking(token_table, random_log) -> None:
    held = hold_out(token_table(random_log(5)), Columns("product"), Split("time", 50 * 86400.0, None, None))
    score = np.random.default_rng(0).random((len(held), 21)).astype(np.float32)
    first, last = score.copy(), score.copy()
    first[held.seen.users, held.seen.codes] += 10
    last[held.seen.users, held.seen.codes] -= 10
    found = evaluate(held, {"first": lambda _: first, "last": lambda _: last}, 21).judged
    new = [found[name].values[Slice.NEW]["ndcg@10"] for name in ("first", "last")]
    everything = [found[name].values[Slice.ALL]["ndcg@10"] for name in ("first", "last")]
    np.testing.assert_array_equal(*new)
    assert not np.array_equal(*everything)


def test_scores_of_the_wrong_shape_are_refused_by_name(held: Holdout) -> None:
    with pytest.raises(EvaluationError, match=r"'it' returned shape \(3, 5\)"):
        evaluate(held, {"it": lambda requests: np.zeros((len(requests), 5), np.float32)}, ITEMS)


def test_scores_that_are_no_numbers_are_refused_by_name(held: Holdout) -> None:
    with pytest.raises(EvaluationError, match=r"'it'.*NaN"):
        evaluate(held, {"it": lambda requests: np.full((len(requests), ITEMS), np.nan, np.float32)}, ITEMS)


def test_progress_is_told_until_all_users_are_judged(held: Holdout) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(held, {"it": descending}, ITEMS, lambda *what: told.append(what))
    assert told[-1] == ("evaluate", 3, 3)
