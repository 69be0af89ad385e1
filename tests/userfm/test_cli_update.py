"""`userfm update`, from yesterday's run and a day of events to a store that serves today's model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from serving.store import EmbeddingStore
from tests.conftest import DAY, DECLARATION, Kiosk
from tokenization.corpus.corpus import Corpus
from training.run import Run
from training.update import Update
from userfm.cli import main

YESTERDAY = 100 * DAY
NAMES = {
    *("schema.yaml", "events.parquet", "day.parquet", "items.parquet", "more.parquet"),
    *("corpus", "run", "run-2", "run-3", "run-4", "store"),
}


@pytest.fixture(scope="module")
def shop(kiosk: Kiosk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of the log until yesterday, its store, and the events since, with a new article in them."""
    folder = tmp_path_factory.mktemp("shop")
    split = {"time": "1970-03-11T00:00:00", "validation": "1970-02-20T00:00:00"}
    (folder / "schema.yaml").write_text(yaml.safe_dump({**DECLARATION, "split": split}))
    old = pc.less(kiosk.events["time"], YESTERDAY)
    pq.write_table(kiosk.events.filter(old), folder / "events.parquet")
    day = kiosk.events.filter(pc.invert(old))
    new = pc.if_else(pc.equal(day["article"], 101), 900, day["article"])
    pq.write_table(day.set_column(day.column_names.index("article"), "article", new), folder / "day.parquet")
    pq.write_table(kiosk.items, folder / "items.parquet")
    added = pa.table({"article": [900], "kind": ["apple"], "brand": ["plain"]})
    pq.write_table(pa.concat_tables([kiosk.items, added]), folder / "more.parquet")
    assert (
        run_command(folder, "tokenize", "schema.yaml", "events.parquet", "--items", "items.parquet", "--out", "corpus")
        == 0
    )
    recipe = ("--recipe", "small", "--set", "width=16", "--all-data", "--no-ray")
    assert run_command(folder, "train", "corpus", "--out", "run", *recipe) == 0
    assert run_command(folder, "push", "run", "--store", "store") == 0
    assert run_command(folder, "publish", "store") == 0
    return folder


def run_command(folder: Path, *arguments: str) -> int:
    """`userfm` with paths in that folder; its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(folder / one) if one in NAMES else one for one in arguments])
    return int(ended.value.code or 0)


def updating(*more: str) -> tuple[str, ...]:
    return ("update", "run", "--events", "day.parquet", "--schema", "schema.yaml", "--items", "more.parquet", *more)


def test_a_day_of_events_makes_a_new_model_that_is_judged_aligned_and_served(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = EmbeddingStore(shop / "store").current()
    assert run_command(shop, *updating("--out", "run-2", "--store", "store", "--held", "0.3", "--allowed", "1")) == 0
    said = capsys.readouterr().out
    assert "which it has not learned" in said
    store = EmbeddingStore(shop / "store")
    after = store.current()
    assert after.epoch > before.epoch
    assert after.space.id.endswith("v2")
    assert after.space.aligned_to == before.space.origin
    assert after.space.lineage[-1] == before.space.origin
    run = Run.open(shop / "run-2")
    assert isinstance(run.origin, Update)
    assert run.origin.since == before.space.as_of < after.space.as_of
    items = Corpus.open(shop / "corpus").tokenizer.items
    assert 900 in items.ids.decode(np.arange(2, len(items), dtype=np.int32)).to_pylist()
    assert json.loads((shop / "run-2" / "run.json").read_text())["until"] == "end"


def test_a_model_that_is_worse_is_refused_and_nothing_of_it_is_served(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = EmbeddingStore(shop / "store").current()
    # Steps ten thousand times as long as those that are good for it.
    worse = updating("--out", "run-3", "--store", "store", "--held", "0.5", "--rate", "1e4")
    assert run_command(shop, *worse) == 1
    assert "is worse than the old one" in capsys.readouterr().out
    assert EmbeddingStore(shop / "store").current() == served


def test_nobody_to_judge_by_is_a_sentence_with_the_mend(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(shop, *updating("--out", "run-4", "--held", "0")) == 2
    assert "none of the 0 users who judge has news after a past: raise --held" in capsys.readouterr().err
