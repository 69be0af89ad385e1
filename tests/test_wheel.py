"""The wheel in a stranger's repository that owns a training/, a serving/ and protos/ of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serving.store import EmbeddingStore
from serving.supervisor import ServerProcess
from tokenization.corpus.corpus import Corpus
from training.pretrain import pretrain_bare
from training.push import push
from training.recipes import small
from training.run import Run, start

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BASE = ("numpy", "numpy.libs", "grpc", "google", "typer", "rich", "pygments", "markdown_it", "mdurl", "shellingham")
"""What the base install brings, as folders of site-packages."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout; its build backend comes from the package index."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if done.returncode and "hatchling" in done.stderr + done.stdout and not list(out.iterdir()):
        pytest.skip("building the wheel needs hatchling, which could not be fetched: pip needs a package index")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


def environment(folder: Path, wheel: Path, packages: Path) -> Path:
    """The python of a new environment with the wheel, which finds everything else in `packages`."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "packages.pth").write_text(f"{packages}\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return python


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and every package of this one."""
    return environment(tmp_path_factory.mktemp("whole") / "venv", wheel, Path(sysconfig.get_path("purelib")))


@pytest.fixture(scope="module")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what the base install brings: no torch, no pyarrow."""
    packages = tmp_path_factory.mktemp("packages")
    here = Path(sysconfig.get_path("purelib"))
    for name in BASE:
        if (here / name).exists():
            (packages / name).symlink_to(here / name)
    for module in (*here.glob("typing_extensions.py"), *here.glob("annotated_doc"), *here.glob("click")):
        (packages / module.name).symlink_to(module)
    return environment(tmp_path_factory.mktemp("bare") / "venv", wheel, packages)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's repository; its packages have our names and nothing of ours."""
    folder = tmp_path_factory.mktemp("stranger")
    for name in ("training", "serving", "protos"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("ours = True\n")
    return folder


@pytest.fixture(scope="module")
def run(kiosk_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained model."""
    made = start(kiosk_corpus, tmp_path_factory.mktemp("trained") / "run", replace(small(kiosk_corpus), epochs=1))
    pretrain_bare(made)
    return made


@pytest.fixture(scope="module")
def address(run: Run, kiosk_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of that model, from this checkout."""
    store = EmbeddingStore(tmp_path_factory.mktemp("served") / "store")
    store.publish(push(run, kiosk_corpus, store))
    with ServerProcess(store.root) as server:
        yield server.address


def said(python: Path, folder: Path, code: str) -> str:
    """What a script in `folder` prints."""
    (folder / "script.py").write_text(code)
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(python), "script.py"], cwd=folder, env=plain, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_packages_and_their_files_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "tokenization",
        "foundation",
        "serving",
        "training",
        "userfm",
    }
    for wanted in (
        "userfm/py.typed",
        "userfm/complete_journey.yaml",
        "userfm/v1/embedding_pb2.pyi",
        "training/report_template.html",
    ):
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_a_real_checkpoint_loads_beside_a_strangers_packages(python: Path, stranger: Path, run: Run) -> None:
    code = f"""
import serving, training, protos
assert serving.ours and training.ours and protos.ours
import userfm, foundation
assert "site-packages" in userfm.__file__ and "site-packages" in foundation.__file__
import pyarrow as pa
subgraph = userfm.Subgraph.from_pretrained({str(run.model)!r})
events = pa.table({{name: [value] for name, value in dict(
    customer="new", time=8.0e6, visit="1", action="buy", store="s1", article=103, coupon=None, quantity=1.0, shelf="a"
).items()}})
users, batch = subgraph.tokenize(events)
print(users.to_pylist(), tuple(subgraph(batch).shape), subgraph.space.width)
"""
    users, *_ = said(python, stranger, code).split("] ")
    assert users == "['new'"


def test_what_needs_our_serving_names_the_client(python: Path, stranger: Path) -> None:
    code = """
import userfm
for name in ("EmbeddingStore", "recommend"):
    try:
        getattr(userfm, name)
    except ImportError as error:
        print(error)
"""
    lines = said(python, stranger, code).splitlines()
    assert len(lines) == 2
    assert "'serving'" in lines[0]
    assert "'training'" in lines[1]
    assert all("userfm.client" in line and str(stranger) in line for line in lines)


def test_the_client_calls_a_server_without_torch(bare_python: Path, stranger: Path, address: str) -> None:
    code = f"""
import importlib.util, sys
assert all(importlib.util.find_spec(name) is None for name in ("torch", "pyarrow", "lance", "ray", "pydantic"))
import serving
from userfm.client import EmbeddingClient
with EmbeddingClient({address!r}) as client:
    served = client.space()
    found = client.lookup_users(["c01", "c02"])
    assert found.found.all() and found.vectors.shape == (2, served.space.width)
    visit = dict(customer="new", time=8.0e6, visit="1", action="buy", article=103)
    print(client.encode([visit]).users.tolist(), len(client.score_home([visit], k=5).rankings[0].ids))
"""
    assert said(bare_python, stranger, code).strip() == "['new'] 5"


def test_the_base_install_says_which_extra_is_missing(bare_python: Path, stranger: Path, tmp_path: Path) -> None:
    code = """
import userfm
try:
    userfm.Subgraph
except ImportError as error:
    print(error)
"""
    assert "pip install 'userfm[model]'" in said(bare_python, stranger, code)
    for arguments, extra in ((("train", "corpus", "--out", "run"), "train"), (("serve", "store"), "serve")):
        done = subprocess.run(
            [str(bare_python.parent / "userfm"), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert f"pip install 'userfm[{extra}" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_base_install_has_the_whole_help(bare_python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(bare_python.parent / "userfm"), "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "tokenize" in done.stdout
