from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from serving.durable import locked, new_folder, write_file


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        write_file(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def stopped_halfway() -> None:
        with new_folder(tmp_path / "made") as scratch:
            (scratch / "half").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stopped_halfway()
    assert not list(tmp_path.iterdir())
    with new_folder(tmp_path / "made") as scratch:
        (scratch / "whole").write_text("x")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "whole").read_text() == "x"


def _hold(path: Path, held: multiprocessing.Event, let_go: multiprocessing.Event) -> None:
    with locked(path):
        held.set()
        let_go.wait()


def test_a_lock_is_free_once_its_holder_is_dead(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    held, let_go = spawn.Event(), spawn.Event()
    holder = spawn.Process(target=_hold, args=(tmp_path / "lock", held, let_go))
    holder.start()
    held.wait()
    holder.kill()
    holder.join()
    with locked(tmp_path / "lock"):
        pass
