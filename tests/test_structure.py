"""The shape of the tree: what may import what, how long a file may be, what stands at the top."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tokenization", "foundation", "serving", "training", "userfm")
LIBRARIES = tuple(PACKAGES[:4])  # imports run one way: each may import itself and those to its left
GENERATED = ROOT / "userfm" / "v1"
LONGEST_FILE = 400

# module prefix of whoever imports → what it may never import, at the top or late
FORBIDDEN = {
    "tokenization": {"torch", "grpc", "ray", "lance", "torch.distributed", "userfm"},
    "foundation": {"ray", "grpc", "lance", "torch.distributed", "pydantic", "userfm"},
    "serving": {"ray", "userfm"},
    "training": {"grpc", "userfm"},
    "training.loop": {"pydantic", "ray", "lance"},
    "training.data": {"pydantic", "ray", "lance"},
    "training.step": {"pydantic", "ray", "lance"},
    "training.training_set": {"pydantic", "ray", "lance"},
}
# who is let off, for what; late means inside a function, so that importing the module never needs it
LATE = {
    ("tokenization.sources.formats", "lance"),
    ("tokenization.corpus.parts", "lance"),
    ("tokenization.items.rq_vae", "torch"),
}
ALWAYS = {("serving", "userfm.v1"), ("tokenization.job.cluster", "ray")}

# who may import `training` besides itself
DRIVERS = ("userfm.cli", "userfm.demo", "userfm.__main__")
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@dataclass(frozen=True)
class Import:
    """One import statement: who, what, whether inside a function, where."""

    module: str
    target: str
    late: bool
    place: str

    def is_of(self, name: str) -> bool:
        return self.target == name or self.target.startswith(name + ".")


def source_files() -> list[Path]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in files if GENERATED not in path.parents]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by the full name"
            # `from a import b` may mean the module a.b: both names are checked
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        place = f"{path.relative_to(ROOT)}:{node.lineno}"
        yield from (Import(module_name(path), target, id(node) in inside, place) for target in targets)


IMPORTS = [found for path in source_files() for found in imports_of(path)]


def belongs(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def test_imports_run_one_way() -> None:
    wrong = [
        f"{found.place}: {found.module} imports {found.target}"
        for found in IMPORTS
        for place, package in enumerate(LIBRARIES)
        if belongs(found.module, package) and found.target.split(".")[0] in LIBRARIES[place + 1 :]
    ]
    assert wrong == []


def test_no_two_stages_of_tokenization_import_one_another() -> None:
    stages = {
        (found.module.split(".")[1], found.target.split(".")[1])
        for found in IMPORTS
        if found.module.count(".") > 1 and found.target.startswith("tokenization.") and found.target.count(".") > 1
    }
    tied = [(one, other) for one, other in stages if one != other and (other, one) in stages]
    assert tied == [], tied


def test_each_package_keeps_away_from_what_it_must_not_need() -> None:
    wrong = [
        f"{found.place}: {found.module} imports {found.target}"
        for found in IMPORTS
        for prefix, names in FORBIDDEN.items()
        for name in names
        if belongs(found.module, prefix) and found.is_of(name) and not allowed(found, name)
    ]
    assert wrong == []


def allowed(found: Import, name: str) -> bool:
    if any(belongs(found.module, module) and found.is_of(target) for module, target in ALWAYS):
        return True
    return found.late and (found.module, name) in LATE


def test_only_the_command_line_and_the_demo_import_training() -> None:
    wrong = [
        f"{found.place}: {found.module} imports {found.target}"
        for found in IMPORTS
        if found.is_of("training")
        if not belongs(found.module, "training") and not any(belongs(found.module, driver) for driver in DRIVERS)
    ]
    assert wrong == []


def test_nothing_that_is_published_or_served_knows_pickle() -> None:
    wrong = [
        f"{found.place}: {found.module} imports {found.target}"
        for found in IMPORTS
        if not belongs(found.module, "training") and found.target.split(".")[0] in PICKLES
    ]
    assert wrong == []


def test_ray_is_used_in_two_places_only() -> None:
    users = {found.module for found in IMPORTS if found.is_of("ray")}
    assert users <= {"tokenization.job.cluster", "training.pretrain"}


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [
        (
            "userfm userfm.client",
            "torch pyarrow pandas pydantic lance ray faiss sklearn tokenization foundation serving training",
        ),
        (
            "tokenization.tokenizer.tokenizer tokenization.job.pipeline",
            "torch grpc ray lance pandas sklearn foundation",
        ),
        ("foundation.subgraph", "grpc ray lance sklearn serving training userfm"),
        ("training.loop training.data", "grpc ray lance sklearn userfm"),
        ("serving.server", "ray sklearn matplotlib training"),
    ],
    ids=lambda names: names.split()[0],
)
def test_what_must_work_alone_imports_with_everything_else_absent(modules: str, blocked: str) -> None:
    code = f"""
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if any(name == b or name.startswith(b + ".") for b in {blocked.split()!r}):
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())
for module in {modules.split()!r}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_reads_in_one_sitting() -> None:
    files = [*source_files(), *(p for d in ("tests", "benchmarks", "examples") for p in (ROOT / d).rglob("*.py"))]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_the_top_level_holds_what_it_always_held() -> None:
    fixed = {*PACKAGES, "protos", "tests", "benchmarks", "docs", "examples"}
    made = {"out", "dist", "build"}  # by make, ignored by git
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))}
    assert {name for name in folders if not name.endswith(".egg-info")} <= fixed | made


def test_every_module_says_what_it_is_for() -> None:
    modules = [path for path in source_files() if path.name != "__init__.py"]
    silent = [str(path.relative_to(ROOT)) for path in modules if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_every_dependency_has_its_reason_and_no_reason_is_left_over() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    declared = {re.split(r"[^\w.-]", name)[0].lower() for name in wanted} - {"userfm"}
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").split("## Used, but brought by")[0]
    explained = set(re.findall(r"^\| ([\w.-]+) \| \S", page, flags=re.MULTILINE)) - {"package"}
    assert explained == declared
