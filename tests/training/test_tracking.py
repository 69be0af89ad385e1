"""MLflow is told of a run where it is asked for, and can't hurt one."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from training.errors import Stopped
from training.progress import StepRecord
from training.run import Run
from training.tracking import _Calls, asked_for, track_figures, tracking

MISSING = "mlflow-skinny, sqlalchemy and alembic are not installed: pip install 'userfm[mlflow]' sqlalchemy alembic"


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Path:
    """A finished run that nobody was told of."""
    return Path(shutil.copytree(trained.folder, tmp_path / "run"))


def records(folder: Path) -> list[StepRecord]:
    return [StepRecord(**json.loads(line)) for line in (folder / "training.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store of MLflow in a file, whose tables take seconds to make."""
    for name in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name, reason=MISSING)
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def server(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The client of a real store, the one that is asked for."""
    from mlflow import MlflowClient

    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "kiosk")
    monkeypatch.chdir(tmp_path)  # artifacts lie below the working folder
    return MlflowClient()


def only_run(server: Any) -> Any:
    (found,) = server.search_runs([server.get_experiment_by_name("kiosk").experiment_id])
    return found


def test_nothing_happens_unless_it_is_asked_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tracking(run, pytest.fail) as tell:
        tell(records(run)[0])
    track_figures(run, "test", {"a": 1.0}, pytest.fail)
    assert not (run / "mlflow.json").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert asked_for() == (importlib.util.find_spec("mlflow") is not None)


def test_a_server_has_settings_steps_and_page_of_a_run(run: Path, server: Any) -> None:
    with tracking(run, pytest.fail) as tell:
        for record in records(run):
            tell(record)
    found, last = only_run(server), records(run)[-1]
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params["model.width"] == "16"
    assert found.data.params["seed"] == "3"
    assert found.data.metrics["loss/total"] == pytest.approx(last.loss)
    assert set(found.data.metrics) == set(last.scalars())
    history = server.get_metric_history(found.info.run_id, "loss/total")
    assert [point.step for point in history] == [record.step for record in records(run)]
    assert [file.path for file in server.list_artifacts(found.info.run_id)] == ["training.html"]


def test_a_run_that_goes_on_and_its_evaluation_are_told_of_the_same_run(run: Path, server: Any) -> None:
    for part in (records(run)[:3], records(run)[3:6]):
        with tracking(run, pytest.fail) as tell:
            for record in part:
                tell(record)
    figures = {"model": {"all": {"ndcg@10": 0.25}}, "protocol": {"told": ["store"], "users": 3}, "nan": math.nan}
    track_figures(run, "test", figures, pytest.fail)
    found = only_run(server)
    assert found.data.metrics["test/model/all/ndcg_at_10"] == 0.25
    assert found.data.metrics["test/protocol/users"] == 3
    history = server.get_metric_history(found.info.run_id, "loss/total")
    assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_another_server_knew_begins_anew_and_says_so(run: Path, server: Any) -> None:
    (run / "mlflow.json").write_text('{"run_id": "0123456789abcdef0123456789abcdef"}')
    warned: list[str] = []
    with tracking(run, warned.append) as tell:
        tell(records(run)[0])
    (said,) = warned
    assert said.startswith("MLflow does not go on with run 0123456789abcdef0123456789abcdef, a new one is begun: ")
    assert json.loads((run / "mlflow.json").read_text())["run_id"] == only_run(server).info.run_id


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (Stopped, "KILLED"), (ValueError, "FAILED")]
)
def test_how_a_run_ended_is_told(run: Path, server: Any, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), tracking(run, pytest.fail):
        raise error
    assert only_run(server).info.status == status


def test_a_server_that_fails_is_one_warning_and_the_training_goes_on(
    run: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warned: list[str] = []
    with tracking(run, warned.append) as tell:
        for record in records(run):
            tell(record)
    (warning,) = warned
    assert warning.startswith("MLflow is told nothing more of this run: ")


def test_calls_come_in_order_and_none_after_one_that_failed() -> None:
    warned: list[str] = []
    done: list[int] = []
    calls = _Calls(warned.append)
    calls.later(lambda: done.append(1))
    calls.later(lambda: done.append(1 // 0))
    calls.later(lambda: done.append(3))
    calls.end(10)
    assert done == [1]
    assert warned == ["MLflow is told nothing more of this run: integer division or modulo by zero"]


def test_nobody_waits_for_a_server_longer_than_asked() -> None:
    warned: list[str] = []
    calls = _Calls(warned.append)
    calls.later(lambda: time.sleep(3))
    begun = time.monotonic()
    calls.end(0.1)
    assert time.monotonic() - begun < 2
    assert warned == ["MLflow has not answered for 0 s: what it was not told of this run is in the log"]
