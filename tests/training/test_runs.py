"""Runs are read as they lie on disk: finished, in the middle, cut off, or of an older userfm."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenization.corpus.corpus import Corpus
from training.attempts import attempts
from training.errors import RunError
from training.recipes import Name, Recipe, small, with_overrides
from training.run import Run, start
from training.runs import (
    State,
    column,
    compared,
    differences,
    find_runs,
    note_evaluation,
    read_log,
    read_run,
    said,
)

OLD = {"step": 1, "steps": 9, "seconds": 0.5, "loss": 2.0, "losses": {"next": 2.0}, "tokens": 10}
OLD |= {"tokens_per_second": 20.0, "rate": 0.1, "gradient_norm": 1.0}


def line(**changed: Any) -> str:
    return json.dumps({**OLD, **changed}) + "\n"


def test_a_finished_run_tells_what_was_asked_and_how_it_ended(trained: Run, recipe: Recipe) -> None:
    found = read_run(trained.folder)
    assert found.state is State.FINISHED
    assert found.asked.settings["model.width"] == recipe.model.width
    assert found.asked.settings["seed"] == recipe.seed
    figures = found.figures()
    assert figures["step"] == figures["steps"] == found.log.num_rows
    assert {"loss", "loss.next", "loss.embedding", "mfu", "data_wait", "memory_gib"} <= set(figures)
    assert all(value is not None and math.isfinite(value) for value in figures.values())


def test_what_a_run_changes_of_its_recipe_is_told_by_the_names_that_set_takes(
    kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    recipe = with_overrides(small(kiosk_corpus), {"width": "16", "stages": "8:0.5,32:0.5"})
    start(kiosk_corpus, tmp_path / "run", recipe, name=Name.SMALL)
    found = read_run(tmp_path / "run")
    assert found.asked.name == "small"
    assert {name: said(value) for name, value in found.changes.items()} == {"width": "16", "stages": "8:0.5,32:0.5"}
    assert with_overrides(small(kiosk_corpus), {n: said(v) for n, v in found.changes.items()}) == recipe
    again = start(kiosk_corpus, tmp_path / "run", recipe)  # nobody says which recipe it comes from
    assert read_run(again.folder).changes == {}


def test_a_run_is_running_while_its_log_grows_and_stopped_when_it_does_not(trained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "training.jsonl"):
        shutil.copy(trained.folder / name, folder / name)
    grew = (folder / "training.jsonl").stat().st_mtime
    os.utime(folder / "run.json", (grew, grew))
    assert read_run(folder, grew + 30).state is State.RUNNING
    assert read_run(folder, grew + 90).state is State.STOPPED
    (folder / "training.jsonl").write_text(line(seconds=30.0))  # steps of half a minute
    os.utime(folder / "training.jsonl", (grew, grew))
    assert read_run(folder, grew + 90).state is State.RUNNING


def test_a_run_that_has_logged_nothing_yet_has_no_figures(kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    start(kiosk_corpus, tmp_path / "run", recipe)
    found = read_run(tmp_path / "run")
    assert found.state is State.RUNNING
    assert set(found.figures().values()) == {None}
    assert found.ndcg() == (None, "")


def test_a_log_of_an_older_userfm_goes_on_in_the_columns_of_this_one(tmp_path: Path) -> None:
    log = tmp_path / "training.jsonl"
    log.write_text(line() + line(step=2, stage=1, history=64, mfu=0.5, losses={"next": 1.0, "future": 3.0}))
    found = read_log(log)
    assert column(found, "mfu").tolist()[1] == 0.5
    assert np.isnan(column(found, "mfu")[0])
    assert np.isnan(column(found, "loss.future")[0])
    assert column(found, "loss.next").tolist() == [2.0, 1.0]


def test_a_line_that_is_not_whole_yet_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "training.jsonl"
    log.write_text(line() + line(step=2) + line(step=3)[:40])
    assert column(read_log(log), "step").tolist() == [1.0, 2.0]
    log.write_text(line()[:40])
    assert read_log(log).num_rows == 0


def test_a_gradient_that_overflowed_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(line(gradient_norm=math.inf) + line(step=2, gradient_norm=math.nan))
    assert not np.isfinite(column(read_log(tmp_path / "log"), "gradient_norm")).any()


def test_of_a_long_log_only_its_end_is_read_where_that_is_enough(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(line(step=step) for step in range(1, 1001)))
    assert column(read_log(tmp_path / "log", newest_bytes=1000), "step").tolist()[-1] == 1000
    assert 1 < read_log(tmp_path / "log", newest_bytes=1000).num_rows < 10
    assert read_log(tmp_path / "log").num_rows == 1000


def test_a_file_that_is_no_log_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("[1, 2]\n")
    with pytest.raises(RunError, match=r"can't be read .*is it the log of a run"):
        read_log(tmp_path / "log")


def test_runs_are_found_below_folders_each_once_and_none_inside_another(trained: Run, tmp_path: Path) -> None:
    for name in ("deep/er/a", "b", "b/copy-within", ".hidden/c"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(trained.folder / "run.json", tmp_path / name / "run.json")
    found = find_runs([tmp_path, tmp_path / "b"])
    assert found == [tmp_path / "b", tmp_path / "deep" / "er" / "a"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"no run lies at or below .*empty: make one with `userfm train`"):
        find_runs([tmp_path / "empty"])
    with pytest.raises(RunError, match="nowhere is no folder"):
        find_runs([tmp_path / "nowhere"])


def test_settings_are_compared_over_all_runs(
    trained: Run, kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path
) -> None:
    start(kiosk_corpus, tmp_path / "run", replace(recipe, seed=4))
    runs = [read_run(folder) for folder in (trained.folder, tmp_path / "run", trained.folder)]
    assert compared(runs) == {"seed": [recipe.seed, 4, recipe.seed]}
    assert compared(runs[:1]) == {}
    one = {"a": 1, "b": {"c": [1, 2]}}
    assert differences(one, {"a": 1, "b": {"c": [1]}, "d": 2}) == {"b.c": [[1, 2], [1]], "d": [None, 2]}


def test_figures_of_the_test_part_go_before_those_of_validation(trained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(trained.folder / "run.json", folder / "run.json")

    def judged(ndcg: float) -> dict[str, Any]:
        return {"model": {"all": {"ndcg@10": ndcg}}, "protocol": {"users": 3}}

    note_evaluation(folder, "validation", judged(0.2))
    assert read_run(folder).ndcg() == (0.2, "validation")
    note_evaluation(folder, "test", judged(0.1))
    assert read_run(folder).ndcg() == (0.1, "test")
    assert read_run(folder).figures()["validation.model.all.ndcg@10"] == 0.2
    (folder / "evaluation.json").rename(tmp_path / "elsewhere")
    (folder / "report.json").write_text(json.dumps({"evaluation": judged(0.3)}))
    assert read_run(folder).ndcg() == (0.3, "test")
    (folder / "report.json").write_text("[")
    with pytest.raises(RunError, match="judge the run again with `userfm evaluate`"):
        read_run(folder)


def test_each_beginning_of_a_training_is_noted(trained: Run) -> None:
    (only,) = attempts(trained.folder)
    assert (only.step, only.device, only.ranks) == (0, "cpu", 1)
    assert attempts(trained.folder.parent) == []


def test_reading_runs_needs_no_torch() -> None:
    code = "import sys, training.runs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
