"""What lies in run folders: what was asked, how far training came, how good it is. Reads files, and nothing else.

No torch is needed, so a list of many runs is there at once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from training.errors import RunError
from training.metrics import Floats
from training.tables import flatten

Figures = dict[str, float | None]

TAIL_BYTES = 1 << 18  # of a log: some hundred steps
RECENT = 20  # steps over which a loss is told
QUIET_SECONDS = 60.0  # without a new line after which nothing trains any more,
QUIET_STEPS = 10  # if steps are not that long

# What every log is read as; a column that an older one lacks is null. Parts of the loss come as they are called.
COLUMNS = pa.schema(
    [(name, pa.int64()) for name in ("step", "steps", "tokens", "stage", "history")]
    + [
        (name, pa.float64())
        for name in ("seconds", "loss", "tokens_per_second", "rate", "gradient_norm", "data_wait", "memory_gib", "mfu")
    ]
)


class State(StrEnum):
    """Where a run stands."""

    FINISHED = "finished"  # its model is written
    RUNNING = "running"  # its log grew a moment ago
    STOPPED = "stopped"  # neither: the same command continues it


@dataclass(frozen=True)
class Asked:
    """What run.json says. settings: the recipe as (dotted name, value), and the corpus and how far into it. name,
    changes: of the named recipe that it comes from, {setting: [there, here]}; empty where nobody noted it."""

    settings: Mapping[str, Any]
    name: str
    changes: Mapping[str, Sequence[Any]]
    split: Mapping[str, Any]


@dataclass(frozen=True)
class FoundRun:
    """One run as it lies on disk. log: its newest records. judged: figures of each part that it was evaluated on."""

    folder: Path
    state: State
    asked: Asked
    log: pa.Table
    judged: Mapping[str, Mapping[str, Any]]

    @property
    def changes(self) -> dict[str, Any]:
        """Settings that the recipe changes, each by the name that `--set` takes for it."""
        return {_short(name, self.asked.settings): here for name, (_, here) in self.asked.changes.items()}

    def figures(self) -> Figures:
        """How far and how fast it came, and how good it is; None is what nobody knows yet.

        loss and its parts are means of the newest steps, data_wait and mfu of some hundred.
        """
        told: Figures = dict.fromkeys(("step", "steps", "minutes", "tokens", "tokens_per_second", "loss"))
        log, told = self.log, told | dict.fromkeys(("data_wait", "mfu", "memory_gib"))
        if log.num_rows:
            last = log.slice(log.num_rows - 1).to_pylist()[0]
            told |= {name: last[name] for name in ("step", "steps", "tokens", "tokens_per_second", "memory_gib")}
            told |= {"minutes": last["seconds"] / 60, "data_wait": _mean(log, "data_wait"), "mfu": _mean(log, "mfu")}
            recent = log.slice(max(log.num_rows - RECENT, 0))
            told |= {name: _mean(recent, name) for name in log.column_names if name.startswith("loss")}
        return told | dict(_quality(self.judged))

    def ndcg(self) -> tuple[float | None, str]:
        """NDCG@10 of the model on all items, and the part that it is of: the test part where it was judged on that."""
        for part in sorted(self.judged, key=lambda part: part != "test"):
            found = self.judged[part].get("model", {}).get("all", {}).get("ndcg@10")
            if found is not None:
                return float(found), part
        return None, ""


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Run folders at and below these, in order of their paths. Raises RunError where there is none."""
    for folder in folders:
        if not folder.is_dir():
            raise RunError(f"{folder} is no folder: name a run, or a folder that holds runs")
    found = sorted({path for folder in folders for path in _below(folder)})
    if not found:
        raise RunError(f"no run lies at or below {', '.join(map(str, folders))}: make one with `userfm train`")
    return found


def _below(folder: Path) -> Iterator[Path]:
    for here, deeper, files in os.walk(folder):
        if "run.json" in files:
            yield Path(here)
            deeper.clear()  # a run holds no other
        deeper[:] = [name for name in deeper if not name.startswith(".")]


def read_run(folder: Path, now: float | None = None) -> FoundRun:
    """One run. now: epoch seconds at which it is looked at. Raises RunError where the folder is no run."""
    asked, log = read_asked(folder), read_log(folder / "training.jsonl", TAIL_BYTES)
    state = _state(folder, log, time.time() if now is None else now)
    return FoundRun(folder, state, asked, log, _judged(folder))


