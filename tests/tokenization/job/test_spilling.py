from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tokenization.errors import CorpusError
from tokenization.job.spilling import Rows, load, scratch, spill

TABLE = pa.table({"user": ["ann", "bob", "cem"], "n": [1, 2, 3]})


def test_parts_come_back_as_they_were_put_aside(tmp_path: Path) -> None:
    routed = [[(0, TABLE), (2, TABLE.slice(1))], [], [(0, TABLE.slice(2))]]
    paths = spill(routed, 3, TABLE.schema, tmp_path)
    assert [load(path)["n"].to_pylist() for path in paths] == [[1, 2, 3, 3], [], [2, 3]]
    assert load(paths[1]).schema == TABLE.schema


def test_only_the_owner_reads_the_parts_and_they_are_gone_afterwards(tmp_path: Path) -> None:
    left = tmp_path / ".corpus.parts" / "left by a killed process"
    left.mkdir(parents=True)
    with scratch(tmp_path / "corpus") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not left.exists()
        assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="anything"), scratch(tmp_path / "corpus"):
        raise ValueError("anything")
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sentence = "the parts of the log can't be kept here: Not a directory; free some space"
    with pytest.raises(CorpusError, match=sentence), scratch(tmp_path / "file" / "corpus"):
        pass


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
import pyarrow as pa
from tokenization.errors import CorpusError
from tokenization.job.spilling import scratch, spill
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
table = pa.table({{"n": range(100_000)}})
try:
    with scratch(Path({str(tmp_path)!r}) / "corpus") as folder:
        spill([[(0, table)]], 1, table.schema, folder)
except CorpusError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the parts of the log can't be kept here: " in done.stdout
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_rows_put_aside_are_one_table(where: str, tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.arrows" if where == "disk" else None)
    rows.add(TABLE.slice(0, 0))
    rows.add(TABLE)
    rows.add(TABLE.slice(1))
    assert rows.table()["n"].to_pylist() == [1, 2, 3, 2, 3]
