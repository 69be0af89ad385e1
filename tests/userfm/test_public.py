"""What `import userfm` offers, and what it says where something is missing or in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import userfm

ROOT = Path(__file__).parents[2]


def python(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds the checkout behind `folder`."""
    found = f"import sys; sys.path.append({str(ROOT)!r})\n"
    return subprocess.run([sys.executable, "-c", found + code], cwd=folder, capture_output=True, text=True, check=False)


def test_the_public_names_are_these() -> None:
    assert userfm.__all__ == [
        "Corpus",
        "EmbeddingClient",
        "EmbeddingStore",
        "EventSchema",
        "FoundationModel",
        "Heads",
        "Run",
        "Subgraph",
        "Tokenizer",
        "UserfmError",
        "__version__",
        "exported",
        "exported_inputs",
        "recommend",
        "rows_of",
    ]


@pytest.mark.parametrize("name", userfm.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(userfm, name) is not None
    assert name in dir(userfm)


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert userfm.__version__ == project["version"]


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Embeddings'; it has .*EmbeddingStore"):
        userfm.Embeddings  # noqa: B018
    assert not hasattr(userfm, "Embeddings")


def test_it_is_typed() -> None:
    assert (ROOT / "userfm" / "py.typed").exists()


@pytest.mark.parametrize(
    ("name", "absent", "extra"),
    [
        ("Subgraph", "torch", "model"),
        ("FoundationModel", "torch", "model"),
        ("EventSchema", "pydantic", "model"),
        ("Tokenizer", "pyarrow", "model"),
        ("EmbeddingStore", "lance", "serve"),
        ("recommend", "torch", "train"),
    ],
)
def test_a_missing_extra_is_named_with_the_line_that_installs_it(name: str, absent: str, extra: str) -> None:
    done = python(f"""
import importlib.abc
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {absent!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())
import userfm
try:
    userfm.{name}
except ImportError as error:
    print(error)
""")
    assert done.stdout.strip() == (
        f"userfm.{name} needs {absent}, which is not installed; run: pip install 'userfm[{extra}]'"
    ), done.stderr


@pytest.mark.parametrize("package", ["serving", "training"])
def test_a_package_of_the_same_name_is_told_apart(package: str, tmp_path: Path) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("")
    name = {"serving": "EmbeddingStore", "training": "recommend"}[package]
    done = python(
        f"""
import userfm, userfm.client
from userfm import EmbeddingClient, Subgraph
try:
    userfm.{name}
except ImportError as error:
    print(error)
""",
        tmp_path,
    )
    assert done.stdout.startswith(f"userfm.{name} needs userfm's own package '{package}'"), done.stderr
    assert str(tmp_path / package) in done.stdout
    assert "userfm.client" in done.stdout


def test_a_command_in_such_a_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "__init__.py").write_text("")
    serve = [sys.executable, "-m", "userfm", "serve", "store"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(serve, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("userfm: `userfm serve` needs userfm's own package 'serving'")
