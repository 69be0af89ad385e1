"""The page of a training: whole, small, loads nothing, and says what the log says."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.training.test_report import Reader
from tokenization.corpus.corpus import Corpus
from training import pretrain
from training.errors import RunError
from training.recipes import Name, Recipe, small, with_overrides
from training.run import Run, start
from training.runs import column, read_log
from training.training_report import POINTS, binned, speeds, write_training_report


@pytest.fixture
def folder(trained: Run, tmp_path: Path) -> Path:
    """The finished run, without its model and its page."""
    for name in ("run.json", "training.jsonl", "attempts.jsonl"):
        shutil.copy(trained.folder / name, tmp_path / name)
    return tmp_path


def text_of(page: Path) -> str:
    return " ".join(Reader(page.read_text(encoding="utf-8")).text)


def test_a_finished_training_has_its_page(trained: Run) -> None:
    page = (trained.folder / "training.html").read_text(encoding="utf-8")
    last = json.loads((trained.folder / "training.jsonl").read_text().splitlines()[-1])
    text = " ".join(Reader(page).text)
    assert f"{last['steps']:,} of {last['steps']:,} steps" in text
    for said in ("Losses", "next_2", "quantity", "tokens a second", "waiting for data", "peak memory", "gradient norm"):
        assert said in text
    for said in ("learning rate", "model FLOPs utilisation", "validation", "seed", "cpu"):
        assert said in text


def test_the_page_loads_nothing_and_each_chart_is_told_in_words(folder: Path) -> None:
    page = write_training_report(folder).read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w|\bsrc=|@import|url\(|<script|<link", page)
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(charts) >= 10
    assert all(re.search(r"<title [^>]*>[^<]+</title><desc [^>]*>From [^<]+</desc>", chart) for chart in charts)
    reader = Reader(page)
    assert len(set(reader.ids)) == len(reader.ids)
    assert page.count("The same in numbers") == 8  # a caption and a label: losses, speed, memory, optimisation


def test_a_million_steps_make_a_small_page_that_keeps_the_highest_value(folder: Path) -> None:
    steps, line = 1_000_000, json.loads((folder / "training.jsonl").read_text().splitlines()[0])
    log = folder / "training.jsonl"
    head = json.dumps({**line, "steps": steps})
    assert head.startswith('{"step": 1, ')
    rest = head.removeprefix('{"step": 1')
    few = 50_000  # lines on disk; what is drawn of them is as much as of a million
    log.write_text("".join(f'{{"step": {step}{rest}\n' for step in range(1, few + 1)))
    assert write_training_report(folder).stat().st_size < 200_000
    values = np.ones(steps)
    values[700_001] = 1e6
    assert len(binned(values, POINTS)) == POINTS
    assert binned(values, POINTS).max() == pytest.approx(1 + 1e6 / (steps / POINTS), rel=1e-3)


def test_bins_are_means_of_what_is_known() -> None:
    values = np.array([1.0, 3.0, np.nan, 5.0, np.nan, np.nan])
    assert np.array_equal(binned(values, 3), [2.0, 5.0, np.nan], equal_nan=True)
    assert binned(values, 6) is values


def test_the_speed_of_a_step_is_its_own_tokens_by_its_own_seconds() -> None:
    log = pa.table({"tokens": [10, 30], "seconds": [1.0, 5.0], "mfu": [0.5, None], "data_wait": [0.0, 0.25]})
    pace, mfu, wait = speeds(log)
    assert pace.y.tolist() == [10.0, 5.0]
    assert mfu.y[0] == 50.0
    assert wait.y.tolist() == [0.0, 25.0]


def test_a_page_of_an_older_log_leaves_out_what_that_does_not_know(folder: Path) -> None:
    log = folder / "training.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    new = {"data_wait", "memory_gib", "mfu", "stage", "history"}
    log.write_text("".join(json.dumps({k: v for k, v in line.items() if k not in new}) + "\n" for line in lines))
    (folder / "attempts.jsonl").unlink()
    text = text_of(write_training_report(folder))
    assert "gradient norm" in text
    for unknown in ("peak memory", "waiting for data", "nan", "None"):
        assert unknown not in text


def test_steps_that_moved_nothing_are_counted_and_break_no_chart(folder: Path) -> None:
    lines = (folder / "training.jsonl").read_text().splitlines()
    bad = {**json.loads(lines[3]), "loss": math.nan, "losses": {"next": math.nan}, "gradient_norm": math.nan}
    (folder / "training.jsonl").write_text("\n".join([*lines[:3], json.dumps(bad), *lines[4:]]) + "\n")
    page = write_training_report(folder)
    assert "steps without a finite loss or gradient, skipped 1" in re.sub(r"\s+", " ", text_of(page))
    assert "nan" not in page.read_text(encoding="utf-8")


def test_a_run_without_a_step_has_a_page_too(folder: Path) -> None:
    (folder / "training.jsonl").unlink()
    assert "The run" in text_of(write_training_report(folder))


def test_places_where_a_run_went_on_and_stages_are_marked(kiosk_corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    changed = with_overrides(replace(recipe, checkpoint_seconds=0.0), {"stages": "16:0.5,48:0.5"})
    run = start(kiosk_corpus, tmp_path / "run", changed)

    def stop(record: pretrain.StepRecord) -> None:
        if record.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain_bare(run, stop)
    pretrain.pretrain_bare(run)
    page = (run.folder / "training.html").read_text(encoding="utf-8")
    assert re.search(r"<desc[^>]*>[^<]* At \d+: stage 2\.[^<]* At 3: went on\.", page)
    text = " ".join(Reader(page).text)
    assert "Each time that training began" in text
    assert "Rows of the corpus as each stage cuts them" in text


def test_what_a_run_changes_of_its_recipe_stands_on_the_page(kiosk_corpus: Corpus, tmp_path: Path) -> None:
    recipe = with_overrides(small(kiosk_corpus), {"width": "16"})
    start(kiosk_corpus, tmp_path / "a <b> run", recipe, name=Name.SMALL)
    page = write_training_report(tmp_path / "a <b> run")
    assert "What it changes of the recipe small" in text_of(page)
    assert "model.width" in text_of(page)
    assert "<b> run" not in page.read_text(encoding="utf-8")


def test_a_folder_that_is_no_run_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="make one with `userfm train`"):
        write_training_report(tmp_path)


def test_tensorboard_has_all_that_the_log_knows(trained: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(trained.folder / "tensorboard")).Reload()
    last = pretrain.StepRecord(**json.loads((trained.folder / "training.jsonl").read_text().splitlines()[-1]))
    assert set(board.Tags()["scalars"]) == set(last.scalars())
    assert {"gradient_norm", "data_wait", "memory_gib", "mfu", "loss/total", "loss/next"} <= set(last.scalars())
    assert board.Scalars("loss/total")[-1].value == pytest.approx(last.loss)
    assert column(read_log(trained.log), "loss")[-1] == last.loss
