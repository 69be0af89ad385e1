"""A run beside others on an MLflow server: where MLflow is installed and MLFLOW_TRACKING_URI names one.

Settings become parameters, what the log has of each step metrics, RUN/training.html an artifact. RUN/mlflow.json keeps
the run's id there, so that a training that goes on, and an evaluation weeks later, are told of the same run. The
experiment is that of MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID, as for any program that tracks with MLflow.

Whatever the server does, a training goes on: calls wait in a thread of their own, and the first that fails is one
warning and the last.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tokenization.errors import first_line
from training.errors import Stopped
from training.progress import StepRecord
from training.runs import read_asked, said
from training.tables import flatten

Warn = Callable[[str], None]
Told = tuple[str, float, int]
"""A metric: its name, its value, the step."""

EVERY_SECONDS = 5.0  # between two batches of metrics,
MOST_METRICS = 500  # unless there are as many before; servers take 1,000 a call,
MOST_PARAMETERS = 100  # so many parameters,
LONGEST = 500  # and so many characters of one: MLflow's limits of its REST API
PATIENCE = 30.0  # seconds to wait for the server when all is said


def asked_for() -> bool:
    """Whether somebody named a server, and MLflow is there to talk to it."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) and importlib.util.find_spec("mlflow") is not None


@contextmanager
def tracking(folder: Path, warn: Warn, patience: float = PATIENCE) -> Iterator[Callable[[StepRecord], None]]:
    """A callback for the steps of a training; when it is over, its page goes along. Nothing happens unless `asked_for`.

    warn: is told what went wrong with the server. patience: seconds to wait for it at the end.
    """
    if not asked_for():
        yield lambda record: None
        return
    calls = _Calls(warn)
    here = _Tracked(folder, warn)
    steps = _Steps(calls, here)
    calls.later(here.open)
    status = "FAILED"
    try:
        yield steps
        status = "FINISHED"
    except (KeyboardInterrupt, Stopped):
        status = "KILLED"
        raise
    finally:
        steps.flush()
        calls.later(partial(here.close, status))
        calls.end(patience)


def track_figures(folder: Path, name: str, figures: Mapping[str, Any], warn: Warn, patience: float = PATIENCE) -> None:
    """Figures of a run that was tracked while it trained, as metrics `name/..`; nothing happens where it was not."""
    if not asked_for() or not (folder / "mlflow.json").exists():
        return
    told = {f"{name}/{path.replace('.', '/')}": value for path, value in flatten(figures)}
    numbers: list[Told] = [(path, float(value), 0) for path, value in told.items() if isinstance(value, int | float)]
    calls, here = _Calls(warn), _Tracked(folder, warn)
    calls.later(here.open)
    for some in _batches(numbers, MOST_METRICS):
        calls.later(partial(here.metrics, some))
    calls.later(partial(here.close, "FINISHED"))
    calls.end(patience)


class _Calls:
    """Calls to a server, one after another in a thread, until one fails."""

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def later(self, call: Callable[[], None] | None) -> None:
        """After those before it; never, where one of them failed."""
        if self._thread.is_alive():
            self._waiting.put(call)

    def end(self, patience: float) -> None:
        """Wait until all is said, or so many seconds."""
        self.later(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._warn(f"MLflow has not answered for {patience:.0f} s: what it was not told of this run is in the log")

    def _work(self) -> None:
        while (call := self._waiting.get()) is not None:
            try:
                call()
            except Exception as error:  # noqa: BLE001  of whatever a server, its client or its database may raise
                self._warn(f"MLflow is told nothing more of this run: {first_line(error)}")
                return


class _Steps:
    """Collects metrics of steps, and sends them now and then."""

    def __init__(self, calls: _Calls, here: _Tracked) -> None:
        self._calls, self._here = calls, here
        self._metrics: list[Told] = []
        self._sent = time.monotonic()

    def __call__(self, record: StepRecord) -> None:
        self._metrics += [(name, value, record.step) for name, value in record.scalars().items()]
        if len(self._metrics) >= MOST_METRICS or time.monotonic() - self._sent > EVERY_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what was collected."""
        metrics, self._metrics, self._sent = self._metrics, [], time.monotonic()
        self._calls.later(partial(self._here.metrics, metrics))


class _Tracked:
    """A run on the server. All of it is called in one thread."""

    def __init__(self, folder: Path, warn: Warn) -> None:
        self._folder, self._warn = folder, warn
        self._client: Any = None
        self._id = ""

    def open(self) -> None:
        """Find the run that this one was before, or make one."""
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._client, note = MlflowClient(), self._folder / "mlflow.json"
        if note.exists():
            try:
                self._id = json.loads(note.read_text(encoding="utf-8"))["run_id"]
                self._client.update_run(self._id, status="RUNNING")
                return
            except MlflowException as error:  # another server, or deleted there
                self._warn(f"MLflow does not go on with run {self._id}, a new one is begun: {first_line(error)}")
        self._id = self._client.create_run(self._experiment(), run_name=self._folder.resolve().name).info.run_id
        note.write_text(json.dumps({"run_id": self._id}) + "\n", encoding="utf-8")
        self._parameters()

    def metrics(self, told: list[Told]) -> None:
        """Tell some."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_name(name), value, now, step) for name, value, step in told if math.isfinite(value)]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, status: str) -> None:
        """Say how it ended, and leave the page of the training there."""
        page = self._folder / "training.html"
        if page.exists():
            self._client.log_artifact(self._id, str(page))
        self._client.set_terminated(self._id, status)

    def _parameters(self) -> None:
        from mlflow.entities import Param

        asked = read_asked(self._folder)
        settings = {"recipe": asked.name or "not noted", **asked.settings}
        parameters = [Param(_name(name), said(value)[:LONGEST]) for name, value in settings.items()]
        for some in _batches(parameters, MOST_PARAMETERS):
            self._client.log_batch(self._id, params=some)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if not name:
            return os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))


def _name(name: str) -> str:
    """As MLflow takes names: ndcg@10 is ndcg_at_10 there."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))


def _batches(values: list[Any], most: int) -> Iterator[list[Any]]:
    return (values[start : start + most] for start in range(0, len(values), most))
