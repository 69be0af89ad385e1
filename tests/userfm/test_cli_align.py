from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

AGAIN = ("--recipe", "small", "--set", "epochs=1", "--set", "seed=1", "--no-ray")


@pytest.fixture(scope="module")
def retrained(shop: Any, command: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("retrained") / "run"
    assert command("train", shop.corpus, "--out", run, *AGAIN) == 0
    return run


def test_a_retrained_run_is_aligned_to_what_a_store_serves_and_pushed_so(
    shop: Any, command: Any, retrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = shutil.copytree(shop.store, tmp_path / "store")
    served = json.loads((store / "current.json").read_text())["space"]
    assert command("align", retrained, "--to", store, "--bands", "16") == 0
    said = capsys.readouterr().out
    for line in (
        "in the directions of shop-v1@",
        "users: cosine with themselves there",
        "items: cosine",
        "userfm push",
    ):
        assert line in said
    space = json.loads((retrained / "model" / "space.json").read_text())
    assert space["frames"] == [served["fingerprint"]]
    assert command("push", retrained, "--store", store) == 0
    assert command("publish", store) == 0
    assert json.loads((store / "current.json").read_text())["space"]["aligned_to"].startswith("shop-v1@")


def test_a_run_and_a_named_space_are_aligned_to_as_well(shop: Any, command: Any, retrained: Path) -> None:
    for to in ((shop.run,), (shop.run / "model",), (shop.store, "--space", "shop-v1")):
        assert command("align", retrained, "--to", *to) == 0


@pytest.mark.parametrize(
    ("to", "options", "says"),
    [
        ("run", ("--bands", "wide"), "must be whole numbers with commas"),
        ("run", ("--bands", "0,8"), "bands must ascend and stay below the width 32"),
        ("run", ("--bands", "64"), "bands must ascend and stay below the width 32"),
        ("store", ("--space", "shop-v9"), "has no space 'shop-v9'"),
        ("nowhere", (), "there is no embedding store at"),
        ("itself", (), "is of the same weights as the run"),
    ],
)
def test_what_can_not_be_aligned_to_is_refused_in_a_sentence(
    shop: Any,
    command: Any,
    retrained: Path,
    to: str,
    options: tuple[str, ...],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = {"run": shop.run, "store": shop.store, "nowhere": shop.folder / "nowhere", "itself": retrained}[to]
    assert command("align", retrained, "--to", where, *options) == 2
    assert says in " ".join(capsys.readouterr().err.replace("│", " ").split())
