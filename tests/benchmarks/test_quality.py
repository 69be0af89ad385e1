"""How quality is told; that the peer trains at all is for its own environment to show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import quality
from benchmarks.__main__ import main
from benchmarks.lists import Lists
from benchmarks.logs import Log, corpus_of
from benchmarks.quality import best_within, figures, judge
from tokenization.corpus.corpus import Corpus
from training.holdout import Columns, Part, hold_out


def quiet(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total, stage


def test_figures_are_means_over_seeds_and_the_difference_is_paired(kiosk_corpus: Corpus, tmp_path: Path) -> None:
    holdout = hold_out(kiosk_corpus.tokens(), Columns.of(kiosk_corpus.tokenizer), kiosk_corpus.split, Part.VALIDATION)
    truth = holdout.truth
    right = np.full((len(holdout), 1), -1, dtype=np.int32)
    some_U = truth.sizes > 0
    right[some_U, 0] = truth.codes[truth.offsets[:-1][some_U]]
    best, none = (Lists(holdout.user_ids, code_UK) for code_UK in (right, np.full_like(right, -1)))
    second_best = Lists(holdout.user_ids, np.concatenate([none.code_UK, right], axis=1))
    lists = {"model": [best, none], "peer": [second_best], "popularity": [none]}
    judged = judge(Log.JOURNEY, kiosk_corpus, Part.VALIDATION, lists)
    found = figures(Log.JOURNEY, judged)
    first, second = found["model"]["seeds_ndcg@10"]
    assert first > 0 == second
    assert found["model"]["ndcg@10"] == pytest.approx(first / 2)
    gap = found["difference"]
    assert gap["ndcg@10"] == pytest.approx(first / 2 - found["peer"]["ndcg@10"])
    assert gap["low"] <= gap["ndcg@10"] <= gap["high"]
    assert found["ratio"]["ndcg@10"] == pytest.approx(first / 2 / found["peer"]["ndcg@10"])
    quality._write_ranks(judged, tmp_path / "ranks.parquet")
    written = pq.read_table(tmp_path / "ranks.parquet")
    assert written.num_rows == len(holdout)
    assert set(written["model_0_rank"].to_pylist()) <= {0, 1}
    assert sum(written["model_1_rank"].to_pylist()) == 0
    np.testing.assert_allclose(np.mean(written["model_0_ndcg@10"]), first, rtol=1e-6)


def test_a_log_in_order_is_split_by_its_last_items_and_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "ml-1m"
    folder.mkdir(parents=True)
    events = {"user_id": [1, 1, 1, 1, 2, 2, 2], "item_id": [5, 6, 7, 8, 5, 6, 8], "position": [0, 1, 2, 3, 0, 1, 2]}
    pq.write_table(pa.table(events), folder / "events.parquet")
    items = {"item_id": [5, 6, 7, 8], "title": list("abcd"), "genres": [["x", "y"], None, [], ["x"]], "plot": [""] * 4}
    pq.write_table(pa.table(items), folder / "items.parquet")
    monkeypatch.setenv("USERFM_DATA", str(tmp_path / "data"))
    corpus = corpus_of(Log.ML_1M, tmp_path / "out", quiet)
    holdout = hold_out(corpus.tokens(), Columns.of(corpus.tokenizer), corpus.split, Part.TEST)
    assert corpus.tokenizer.items.ids.decode(holdout.truth.codes).to_pylist() == [8, 8]
    monkeypatch.delenv("USERFM_DATA")
    assert corpus_of(Log.ML_1M, tmp_path / "out", quiet).tokenizer.fingerprint == corpus.tokenizer.fingerprint


def test_a_log_that_is_not_here_says_where_it_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERFM_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="set USERFM_DATA to the folder that holds beauty"):
        corpus_of(Log.BEAUTY, tmp_path / "out", quiet)


def test_the_peer_of_groceries_is_a_count_and_has_nothing_to_tune(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="nothing to tune"):
        main(["peer", "--data", "complete_journey", "--json", str(tmp_path / "peer.json")])


def test_a_peer_of_so_many_seconds_has_the_settings_that_were_best_by_then() -> None:
    slow = {"settings": {"width": 128}, "looks": [[1, 50.0, 0.02], [2, 100.0, 0.09]]}
    quick = {"settings": {"width": 64}, "looks": [[1, 20.0, 0.03], [2, 40.0, 0.05], [3, 60.0, 0.04]]}
    found = best_within([slow, quick], 70.0)
    assert (found["settings"], found["epoch"]) == ({"width": 64}, 2)
    assert best_within([slow, quick], 1e9)["settings"] == {"width": 128}


def test_a_trial_rises_that_was_best_at_its_last_look() -> None:
    peaked = {"settings": {}, "looks": [[1, 10.0, 0.1], [2, 20.0, 0.3], [3, 30.0, 0.2]]}
    assert not best_within([peaked], 1e9)["rising"]
    assert best_within([{**peaked, "looks": peaked["looks"][:2]}], 1e9)["rising"]
