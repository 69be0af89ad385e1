"""A training that dies by SIGKILL loses no more than the steps since its last checkpoint, and ends the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tokenization.corpus.corpus import Corpus
from training.checkpoint import newest_step
from training.pretrain import pretrain_bare
from training.recipes import small
from training.run import Run, start

ROOT = Path(__file__).parents[2]

TRAINER = """
    import sys
    import torch
    from training.pretrain import pretrain_bare
    from training.run import Run

    torch.set_num_threads(1)
    pretrain_bare(Run.open(sys.argv[1]))
"""


def begin(corpus: Corpus, folder: Path) -> Run:
    recipe = replace(small(corpus), epochs=60, checkpoint_seconds=0.0)
    return start(corpus, folder, recipe)


def train_in_a_process(run: Run) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(TRAINER), str(run.folder)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.faults
def test_a_killed_training_goes_on_and_ends_bit_for_bit_the_same(kiosk_corpus: Corpus, tmp_path: Path) -> None:
    straight, killed = begin(kiosk_corpus, tmp_path / "straight"), begin(kiosk_corpus, tmp_path / "killed")
    assert train_in_a_process(straight).wait(240) == 0
    for _ in range(2):
        trainer = train_in_a_process(killed)
        seen = len(list((killed.folder / "checkpoints").glob("*.pt")))
        deadline = time.monotonic() + 60
        while trainer.poll() is None and time.monotonic() < deadline:
            newest = sorted((killed.folder / "checkpoints").glob("step-*.pt"))
            if len(newest) > max(seen - 1, 1):
                break
            time.sleep(0.01)
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
    assert train_in_a_process(killed).wait(240) == 0
    one, other = (load_file(run.model / "model.safetensors") for run in (straight, killed))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)


def userfm_train(run: Run, out: Path) -> subprocess.Popen[str]:
    """`userfm train` on the corpus of a run, in a process, which this test may signal."""
    settings = [f"--set=epochs={run.recipe.epochs}", "--set=checkpoint_seconds=1000"]
    arguments = ["train", str(run.corpus), "--out", str(out), "--recipe", "small", "--no-ray", *settings]
    command = [sys.executable, "-c", f"from userfm.cli import main; main({arguments!r})"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_training_that_gets_sigterm_keeps_a_checkpoint_exits_with_0_and_goes_on_from_there(
    kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    run, out = begin(kiosk_corpus, tmp_path / "asked"), tmp_path / "run"
    trainer = userfm_train(run, out)
    deadline = time.monotonic() + 100
    while not (out / "training.jsonl").exists() or (out / "training.jsonl").read_text().count("\n") < 3:
        assert trainer.poll() is None, trainer.stderr
        assert time.monotonic() < deadline
        time.sleep(0.01)
    trainer.send_signal(signal.SIGTERM)
    _, said = trainer.communicate(timeout=100)
    assert trainer.returncode == 0
    assert f"{out} was asked to stop and did after step" in said
    assert not Run.open(out).finished
    step = newest_step(out / "checkpoints")
    assert step >= 3
    trainer = userfm_train(run, out)
    trainer.communicate(timeout=200)
    assert trainer.returncode == 0
    steps = [json.loads(line)["step"] for line in (out / "training.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))
    assert Run.open(out).finished


@pytest.mark.faults
def test_a_finished_run_is_returned_as_it_is(kiosk_corpus: Corpus, tmp_path: Path) -> None:
    run = start(kiosk_corpus, tmp_path / "run", small(kiosk_corpus))
    assert pretrain_bare(run).fingerprint == pretrain_bare(run).fingerprint
