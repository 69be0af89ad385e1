"""A run on a Ray cluster whose workers, machines, driver and checkpoints are lost: real processes, killed for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tokenization.corpus.corpus import Corpus
from training import checkpoint, pretrain
from training.pretrain import Workers
from training.recipes import small
from training.run import Run, start

pytestmark = [pytest.mark.faults, pytest.mark.timeout(280)]
LOST = 12  # steps after which something dies
EPOCHS = 60
ROOT = Path(__file__).parents[2]


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two Ray nodes on this machine; `second` is the one without the cluster's head."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # as in every session of ours
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.second = cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def connected(two_nodes: Any) -> Iterator[Any]:
    """The same, with this process as its driver."""
    import ray

    ray.init(address=two_nodes.address, log_to_driver=False)
    yield two_nodes
    ray.shutdown()


def long_run(corpus: Corpus, folder: Path) -> Run:
    return start(corpus, folder, replace(small(corpus), epochs=EPOCHS, checkpoint_seconds=0.0))


def driver(corpus: Corpus, out: Path, *more: str, epochs: int = EPOCHS) -> subprocess.Popen[str]:
    """`userfm train` of such a run, in a process of its own."""
    settings = ("--recipe", "small", "--set", f"epochs={epochs}", "--set", "checkpoint_seconds=0")
    command = [sys.executable, "-m", "userfm", "train", str(corpus.folder), "--out", str(out), *settings, *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def steps_of(run: Path) -> list[int]:
    log = run / "training.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines() if line.endswith("}")]


def wait_for(run: Path, steps: int) -> None:
    while not (run / "training.jsonl").exists() or len(steps_of(run)) < steps:
        time.sleep(0.05)


def after(run: Run, steps: int, do: Callable[[], None]) -> threading.Thread:
    """Do something once, when the log has so many steps."""

    def wait() -> None:
        wait_for(run.folder, steps)
        do()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def training_processes() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(one.info["cmdline"] or [])]


def assert_whole(run: Path) -> None:
    """Every step stands in the log once, and the model is written."""
    assert (run / "model" / "space.json").exists()
    assert steps_of(run) == list(range(1, len(steps_of(run)) + 1))


def test_a_killed_worker_is_replaced_and_the_run_ends(connected: Any, kiosk_corpus: Corpus, tmp_path: Path) -> None:
    run = long_run(kiosk_corpus, tmp_path / "run")
    killed: list[int] = []

    def kill() -> None:
        process = training_processes()[0]
        killed.append(process.pid)
        os.kill(process.pid, signal.SIGKILL)

    killer = after(run, LOST, kill)
    pretrain.pretrain(run, Workers(2))
    killer.join(1)
    assert killed
    assert_whole(run.folder)


def test_a_lost_machine_leaves_a_run_that_goes_on_with_fewer_workers(
    connected: Any, kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    run = long_run(kiosk_corpus, tmp_path / "run")
    lost = after(run, LOST, lambda: connected.remove_node(connected.second, allow_graceful=False))
    # Four on two machines of one CPU, each worker taking a half of one: two are left.
    pretrain.pretrain(run, Workers(most=4, least=1))
    lost.join(1)
    assert not lost.is_alive()
    assert_whole(run.folder)
    ranks = [json.loads(line)["ranks"] for line in (run.folder / "attempts.jsonl").read_text().splitlines()]
    assert ranks[0] == 4
    assert ranks[-1] < 4


def test_the_same_command_trains_on_a_cluster_that_runs_already(
    two_nodes: Any, kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    made = driver(kiosk_corpus, tmp_path / "run", "--workers", "2", "--address", two_nodes.address)
    told, _ = made.communicate(timeout=240)
    assert made.returncode == 0, told
    assert_whole(tmp_path / "run")
    # A guest ends nothing but its own work.
    assert two_nodes.head_node.remaining_processes_alive()


def test_a_killed_driver_leaves_a_run_that_the_same_command_ends_even_from_a_torn_checkpoint(
    kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    epochs = 10 * EPOCHS  # workers that are orphans for a while must not come to the end of it
    made = driver(kiosk_corpus, out, epochs=epochs)
    wait_for(out, LOST)
    os.kill(made.pid, signal.SIGKILL)
    made.wait(10)
    # Its workers find out by themselves; until then they go on writing.
    gone = time.monotonic() + 60
    while training_processes() and time.monotonic() < gone:
        time.sleep(0.2)
    assert not training_processes()
    newest = checkpoint.newest_step(out / "checkpoints")
    tear(out / "checkpoints", newest)
    assert checkpoint.newest_step(out / "checkpoints") < newest
    again = driver(kiosk_corpus, out, epochs=epochs)
    told, _ = again.communicate(timeout=240)
    assert again.returncode == 0, told
    assert_whole(out)
    begun = [json.loads(line)["step"] for line in (out / "attempts.jsonl").read_text().splitlines()]
    assert begun[0] == 0 < begun[-1] < newest


def tear(checkpoints: Path, step: int) -> None:
    """Flip a bit in the middle of what was saved at that step."""
    (file,) = checkpoints.glob(f"step-{step:09d}-*")
    written = bytearray(file.read_bytes())
    written[len(written) // 2] ^= 1
    file.write_bytes(written)
