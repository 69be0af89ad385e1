"""`userfm finetune` and `userfm distill`: one more model from a run, judged beside the one it came from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foundation.pretrained import load
from tokenization.corpus.corpus import Corpus
from userfm.cli import main


def run_command(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def base(kiosk_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "run"
    arguments = ("--recipe", "small", "--set", "width=16", "--set", "layers=2", "--no-ray")
    assert run_command("train", kiosk_corpus.folder, "--out", folder, *arguments) == 0
    return folder


@pytest.mark.parametrize("parts", ["head", "low-rank", "full"])
def test_a_run_is_tuned_for_a_surface_and_judged_there(
    base: Path, tmp_path: Path, parts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned"
    command = ("finetune", base, "--out", out, "--surface", "store=s1", "--parts", parts, "--rank", "2")
    assert run_command(*command) == 0
    said = capsys.readouterr().out
    assert re.search(r"NDCG@10 on the validation part of store=s1 of \d+ users, which it has not learned: 0\.\d+", said)
    assert load(out / "model").space.lineage[-1] == load(base / "model").space.origin
    assert (out / "heads.json").exists()
    assert run_command(*command) == 0  # done already: judged again
    assert capsys.readouterr().out == said


def test_a_tuned_run_is_evaluated_on_its_surface_and_is_no_figure_of_everybody(
    base: Path, kiosk_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    assert run_command("evaluate", base, kiosk_corpus.folder, "--surface", "store=s1", "--json", file) == 0
    assert '"surface": "store=s1"' in file.read_text()
    assert not (base / "evaluation.json").exists()
    assert run_command("evaluate", base, kiosk_corpus.folder, "--surface", "store=s8") == 2
    assert "the log has no store 's8'" in capsys.readouterr().err


def test_a_small_model_learns_from_a_large_one_and_says_what_it_keeps(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    assert run_command("distill", base, "--out", out, "--set", "width=8", "--set", "layers=1") == 0
    said = capsys.readouterr().out
    assert re.search(r"1 for \d+\.\d of its teacher's; NDCG@10 on the validation part of \d+ users", said)
    assert re.search(r"it keeps \d+\.\d %", said)
    assert load(out / "model").model.config.width == 8


def test_where_all_of_the_log_was_learned_nothing_is_judged(
    kiosk_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = tmp_path / "release"
    arguments = ("--recipe", "small", "--set", "width=8", "--no-ray", "--all-data")
    assert run_command("train", kiosk_corpus.folder, "--out", release, *arguments) == 0
    assert run_command("finetune", release, "--out", tmp_path / "tuned", "--parts", "head") == 0
    assert "nothing is left to judge it on" in capsys.readouterr().out


def test_a_surface_that_is_none_is_a_sentence_and_leaves_nothing(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("finetune", base, "--out", tmp_path / "tuned", "--surface", "shop=s1") == 2
    assert "no context facet with values of its own is called 'shop'" in capsys.readouterr().err
    assert not (tmp_path / "tuned").exists()
