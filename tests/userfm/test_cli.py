"""The whole way of a log on the command line, each command reading what the one before wrote."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import userfm
from serving.rows import Entity
from serving.store import EmbeddingStore
from tokenization.corpus.corpus import Corpus
from training.recipes import Name
from userfm.cli import EXTRAS
from userfm.cli.train import RecipeName

COMMANDS = [
    "schema",
    "tokenize",
    "append",
    "train",
    "update",
    "finetune",
    "distill",
    "runs",
    "evaluate",
    "recommend",
    "align",
    "push",
    "publish",
    "serve",
    "query",
    "demo",
]


@pytest.fixture(scope="module")
def figures(shop: Any, command: Any) -> dict[str, Any]:
    file = shop.folder / "figures.json"
    assert command("evaluate", shop.run, shop.corpus, "--json", file) == 0
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.fixture(scope="module")
def address(shop: Any) -> Iterator[str]:
    """`userfm serve` in a process of its own, ended as a service manager would."""
    server = subprocess.Popen(
        [sys.executable, "-m", "userfm", "serve", shop.store, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("listening on "), line
    yield line.removeprefix("listening on ").strip()
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0


def test_tokenize_says_what_it_did(shop: Any, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("tokenize", shop.schema, shop.events, "--items", shop.items, "--out", shop.corpus) == 0
    said = capsys.readouterr().out
    summary = Corpus.open(shop.corpus).summary
    for what in ("events", "tokens", "merged into others", "quarantined", "dropped", "users", "items"):
        assert what in said
    assert f"{summary['tokens']:,}" in said


def test_train_leaves_a_model_with_heads_and_a_log(shop: Any) -> None:
    assert {path.stem for path in (shop.run / "model" / "heads").iterdir()} == {"home", "search", "item_to_item"}
    log = [json.loads(line) for line in (shop.run / "training.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == log[-1]["steps"] == len(log)
    assert {"loss", "tokens_per_second", "seconds"} <= set(log[-1])


def test_training_a_trained_run_again_changes_nothing(shop: Any, command: Any) -> None:
    before = (shop.run / "model" / "space.json").read_bytes()
    assert command("train", shop.corpus, "--out", shop.run, "--recipe", "small", "--set", "epochs=3", "--no-ray") == 0
    assert (shop.run / "model" / "space.json").read_bytes() == before


def test_evaluate_writes_every_figure_beside_the_baselines(figures: dict[str, Any]) -> None:
    evaluation = figures["evaluation"]
    for method in ("embedding", "model", "popularity", "personal_count", "personal_decayed"):
        assert set(evaluation[method]) >= {"all", "repeat", "new", "coverage@10"}
        assert set(evaluation[method]["all"]) >= {"recall@10", "recall@50", "ndcg@10"}
    assert set(evaluation["model_minus_personal_decayed"]) == {"ndcg@10", "low", "high"}


def test_recommend_writes_a_long_table_with_the_ids_that_came_in(shop: Any, command: Any) -> None:
    users, out = shop.folder / "users.txt", shop.folder / "recs.parquet"
    users.write_text("c07\nc03\n")
    arguments = ("--users", users, "--surface", "home", "--k", 4, "--out", out)
    assert command("recommend", shop.run, shop.corpus, *arguments) == 0
    table = pq.read_table(out)
    assert table.column_names == ["user_id", "item_id", "score", "rank"]
    assert table["user_id"].to_pylist() == ["c07"] * 4 + ["c03"] * 4
    assert table["rank"].to_pylist() == [1, 2, 3, 4] * 2
    assert set(table["item_id"].to_pylist()) <= set(range(100, 140))
    scores = table["score"].to_pylist()
    assert scores[:4] == sorted(scores[:4], reverse=True)


def test_recommend_serves_users_that_training_never_saw(shop: Any, command: Any) -> None:
    events, out = shop.folder / "new.csv", shop.folder / "new-recs.csv"
    table = pq.read_table(shop.events).slice(0, 9)
    table = table.set_column(0, "customer", pa.array(["stranger"] * 9))
    pyarrow.csv.write_csv(table, events)
    assert command("recommend", shop.run, "--events", events, "--k", 3, "--out", out) == 0
    assert pyarrow.csv.read_csv(out)["user_id"].to_pylist() == ["stranger"] * 3
    known = shop.folder / "known.csv"
    known.write_text("customer\nnewcomer\n")
    assert command("recommend", shop.run, "--events", events, "--attributes", known, "--k", 3, "--out", out) == 0
    assert pyarrow.csv.read_csv(out)["user_id"].to_pylist() == ["newcomer"] * 3 + ["stranger"] * 3


def test_a_store_goes_back_to_what_it_served(
    shop: Any, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("push", shop.run, "--store", tmp_path / "store") == 0
    assert command("publish", tmp_path / "store", "--space", "shop-v1") == 0
    assert "serves shop-v1, epoch 1: 40 users, 40 items" in " ".join(capsys.readouterr().out.split())
    assert command("publish", tmp_path / "store", "--rollback") == 2
    assert "nothing was published" in capsys.readouterr().err


def test_items_are_pushed_as_of_a_day_in_utc(shop: Any, command: Any, tmp_path: Path) -> None:
    assert command("push", shop.run, "--store", tmp_path / "store", "--as-of", "2030-01-02") == 0
    assert command("publish", tmp_path / "store") == 0
    store = EmbeddingStore(tmp_path / "store")
    items = store.snapshot(store.current(), Entity.ITEM)
    assert set(items.as_of_N.tolist()) == {datetime(2030, 1, 2, tzinfo=UTC).timestamp()}


def test_a_model_trained_again_goes_into_the_same_store_as_the_next_version(
    shop: Any, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run = tmp_path / "store", tmp_path / "retrained"

    def said(*arguments: object) -> str:
        capsys.readouterr()
        assert command(*arguments) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "holds shop-v1" in said("push", shop.run, "--store", store)
    assert "serves shop-v1, epoch 1" in said("publish", store)
    again = ("--recipe", "small", "--set", "epochs=1", "--set", "seed=1", "--no-ray")
    assert "is a model of shop: vectors of width" in said("train", shop.corpus, "--out", run, *again)
    assert "holds shop-v2" in said("push", run, "--store", store)
    assert "serves shop-v2, epoch 2: 40 users, 40 items" in said("publish", store)
    assert "holds shop-v2" in said("push", run, "--store", store)
    assert "serves shop-v1, epoch 3" in said("publish", store, "--rollback")
    assert "serves shop-v2, epoch 4" in said("publish", store, "--space", "shop-v2")


def test_query_asks_the_server_for_everything_it_serves(
    shop: Any, command: Any, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    events = shop.folder / "fresh.jsonl"
    visit = {"customer": "anna", "time": "2021-01-04T10:00:00", "action": "buy", "receipt": 1, "article": 103}
    events.write_text("\n".join(json.dumps({**visit, "article": 103 + n}) for n in range(3)))

    newcomers = shop.folder / "newcomers.jsonl"
    newcomers.write_text('{"customer": "newcomer"}')

    def ask(*arguments: object) -> list[dict[str, Any]]:
        assert command("query", *arguments, "--address", address, "--json") == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    (space,) = ask("space")
    assert (space["space"], space["users"], space["items"], space["encodes"]) == ("shop-v1", 40, 40, True)
    found = ask("user", "c01", "nobody")
    assert len(found[0]["vector"]) == space["width"]
    assert found[1]["vector"] is None
    assert ask("item", "100")[0]["id"] == 100
    for arguments in (
        ("near", "--item", "100"),
        ("near", "--user", "c01"),
        ("search", "milk"),
        ("goes-with", "100"),
        ("home", events, "--at", "2021-01-05T09:00:00Z", "--context", "till=left"),
        ("home", "--users", newcomers),
    ):
        rows = ask(*arguments, "-k", 5)
        assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5], arguments
        assert {row["item"] for row in rows} <= set(range(100, 140)), arguments
    assert ask("search", "milk", "-k", 1)[0]["item"] % 5 == 3


def test_a_table_is_whole_where_nobody_watches(shop: Any, address: str) -> None:
    """Written to a file by a process of its own: no terminal says how wide a line may be."""

    def written(*arguments: object) -> str:
        command = [sys.executable, "-m", "userfm", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    evaluated = written("evaluate", shop.run, shop.corpus)
    assert "…" not in evaluated
    head = next(line for line in evaluated.splitlines() if "Coverage@10" in line)
    assert all(name in head for name in ("Method", "Recall@10", "Recall@50", "NDCG@10"))
    (row,) = [line for line in evaluated.splitlines() if "Personal count, decayed" in line and line.count("[") == 3][:1]
    assert re.search(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\].*\.\d{4}", row)
    long = "user-" + "x" * 100 + "-[bold]"
    assert long in written("query", "user", long, "--address", address)


def test_query_prints_a_table(command: Any, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("query", "user", "c01", "--address", address) == 0
    assert "c01" in capsys.readouterr().out


def test_every_command_is_listed_and_its_help_has_an_example(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(EXTRAS) == COMMANDS
    assert command("--help") == 0
    assert set(COMMANDS) <= set(re.findall(r"│ ([a-z]+)  ", capsys.readouterr().out))
    for name in COMMANDS:
        assert command(name, "--help") == 0
        said = capsys.readouterr().out
        assert "Example" in said
        assert f"userfm {name} " in said


def test_the_recipes_on_offer_are_those_there_are() -> None:
    assert [(name.name, name.value) for name in RecipeName] == [(name.name, name.value) for name in Name]


def test_the_version_is_printed(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--version") == 0
    assert capsys.readouterr().out.strip() == f"userfm {userfm.__version__}"


def test_help_needs_nothing_but_the_base_install_and_no_time() -> None:
    heavy = ["torch", "pyarrow", "pydantic", "lance", "ray", "sklearn", "pandas", "numpy", "grpc"]
    code = f"""
import sys, time
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())
from userfm.cli import main
try:
    main(["--help"])
finally:
    print(time.process_time(), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tokenize" in done.stdout
    assert float(done.stderr) < 1.0  # of the processor; about 0.4 s where nothing else runs
