"""A run on a Ray cluster of two nodes, one of whose workers is killed: real processes, killed for real."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tokenization.corpus.corpus import Corpus
from training import pretrain
from training.pretrain import Workers
from training.recipes import small
from training.run import Run, start

pytestmark = [pytest.mark.faults, pytest.mark.timeout(280)]
LOST = 12  # steps after which something dies


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two Ray nodes on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # as in every session of ours
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def long_run(corpus: Corpus, folder: Path) -> Run:
    return start(corpus, folder, replace(small(corpus), epochs=60, checkpoint_seconds=0.0))


def steps_of(run: Run) -> list[int]:
    return [json.loads(line)["step"] for line in run.log.read_text().splitlines() if line.endswith("}")]


def after(run: Run, steps: int, do: Callable[[], None]) -> threading.Thread:
    """Do something once, when the log has so many steps."""

    def wait() -> None:
        while not run.log.exists() or len(steps_of(run)) < steps:
            time.sleep(0.05)
        do()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def training_processes() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(one.info["cmdline"] or [])]


def test_a_killed_worker_is_replaced_and_the_run_ends(two_nodes: Any, kiosk_corpus: Corpus, tmp_path: Path) -> None:
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
    assert run.finished
    assert steps_of(run) == list(range(1, len(steps_of(run)) + 1))
