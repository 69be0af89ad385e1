"""The lines of the first page do what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import userfm
from serving.supervisor import ServerProcess
from userfm.cli import EXTRAS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def beside_the_shop(shop: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The working folder holds the files that the README names, and a server runs; its address."""
    monkeypatch.chdir(shop.folder)
    with ServerProcess(shop.store) as server:
        yield server.address


def test_the_python_lines_run_one_after_another(beside_the_shop: str) -> None:
    lines = "\n".join(blocks("python")).replace("127.0.0.1:50051", beside_the_shop)
    found: dict[str, Any] = {}
    exec(compile(lines, "README.md", "exec"), found)  # noqa: S102
    assert found["logits"].shape == (40, 1)
    assert found["item_vectors"].shape[1] == found["churn"].users.space.width
    assert found["table"].column_names == ["user_id", "item_id", "score", "rank"]
    assert found["stored"].shape == (2, found["churn"].users.space.width)
    assert abs(found["stored"][0] - found["fresh"].vectors[0]).max() < 1e-4
    for ids in (found["nearest"], found["home"], found["found"], found["together"]):
        assert len(ids) == 5


def test_every_public_name_is_shown() -> None:
    shown = "\n".join(blocks("python"))
    for name in set(userfm.__all__) - {"Corpus", "Heads", "UserfmError", "__version__"}:
        assert re.search(rf"\b{name}\b", shown), name


def test_every_command_line_is_a_command(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("userfm ")]
    assert {line.split()[1] for line in lines} == set(EXTRAS) - {"demo"}
    for line in lines:
        options = set(re.findall(r"--[a-z-]+", line))
        command(*line.split()[1 : 3 if line.split()[1] in ("schema", "query") else 2], "--help")
        assert options <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out)), line


def test_the_least_schema_is_enough(command: Any, shop_files: Any, tmp_path: Path) -> None:
    (tmp_path / "schema.yaml").write_text(blocks("yaml")[0])
    assert command("tokenize", tmp_path / "schema.yaml", shop_files.events, "--out", tmp_path / "corpus") == 0


def test_every_file_that_is_linked_is_there() -> None:
    for page in (README, *((ROOT / "docs" / name).read_text() for name in ("architecture.md", "dependencies.md"))):
        for target in re.findall(r"\]\(((?!http)[^)#]+)\)", page):
            assert (ROOT / target).exists() or (ROOT / "docs" / target).exists(), target
