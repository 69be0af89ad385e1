"""A real Ray session, on this machine: some ten seconds to start, so there is one for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import Kiosk
from tokenization.errors import SourceError
from tokenization.job.layout import on_ray
from tokenization.job.pipeline import tokenize

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    from tokenization.job import cluster

    with cluster.session():
        yield


@pytest.fixture
def files(kiosk: Kiosk, tmp_path: Path) -> Path:
    """The kiosk's log in files of two formats, one of which makes text of a column that the other has as numbers; some
    rows make no sense, some are there twice."""
    events = kiosk.events.append_column("id", pa.array([f"e{row}" for row in range(kiosk.events.num_rows)]))
    articles = events.set_column(0, "customer", events["customer"])
    bad = events.slice(3, 2).set_column(0, "customer", pa.nulls(2, pa.string()))
    (tmp_path / "events").mkdir()
    pq.write_table(articles.slice(0, 200), tmp_path / "events" / "a.parquet", row_group_size=50)
    pyarrow.csv.write_csv(events.slice(200), tmp_path / "events" / "b.csv")
    pq.write_table(pa.concat_tables([bad, events.slice(100, 30)]), tmp_path / "events" / "c.parquet")
    pq.write_table(kiosk.items, tmp_path / "items.parquet")
    for name, split in (("schema", None), ("fraction", {"fraction": 0.8})):
        declared = kiosk.schema.to_dict() | {"event_id": "id"} | ({"split": split} if split else {})
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
    return tmp_path


@pytest.mark.parametrize("schema", ["schema", "fraction"])
def test_a_cluster_makes_the_corpus_that_one_machine_makes(schema: str, files: Path) -> None:
    arguments = (files / f"{schema}.yaml", files / "events", files / "items.parquet")
    told: list[tuple[str, int, int]] = []
    here = tokenize(*arguments, files / "here")
    there = tokenize(*arguments, files / "there", progress=lambda *what: told.append(what), part_rows=100, where=on_ray)
    assert there.tokens().equals(here.tokens())
    assert there.ends(there.user_ids).equals(here.ends(here.user_ids))
    opened = [sorted(map(repr, corpus.open_events(corpus.user_ids).to_pylist())) for corpus in (here, there)]
    assert opened[0] == opened[1] != []
    assert there.tokenizer.fingerprint == here.tokenizer.fingerprint
    assert here.summary["quarantined"] == {"customer is missing": 2, "id is there twice": 30}
    refused = [sorted(map(repr, corpus.quarantine.to_pylist())) for corpus in (here, there)]
    assert refused[0] == refused[1]
    same = ("events", "tokens", "merged", "quarantined", "dropped", "users", "items")
    assert {key: there.summary[key] for key in same} == {key: here.summary[key] for key in same}
    last = {stage: done == total for stage, done, total in told}
    assert last == dict.fromkeys(["read", "check", "fit", "item texts", "tokenize", "write"], True)


def test_what_is_wrong_with_a_file_is_the_sentence_that_it_is_elsewhere(files: Path) -> None:
    (files / "events" / "d.csv").write_text("customer,time\nann,7\n")
    with pytest.raises(SourceError, match=r"events/d.csv has no column 'action'"):
        tokenize(files / "schema.yaml", files / "events", None, files / "corpus", where=on_ray)
    assert not (files / "corpus").exists()
