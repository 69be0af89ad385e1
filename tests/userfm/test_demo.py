"""The demo on sixty real households: every stage, every figure, and going on after a crash."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from training.recipes import Name
from userfm import complete_journey
from userfm.demo import Settings, run

pytestmark = pytest.mark.slow

HOUSEHOLDS = 60
METHODS = ("embedding", "model", "popularity", "personal_count", "personal_decayed")
NAMES = [
    *(
        f"evaluation.{method}.{part}.{metric}"
        for method in METHODS
        for part in ("all", "repeat", "new")
        for metric in ("recall@10", "recall@50", "ndcg@10")
    ),
    *(f"evaluation.{method}.coverage@10" for method in METHODS),
    *(f"evaluation.model_minus_personal_decayed.{name}" for name in ("ndcg@10", "low", "high")),
    *(f"training.{name}" for name in ("tokens_per_second", "steps", "seconds", "final_loss")),
    *(f"tokenization.{name}" for name in ("events", "tokens", "events_per_second")),
    *(f"serving.{name}" for name in ("lookup_p50_ms", "lookup_p99_ms", "encode_p50_ms", "search_p50_ms")),
    *(
        f"heads.{head}.{name}"
        for head in ("home", "search", "item_to_item")
        for name in ("ndcg@10", "baseline_ndcg@10")
    ),
    *(f"probe.{label}.{name}" for label in ("age", "income", "household_size") for name in ("embedding", "baseline")),
    "wall_seconds",
    "peak_rss_gib",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's tables cut to sixty households with demographics, and to what they bought."""
    source, out = complete_journey.data_dir(), tmp_path_factory.mktemp("data")
    known = pq.read_table(source / "demographics.parquet").slice(0, HOUSEHOLDS)
    pq.write_table(known, out / "demographics.parquet")
    of_these = pc.field("household_id").isin(known["household_id"].to_pylist())
    for name in ("transactions", "coupon_redemptions", "campaigns"):
        pq.write_table(pq.read_table(source / f"{name}.parquet", filters=of_these), out / f"{name}.parquet")
    bought = pq.read_table(out / "transactions.parquet", columns=["product_id"])["product_id"]
    products = pq.read_table(source / "products.parquet")
    pq.write_table(products.filter(pc.is_in(products["product_id"], value_set=bought)), out / "products.parquet")
    pq.write_table(pq.read_table(source / "promotions.parquet").slice(0, 1000), out / "promotions.parquet")
    (out / "campaign_descriptions.parquet").symlink_to(source / "campaign_descriptions.parquet")
    return out


@pytest.fixture(scope="module")
def settings(data: Path) -> Settings:
    return Settings(minutes=0.2, recipe=Name.SMALL, overrides={"epochs": "1"}, data=data, shown=50)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def screen(out: Path, settings: Settings) -> str:
    """What the demo printed."""
    shown = io.StringIO()
    run(out, Console(file=shown, width=120), Console(file=io.StringIO()), settings)
    return shown.getvalue()


def value(figures: dict[str, Any], name: str) -> Any:
    here: Any = figures
    for key in name.split("."):
        here = here[key]
    return here


def test_the_report_has_every_figure(screen: str, out: Path) -> None:
    figures = json.loads((out / "report.json").read_text())
    missing = [name for name in NAMES if not isinstance(value(figures, name), int | float)]
    assert missing == []
    assert figures["serving"]["live_minus_stored"] < 1e-4
    assert figures["serving"]["vector_moved"] > 0
    assert figures["serving"]["drain"]["exit_code"] == 0


def test_the_page_has_every_section_and_loads_nothing(screen: str, out: Path) -> None:
    page = (out / "report.html").read_text()
    for section in (
        "What is recommended next",
        "Heads and probe",
        "Training",
        "A map of the items",
        "Three users up close",
    ):
        assert f">{section}<" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page


def test_the_terminal_says_what_was_done(screen: str) -> None:
    for said in ("Tokenize", "Train", "Evaluate", "Probe", "Fit the heads", "Push and publish", "Serve", "Show"):
        assert said in screen
    assert "encoded live differs from its stored vector" in screen


def test_a_demo_that_was_cut_off_goes_on(screen: str, out: Path, settings: Settings) -> None:
    ledger = json.loads((out / "stages.json").read_text())
    del ledger["stages"]["Serve"]
    (out / "stages.json").write_text(json.dumps({**ledger, "finished": False}))
    model = (out / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    shown = io.StringIO()
    figures = run(out, Console(file=shown, width=120), Console(file=io.StringIO()), settings)
    assert shown.getvalue().count("done before") == len(ledger["stages"])
    assert (out / "run" / "model" / "model.safetensors").stat().st_mtime_ns == model
    assert figures["wall_seconds"] > ledger["wall_seconds"]
