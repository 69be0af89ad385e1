"""Each time that a run's training began: what on, with what software, from which step.

RUN/attempts.jsonl has one line an attempt. A run that was never cut off has one; where there are more, whatever was
logged after the step that the next one goes on from was thrown away and done again.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import torch

from training.errors import RunError

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Attempt:
    """at: epoch seconds. step: of the checkpoint that it goes on from, 0 at the beginning. device: its name. ranks:
    how many such devices. threads: of torch, on each. userfm, torch: versions. commit: of the checkout, where it runs
    from one."""

    at: float
    step: int
    device: str
    ranks: int
    threads: int
    userfm: str
    commit: str
    torch: str


def note(folder: Path, step: int, device: torch.device, ranks: int) -> None:
    """Write down that training begins now."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    begun = Attempt(time.time(), step, name, ranks, torch.get_num_threads(), _version(), _commit(), torch.__version__)
    with (folder / "attempts.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(begun)) + "\n")


def attempts(folder: Path) -> list[Attempt]:
    """All attempts of a run, none where it is older than this file. Raises RunError where a line can't be read."""
    path = folder / "attempts.jsonl"
    if not path.exists():
        return []
    try:
        return [Attempt(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} can't be read ({error}): delete it, it is for reports only") from error


def _version() -> str:
    try:
        return metadata.version("userfm")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return ""


def _commit() -> str:
    """Of a checkout, with a + where files differ from it; nothing of an installed package, or without git."""
    if not (ROOT / ".git").exists():
        return ""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):  # no git, or a checkout of somebody else: the commit is unknown
        return ""
    return head + ("+" if changed else "")


def _git(*command: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()
