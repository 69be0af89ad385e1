"""A training that dies by SIGKILL loses no more than the steps since its last checkpoint, and ends the same."""

from __future__ import annotations

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
from training.pretrain import Run, pretrain_bare, start
from training.recipes import small

TRAINER = """
    import sys
    import torch
    from training.pretrain import Run, pretrain_bare

    torch.set_num_threads(1)
    pretrain_bare(Run.open(sys.argv[1]))
"""


def begin(corpus: Corpus, folder: Path) -> Run:
    recipe = replace(small(corpus), epochs=60, checkpoint_seconds=0.0)
    return start(corpus, folder, recipe)


def train_in_a_process(run: Run) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(TRAINER), str(run.folder)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"})


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


@pytest.mark.faults
def test_a_finished_run_is_returned_as_it_is(kiosk_corpus: Corpus, tmp_path: Path) -> None:
    run = start(kiosk_corpus, tmp_path / "run", small(kiosk_corpus))
    assert pretrain_bare(run).fingerprint == pretrain_bare(run).fingerprint
