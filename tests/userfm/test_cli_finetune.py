"""`userfm finetune` and `userfm distill`: one more model from a run, judged beside the one it came from."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from foundation.pretrained import load
from tests.conftest import DAY
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


@pytest.mark.parametrize("learns", ["answers", "low-rank", "full"])
def test_a_run_is_tuned_for_a_surface_and_judged_there(
    base: Path, tmp_path: Path, learns: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned"
    command = ("finetune", base, "--out", out, "--surface", "store=s1", "--learns", learns, "--rank", "2")
    assert run_command(*command) == 0
    said = capsys.readouterr().out
    for where in ("of store=s1 ", ""):
        assert re.search(rf"NDCG@10 on the validation part {where}of \d+ users, which it has not learned: 0\.\d+", said)
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
    assert re.search(r"parameters, 1 for \d+\.\d of its teacher's", said)
    assert re.search(r"NDCG@10 on the validation part of \d+ users, which it has not learned", said)
    assert re.search(r"it keeps \d+\.\d %", said)
    assert load(out / "model").model.config.width == 8


def test_where_all_of_the_log_was_learned_nothing_is_judged(
    kiosk_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = tmp_path / "release"
    arguments = ("--recipe", "small", "--set", "width=8", "--no-ray", "--all-data")
    assert run_command("train", kiosk_corpus.folder, "--out", release, *arguments) == 0
    assert run_command("finetune", release, "--out", tmp_path / "tuned", "--learns", "answers") == 0
    assert "nothing is left to judge it on" in capsys.readouterr().out


def test_a_surface_that_is_none_is_a_sentence_and_leaves_nothing(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("finetune", base, "--out", tmp_path / "tuned", "--surface", "shop=s1") == 2
    assert "no context facet with values of its own is called 'shop'" in capsys.readouterr().err
    assert not (tmp_path / "tuned").exists()


def test_a_base_that_may_have_learned_what_it_is_judged_by_is_refused(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "run"
    shutil.copytree(base, other)
    told = json.loads((other / "run.json").read_text())
    told["split"]["validation"] += 5 * DAY
    (other / "run.json").write_text(json.dumps(told))
    for command in (("finetune",), ("distill",)):
        assert run_command(*command, other, "--out", tmp_path / "out") == 2
        assert "was trained with the split" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_was_asked_for_wrongly_can_be_asked_for_again(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned"
    assert run_command("finetune", base, "--out", out, "--learns", "low-rank", "--rank", "99") == 2
    assert "has no rank 99" in capsys.readouterr().err
    assert run_command("finetune", base, "--out", out, "--learns", "low-rank", "--rank", "2") == 0
    assert run_command("finetune", base, "--out", out, "--learns", "low-rank", "--rank", "3") == 2
    assert "holds a run with another finetune: choose another --out, or --restart" in capsys.readouterr().err
    assert run_command("finetune", base, "--out", out, "--learns", "low-rank", "--rank", "3", "--restart") == 0
    assert run_command("distill", base, "--out", tmp_path / "small", "--set", "repeat_path=off") == 2
    assert "teacher and student differ in `repeat_path`" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_models_that_answer_by_stored_vectors_are_taught_and_judged_by_these(
    kiosk_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ordered = ("--recipe", "ordered", "--set", "width=16", "--set", "heads=1", "--set", "epochs=1", "--no-ray")
    assert run_command("train", kiosk_corpus.folder, "--out", tmp_path / "run", *ordered) == 0
    assert run_command("distill", tmp_path / "run", "--out", tmp_path / "small", "--set", "width=8") == 0
    taught = json.loads((tmp_path / "small" / "training.jsonl").read_text().splitlines()[0])["losses"]
    assert "taught_embedding" in taught
    assert "taught" not in taught
    assert run_command("finetune", tmp_path / "run", "--out", tmp_path / "tuned", "--learns", "answers") == 2
    assert "answers by its stored vectors alone" in capsys.readouterr().err


def test_a_command_that_contradicts_itself_is_refused(kiosk_corpus: Corpus, tmp_path: Path) -> None:
    assert run_command("train", kiosk_corpus.folder, "--out", tmp_path / "run", "--no-ray", "--workers", "2") == 2