def read_asked(folder: Path) -> Asked:
    """What run.json says. Raises RunError where there is none, or another program's."""
    try:
        told = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        settings: dict[str, Any] = {"corpus": told["corpus"], "until": told["until"], **dict(flatten(told["recipe"]))}
        for name in ("update", "finetune", "distill"):
            settings |= {f"{name}.{path}": value for path, value in flatten(told.get(name) or {})}
        return Asked(settings, told.get("name", ""), told.get("changes", {}), told["split"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder} is no training run (run.json: {error}); make one with `userfm train`") from error


def read_log(path: Path, newest_bytes: int = 0) -> pa.Table:
    """training.jsonl as a table, `COLUMNS` and a column `loss.<name>` for each part of the loss; a line that is not
    whole yet is left out. newest_bytes: read only the lines in so many bytes at its end. Raises RunError for another
    file."""
    if not path.exists():
        return COLUMNS.empty_table()
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(size - newest_bytes, 0) if newest_bytes else 0
        file.seek(start)
        if start:
            file.readline()  # the rest of a line that began before
        told = file.read()
    told = told[: told.rfind(b"\n") + 1]
    if not told:
        return COLUMNS.empty_table()
    try:
        options = pa.json.ParseOptions(explicit_schema=COLUMNS, unexpected_field_behavior="infer")
        found = pa.json.read_json(pa.BufferReader(told), parse_options=options).flatten()
    except pa.ArrowInvalid as error:
        raise RunError(f"{path} can't be read ({error}): is it the log of a run?") from error
    return found.rename_columns([name.replace("losses.", "loss.", 1) for name in found.column_names])


def column(log: pa.Table, name: str) -> Floats:
    """A column of a log as floats; not-a-number where it is not known."""
    return np.asarray(log[name].to_numpy(), dtype=np.float64)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Settings of two recipes (as JSON has them) that differ: {dotted name: [of one, of the other]}."""
    both = dict(flatten(one)), dict(flatten(other))
    names = [*both[0], *(name for name in both[1] if name not in both[0])]
    return {name: [side.get(name) for side in both] for name in names if both[0].get(name) != both[1].get(name)}


def said(value: Any) -> str:
    """A setting as `--set` takes it, where it takes such settings."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ":".join(said(part) for part in value.values())
    if isinstance(value, list):
        return ",".join(said(part) for part in value) or "none"
    return "–" if value is None else str(value)


def compared(runs: Sequence[FoundRun]) -> dict[str, list[Any]]:
    """Settings in which not all of these runs agree: {name: [of each run]}; None where a run knows no such setting."""
    names = dict.fromkeys(name for run in runs for name in run.asked.settings)
    rows = {name: [run.asked.settings.get(name) for run in runs] for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def note_evaluation(folder: Path, part: str, figures: Mapping[str, Any]) -> None:
    """Keep the figures of one part in RUN/evaluation.json, in place of earlier ones of that part."""
    path = folder / "evaluation.json"
    told = {**(_read_json(path) if path.exists() else {}), part: figures}
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    fresh.rename(path)


def _judged(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    if (path := folder / "evaluation.json").exists():
        return _read_json(path)
    for name in ("report.json", "figures.json"):  # what an earlier userfm was told to write there
        if (path := folder / name).exists() and (found := _read_json(path).get("evaluation")):
            return {str(found.get("protocol", {}).get("part", "test")): found}
    return {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(told, dict):
            return told
        raise ValueError("it is no JSON object")
    except ValueError as error:
        raise RunError(f"{path} can't be read ({error}): judge the run again with `userfm evaluate`") from error


def _state(folder: Path, log: pa.Table, now: float) -> State:
    if (folder / "model" / "space.json").exists():
        return State.FINISHED
    places = (folder / name for name in ("training.jsonl", "attempts.jsonl", "run.json"))
    grew = max(place.stat().st_mtime for place in places if place.exists())
    pace = log["seconds"][-1].as_py() / max(log["step"][-1].as_py(), 1) if log.num_rows else 0.0
    return State.RUNNING if now - grew <= max(QUIET_SECONDS, QUIET_STEPS * pace) else State.STOPPED


def _mean(log: pa.Table, name: str) -> float | None:
    values = column(log, name)
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _quality(judged: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """Figures of the model and of the stored vectors alone, by a name such as `test.model.new.recall@50`."""
    for part, figures in judged.items():
        for name in ("model", "embedding"):
            for path, value in flatten(figures.get(name, {}), f"{part}.{name}."):
                if isinstance(value, int | float):
                    yield path, float(value)


def _short(name: str, settings: Mapping[str, Any]) -> str:
    """The last word of a setting, where `--set` takes that to be this one."""
    last = name.rsplit(".", 1)[-1]
    alike = [other for other in settings if other.rsplit(".", 1)[-1] == last]
    outer = min((other.count(".") for other in alike), default=0)
    return last if [other for other in alike if other.count(".") == outer] == [name] else name
