"""A demo that was cut off goes on where it stopped, and counts the time and memory of all attempts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from userfm.demo.ledger import Figures, Ledger, key_of, resident_bytes


def never() -> Figures:
    raise AssertionError("this stage was done")


def test_a_finished_stage_is_not_done_again(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "stages.json", "key", time.monotonic())
    assert first.fresh
    assert first.stage("one", lambda: {"x": 1}) == {"x": 1}
    again = Ledger(tmp_path / "stages.json", "key", time.monotonic())
    assert not again.fresh
    assert again.done("one")
    assert again.stage("one", never) == {"x": 1}
    assert again.stage("two", lambda: {"y": 2}) == {"y": 2}


def test_a_stage_that_fails_is_done_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "stages.json", "key", time.monotonic())
    ledger.stage("one", lambda: {})
    with pytest.raises(AssertionError):
        ledger.stage("two", never)
    assert list(Ledger(tmp_path / "stages.json", "key", time.monotonic()).seconds) == ["one"]


@pytest.mark.parametrize(("key", "finished"), [("other", False), ("key", True)])
def test_other_settings_and_finished_demos_begin_anew(key: str, finished: bool, tmp_path: Path) -> None:
    first = Ledger(tmp_path / "stages.json", "key", time.monotonic())
    first.stage("one", lambda: {})
    first.save(finished)
    again = Ledger(tmp_path / "stages.json", key, time.monotonic())
    assert again.fresh
    assert not again.done("one")


def test_a_torn_ledger_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text('{"key": "ke')
    assert Ledger(tmp_path / "stages.json", "key", time.monotonic()).fresh


def test_the_time_of_all_attempts_counts(tmp_path: Path) -> None:
    Ledger(tmp_path / "stages.json", "key", time.monotonic() - 100.0).stage("one", lambda: {})
    again = Ledger(tmp_path / "stages.json", "key", time.monotonic() - 10.0)
    assert again.wall_seconds == pytest.approx(110.0, abs=5.0)


def test_memory_of_processes_that_were_started_counts() -> None:
    before = resident_bytes(psutil.Process())
    code = "import sys; block = bytearray(200 << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert resident_bytes(psutil.Process()) - before > 190 << 20
        child.communicate()


def test_the_peak_is_watched_and_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "stages.json", "key", time.monotonic())
    with ledger.watching():
        deadline = time.monotonic() + 20
        while ledger.peak_rss_gib == 0.0 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert ledger.peak_rss_gib > 0.01
    ledger.save()
    assert Ledger(tmp_path / "stages.json", "key", time.monotonic()).peak_rss_gib == ledger.peak_rss_gib


def test_the_key_changes_with_settings_and_sources(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    source = tmp_path / "training" / "loop.py"
    source.write_text("x = 1\n")
    key = key_of(tmp_path, "settings")
    assert key_of(tmp_path, "settings") == key
    assert key_of(tmp_path, "others") != key
    source.write_text("x = 2\n")
    assert key_of(tmp_path, "settings") != key
