"""A slice of the real tables: three households, with promotions of a few of their lines."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tokenization.job.pipeline import tokenize
from tokenization.schema.event_schema import EventSchema
from userfm import complete_journey

HOUSEHOLDS = [1, 7, 13]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's tables cut to three households; of the promotions, three lines, one of them listed twice."""
    source, out = complete_journey.data_dir(), tmp_path_factory.mktemp("data")
    for name in ("transactions", "coupon_redemptions", "campaigns"):
        pq.write_table(
            pq.read_table(source / f"{name}.parquet", filters=[("household_id", "in", HOUSEHOLDS)]),
            out / f"{name}.parquet",
        )
    for name in ("products", "campaign_descriptions"):
        (out / f"{name}.parquet").symlink_to(source / f"{name}.parquet")
    lines = pq.read_table(out / "transactions.parquet", columns=["product_id", "store_id", "week"]).slice(0, 3)
    listed = pa.concat_tables([lines, lines.slice(0, 1)])
    listed = listed.append_column("display_location", pa.array(["0", "3", "9", "5"]))
    listed = listed.append_column("mailer_location", pa.array(["A", "0", "D", "0"]))
    pq.write_table(listed, out / "promotions.parquet")
    return out


@pytest.fixture(scope="module")
def prepared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return complete_journey.prepare(tmp_path_factory.mktemp("out") / "new", lambda stage, done, total: None, data)


@pytest.fixture(scope="module")
def events(prepared: tuple[Path, Path]) -> pa.Table:
    return pq.read_table(prepared[0])


def of_action(events: pa.Table, action: str) -> pa.Table:
    return events.filter(pc.equal(events["action"], action))


def test_the_declaration_is_found_and_names_only_columns_that_are_there(prepared: tuple[Path, Path]) -> None:
    schema = EventSchema.from_yaml(complete_journey.schema_path())
    assert set(schema.columns) <= set(pq.read_schema(prepared[0]).names)
    assert schema.items is not None
    assert {schema.items.id, *schema.items.categories, *schema.items.text} <= set(pq.read_schema(prepared[1]).names)


def test_every_line_redemption_and_mailing_is_one_event(data: Path, events: pa.Table) -> None:
    for action, name in (("purchase", "transactions"), ("redeem", "coupon_redemptions"), ("mailing", "campaigns")):
        count = pq.read_metadata(data / f"{name}.parquet").num_rows
        assert count > 0
        assert of_action(events, action).num_rows == count, action


def test_a_purchase_has_a_product_and_all_of_its_figures(data: Path, events: pa.Table) -> None:
    lines, bought = pq.read_table(data / "transactions.parquet"), of_action(events, "purchase")
    for name in ("household_id", "basket_id", "store_id", "product_id", "quantity", "sales_value", "retail_disc"):
        assert bought[name].to_pylist() == lines[name].to_pylist(), name
    assert bought["time"].to_pylist() == lines["transaction_timestamp"].cast(pa.timestamp("us")).to_pylist()
    both = pc.add(lines["coupon_disc"], lines["coupon_match_disc"])
    assert bought["coupon_disc"].to_pylist() == both.to_pylist()
    assert bought["campaign_type"].null_count == len(bought)


def test_a_promotion_is_joined_by_product_store_and_week(events: pa.Table) -> None:
    bought = of_action(events, "purchase")
    assert bought["display"].to_pylist()[:4] == ["5", "3", "9", None]
    assert bought["mailer"].to_pylist()[:4] == ["0", "0", "D", None]


def test_a_redemption_has_its_coupon_and_kind_of_campaign_but_no_product(data: Path, events: pa.Table) -> None:
    redeemed, told = of_action(events, "redeem"), pq.read_table(data / "coupon_redemptions.parquet")
    assert redeemed["coupon_upc"].to_pylist() == told["coupon_upc"].to_pylist()
    assert redeemed["product_id"].null_count == redeemed["campaign_id"].null_count == len(redeemed)
    assert redeemed["campaign_type"].null_count == 0
    assert all(time.time() == datetime.min.time() for time in redeemed["time"].to_pylist())


def test_a_mailing_has_the_first_day_of_its_campaign(data: Path, events: pa.Table) -> None:
    kinds = {row["campaign_id"]: row for row in pq.read_table(data / "campaign_descriptions.parquet").to_pylist()}
    for row in of_action(events, "mailing").to_pylist():
        assert row["campaign_type"] == kinds[row["campaign_id"]]["campaign_type"]
        assert row["time"] == kinds[row["campaign_id"]]["start_date"].to_pydatetime()
        assert row["product_id"] is row["coupon_upc"] is row["basket_id"] is None


def test_the_slice_becomes_a_corpus(prepared: tuple[Path, Path], tmp_path: Path) -> None:
    events, items = prepared
    few = tmp_path / "items.parquet"
    pq.write_table(pq.read_table(items).slice(0, 500), few)
    corpus = tokenize(complete_journey.schema_path(), events, few, tmp_path / "corpus")
    assert corpus.summary["users"] == 3
    assert corpus.summary["quarantined"] == {}
    assert corpus.user_ids.to_pylist() == HOUSEHOLDS
    names = [facet.name for facet in corpus.tokenizer.facets]
    assert names[:4] == ["action", "product", "coupon", "campaign"]
    assert {"store", "hour", "display", "mailer", "campaign_type", "quantity"} < set(names)
