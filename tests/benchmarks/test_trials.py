from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import trials
from benchmarks.ablations import BASE, TECHNIQUES, Row, Slice, page, recipe_of, verdict
from benchmarks.staleness import aged
from benchmarks.trials import Outcome, Trial, difference, mean_by_user, run_trials, settings_hash, spread
from benchmarks.window_sizes import long_histories
from tokenization.corpus.corpus import Corpus
from training.holdout import Columns, Part, hold_out
from training.metrics import Interval
from training.recipes import Recipe, default, small

DAY = 86_400.0


@pytest.fixture(scope="module")
def recipe(kiosk_corpus: Corpus) -> Recipe:
    return replace(small(kiosk_corpus), epochs=1)


def quiet(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total, stage


def test_a_series_goes_on_where_it_stopped_and_equal_trials_run_once(
    kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path
) -> None:
    trial = Trial(kiosk_corpus.folder, recipe)
    first = dict(run_trials({"a": trial, "b": trial}, tmp_path / "cache", 1, quiet))
    assert first["a"] == first["b"]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert first["a"].steps > 0
    assert len(first["a"].values["model"]) == len(first["a"].users) > 0
    again = dict(run_trials({"c": trial}, tmp_path / "cache", 1, quiet))
    assert again["c"].to_json() == first["a"].to_json()  # NaN is not equal to itself


def test_a_trial_has_another_key_for_whatever_decides_it(
    kiosk_corpus: Corpus, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(kiosk_corpus.folder, recipe)
    keys = {trial.key, replace(trial, told=False).key, replace(trial, recipe=replace(recipe, seed=9)).key}
    monkeypatch.setattr(trials, "code_hash", lambda: "other code")
    assert len(keys | {trial.key}) == 4
    assert settings_hash(recipe) == settings_hash(replace(recipe, seed=9))
    assert settings_hash(recipe) != settings_hash(replace(recipe, epochs=9))


def test_a_difference_is_paired_over_the_users_that_all_have() -> None:
    on = [
        Outcome(["a", "b", "c"], {"model": [0.4, 0.6, 0.9]}, 1, 1.0, 1),
        Outcome(["c", "b", "a"], {"model": [0.9, 0.4, 0.6]}, 1, 1.0, 1),
    ]
    off = [Outcome(["b", "a"], {"model": [0.3, 0.5]}, 1, 1.0, 1)]
    np.testing.assert_allclose(mean_by_user(on, "model", ["a", "b"]), [0.5, 0.5])
    assert difference(on, "model", off, "model").mean == pytest.approx(0.1)
    mean, half = spread(on, "model")
    assert mean == pytest.approx(np.mean([1.9 / 3, 1.9 / 3]))
    assert half == pytest.approx(0.0)


def test_every_technique_is_a_recipe_on_some_slice() -> None:
    names = [technique.name for technique in TECHNIQUES]
    assert len(set(names)) == len(names)
    assert all(technique.on != technique.off or technique.off_slice for technique in TECHNIQUES)
    for technique in TECHNIQUES:
        default = dict(technique.on if technique.kept else technique.off)
        assert default == {} or set(default) <= set(BASE), technique.name


def test_settings_that_need_nothing_of_the_log_make_a_recipe(kiosk_corpus: Corpus) -> None:
    plain = default(kiosk_corpus)
    for technique in TECHNIQUES:
        if technique.slice is Slice.JOURNEY and "department" not in str(technique.on):
            changed = [recipe_of(kiosk_corpus, settings, plain.seed) for settings in (technique.on, technique.off)]
            assert technique.off_slice or changed[0] != changed[1], technique.name


def test_a_row_says_what_its_interval_says() -> None:
    technique = TECHNIQUES[0]
    row = Row(technique, (0.2, 0.01), (0.1, 0.02), Interval(0.1, 0.05, 0.15), (10, 9), 60.0, "abcd", 5)
    assert verdict(row) == "helps"
    kept = replace(row, technique=replace(technique, because="a basket has no order"), gap=Interval(0.0, -0.1, 0.1))
    assert verdict(kept) == "no difference shown; kept: a basket has no order"
    off = replace(row, technique=replace(technique, kept=False))
    assert verdict(replace(off, gap=Interval(-0.1, -0.2, -0.05))) == "hurts; off"
    assert verdict(off).startswith("helps; off")
    text = page([row])
    assert "| 0.2000 ± 0.0100 | 0.1000 ± 0.0200 | +0.1000 (+0.0500 to +0.1500) | 10 / 9 | 60 | `abcd` | helps |" in text


def test_an_aged_request_knows_nothing_of_the_days_in_between(kiosk_corpus: Corpus) -> None:
    tokens = kiosk_corpus.tokens()
    held = hold_out(tokens, Columns.of(kiosk_corpus.tokenizer), kiosk_corpus.split, Part.VALIDATION)
    old = aged(held, 14 * DAY)
    assert (old.asked.known <= held.asked.known).all()
    assert (old.asked.known < held.asked.known).any()
    for place, row in enumerate(held.asked.row.tolist()):
        times = np.array(tokens["time"][row].as_py())[: held.asked.known[place]]
        assert old.asked.known[place] == (times <= held.asked.at[place] - 14 * DAY).sum()
    assert np.array_equal(old.truth.codes, held.truth.codes)
    fresh = aged(held, 0.0)
    assert np.array_equal(fresh.asked.known, held.asked.known)


def test_long_histories_are_counted_before_validation(kiosk_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.window_sizes.LONG", 20)
    rows = kiosk_corpus.tokens().select(["user_id", "time"]).to_pylist()
    cut = kiosk_corpus.split.validation
    assert cut is not None
    expected = {str(row["user_id"]) for row in rows if sum(at < cut for at in row["time"]) > 20}
    assert long_histories(kiosk_corpus) == expected != set()
