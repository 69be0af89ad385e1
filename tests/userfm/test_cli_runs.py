"""`userfm runs` on the shop's run, as a user and as a program would call it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def experiments(shop: Any, tmp_path: Path) -> Path:
    """Two runs: the shop's, and the same as if it had been cut off."""
    for name in ("whole", "cut"):
        shutil.copytree(shop.run, tmp_path / "experiments" / name)
    shutil.rmtree(tmp_path / "experiments" / "cut" / "model")
    asked = tmp_path / "experiments" / "cut" / "run.json"
    told = json.loads(asked.read_text())
    told["recipe"]["model"]["width"] = 48
    asked.write_text(json.dumps(told))
    return tmp_path / "experiments"


def test_every_run_below_a_folder_is_listed(
    command: Any, experiments: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("runs", experiments) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "small: epochs=3" in line]
    assert [any(name in row for row in rows) for name in ("cut", "whole", "finished", "3 of 3")] == [True] * 4


def test_a_program_gets_the_same_as_json(command: Any, experiments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("runs", "--json", experiments) == 0
    cut, whole = json.loads(capsys.readouterr().out)
    assert (whole["state"], whole["recipe"], whole["changes"]) == ("finished", "small", {"epochs": 3})
    assert cut["state"] in ("running", "stopped")
    assert whole["step"] == whole["steps"] == 3
    assert whole["tokens_per_second"] > 0


def test_runs_are_compared_by_what_differs(command: Any, experiments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = experiments / "cut", experiments / "whole"
    assert command("runs", "compare", *both) == 0
    said = capsys.readouterr().out
    assert "model.width" in said
    assert "epochs" not in said
    assert command("runs", "compare", *both, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"] == {"model.width": [48, 32]}
    assert told["figures"]["step"] == [3, 3]


def test_what_evaluate_found_stands_in_the_list(
    command: Any, shop: Any, experiments: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = experiments / "whole"
    assert command("evaluate", run, shop.corpus, "--json", run / "figures.json") == 0
    expected = json.loads((run / "figures.json").read_text())["evaluation"]["model"]["all"]["ndcg@10"]
    capsys.readouterr()
    assert command("runs", run, "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["ndcg@10"], listed["part"]) == (expected, "test")


def test_a_report_is_written_of_whatever_was_logged(
    command: Any, experiments: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = experiments / "cut" / "training.html"
    page.unlink()
    assert command("runs", "report", experiments / "cut") == 0
    assert str(page) in capsys.readouterr().out
    assert "Training of cut" in page.read_text(encoding="utf-8")


def test_mistakes_are_a_sentence(
    command: Any, experiments: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        (("runs", tmp_path / "nowhere"), "is no folder: name a run, or a folder that holds runs"),
        (("runs", tmp_path / "empty"), "make one with `userfm train`"),
        (("runs", "compare", experiments / "cut"), "name two runs or more"),
        (("runs", "compare", experiments / "cut", tmp_path / "empty"), "is no training run"),
        (("runs", "report", tmp_path / "empty"), "is no training run"),
    ):
        assert command(*arguments) == 2
        assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize("name", ["list", "compare", "report"])
def test_each_kind_of_call_has_an_example(command: Any, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("runs", name, "--help") == 0
    assert "userfm runs" in capsys.readouterr().out
