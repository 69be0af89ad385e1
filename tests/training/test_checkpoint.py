from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training import checkpoint
from training.errors import RunError

ROOT = Path(__file__).parents[2]


def state(value: float) -> dict[str, object]:
    return {"model": {"weight": torch.full((3,), value)}, "progress": {"step": int(value), "seconds": 0.5}}


def value_of(folder: Path) -> float | None:
    found = checkpoint.load_newest(folder)
    return None if found is None else float(found["model"]["weight"][0])


def names(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[1] for path in folder.glob("step-*.pt"))


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "nowhere") is None


def test_the_newest_is_read_and_the_one_before_it_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 9_999_999, 10_000_000):
        checkpoint.save(tmp_path / "c", step, state(step))
        assert value_of(tmp_path / "c") == step
    assert names(tmp_path / "c") == ["009999999", "010000000"]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:99] + bytes([b[99] ^ 1]) + b[100:]])
def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage) -> None:
    checkpoint.save(tmp_path, 1, state(1))
    newest = checkpoint.save(tmp_path, 2, state(2))
    newest.write_bytes(damage(newest.read_bytes()))
    assert value_of(tmp_path) == 1


def test_a_torn_checkpoint_does_not_take_the_place_of_a_whole_one(tmp_path: Path) -> None:
    """A run that fell back saves steps below the torn one's: two whole checkpoints are there again soon."""
    checkpoint.save(tmp_path, 10, state(10))
    checkpoint.save(tmp_path, 20, state(20)).write_bytes(b"torn")
    for step in (12, 14):
        checkpoint.save(tmp_path, step, state(step))
    assert names(tmp_path) == ["000000012", "000000014"]
    assert value_of(tmp_path) == 14


def test_none_whole_is_a_sentence(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, state(step)).write_bytes(b"torn")
    with pytest.raises(RunError, match=r"no checkpoint in .* is whole: start the run anew with --restart"):
        checkpoint.load_newest(tmp_path)


@pytest.mark.parametrize("there", [None, 0o755])
def test_the_folder_is_closed_to_others(tmp_path: Path, there: int | None) -> None:
    folder = tmp_path / "run" / "checkpoints"
    if there is not None:
        folder.mkdir(parents=True)
        folder.chmod(there)
    before = os.umask(0)
    try:
        checkpoint.save(folder, 1, state(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_a_crash_left_half_written_is_neither_read_nor_kept(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, state(1))
    left = tmp_path / "step-000000002-0123456789abcdef.tmp"
    left.write_bytes(b"half")
    assert value_of(tmp_path) == 1
    checkpoint.save(tmp_path, 3, state(3))
    assert not left.exists()


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(Path.cwd() / "sprung"),)


def test_loading_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with the right checksum and a trap inside."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save(tmp_path / "c", 1, {"trap": Trap()})
    with pytest.raises(RunError, match=r"no checkpoint in .* is whole: start the run anew with --restart"):
        checkpoint.load_newest(tmp_path / "c")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive of torch's", "an archive cut short", "a trap"])
def test_what_torch_can_not_read_is_passed_over_with_a_warning(
    tmp_path: Path, content: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    """Files with the right checksum: whoever wrote them, or what wrote them, was mistaken."""
    checkpoint.save(tmp_path, 1, state(1))
    if content == "a trap":
        newest = checkpoint.save(tmp_path, 2, {"trap": Trap()})
    else:
        damaged = checkpoint.save(tmp_path, 2, state(2))
        content = damaged.read_bytes()[:300] if isinstance(content, str) else content
        damaged.unlink()
        newest = tmp_path / f"step-000000002-{hashlib.sha256(content).hexdigest()[:16]}.pt"
        newest.write_bytes(content)
    assert value_of(tmp_path) == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"{newest} is damaged, the checkpoint before it is taken" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_checkpoint_that_can_not_be_opened_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint.save(tmp_path, 1, state(1))
    newest = checkpoint.save(tmp_path, 2, state(2))
    newest.unlink()
    newest.mkdir()
    assert value_of(tmp_path) == 1
    assert str(newest) in caplog.text


def test_what_is_written_is_the_state_as_it_was_when_writing_began(tmp_path: Path) -> None:
    weight = torch.ones(1_000_000)
    with checkpoint.Saver(tmp_path) as saver:
        saver.begin(1, checkpoint.copied({"model": {"weight": weight}}))
        weight += 1
    found = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert float(found["model"]["weight"].max()) == 1.0


def test_one_is_written_after_the_other_and_the_last_before_the_run_ends(tmp_path: Path) -> None:
    with checkpoint.Saver(tmp_path) as saver:
        for step in range(1, 6):
            saver.begin(step, state(step))
        saver.last(6, state(6))
        assert names(tmp_path) == ["000000005", "000000006"]


FULL = """
import logging, resource, signal, sys
from pathlib import Path
import torch
from training import checkpoint

logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
small, large = ({"model": {"weight": torch.ones(size)}} for size in (10, 100_000))
with checkpoint.Saver(folder) as saver:
    saver.begin(1, small)
    saver.begin(2, large)
    saver.begin(3, small)
    try:
        saver.last(4, large)
    except OSError:
        print("the last one failed")
"""


def test_a_full_disk_leaves_the_checkpoint_before_and_only_the_last_one_must_be_written(tmp_path: Path) -> None:
    limited = f"ulimit -f 8; exec {sys.executable} -c '{FULL}' {tmp_path}"  # blocks of 1,024 bytes
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "no checkpoint was written, the one before it stands" in done.stdout
    assert "the last one failed" in done.stdout
    assert names(tmp_path) == ["000000001", "000000003"]
    assert not list(tmp_path.glob("*.tmp"))
