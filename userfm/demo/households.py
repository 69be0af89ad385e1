"""What the demo knows of Complete Journey beyond the log: demographics to probe for, and words for products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training.probe import probe, purchase_svd
from training.push import user_batches
from training.rows import list_values

ORDERS = {
    "age": ("19-24", "25-34", "35-44", "45-54", "55-64", "65+"),
    "income": (
        "Under 15K",
        "15-24K",
        "25-34K",
        "35-49K",
        "50-74K",
        "75-99K",
        "100-124K",
        "125-149K",
        "150-174K",
        "175-199K",
        "200-249K",
        "250K+",
    ),
    "household_size": ("1", "2", "3", "4", "5+"),
}


def probe_demographics(corpus: Corpus, subgraph: Subgraph, data: Path) -> dict[str, dict[str, Any]]:
    """How much of age, income and household size a line reads off the user embedding, and off purchase counts.

    Both read the whole year; the labels are never in the log.
    """
    known = pq.read_table(data / "demographics.parquet")
    tokens = corpus.tokens()
    row_U = pc.index_in(known["household_id"], value_set=tokens["user_id"].combine_chunks())
    known, row_U = known.filter(pc.is_valid(row_U)), row_U.drop_null().to_numpy().astype(np.int64)
    vectors = [batch.vectors_ND for batch in user_batches(subgraph, tokens.take(row_U))]
    item_T, offset_R = list_values(tokens[corpus.tokenizer.schema.candidates])
    row_T = np.repeat(np.arange(tokens.num_rows), np.diff(offset_R))
    counted = item_T > 1
    counts_RD = purchase_svd(
        row_T[counted], item_T[counted], tokens.num_rows, len(corpus.tokenizer.items), subgraph.space.width
    )
    features = {"embedding": np.concatenate(vectors), "baseline": counts_RD[row_U]}
    return probe(features, {name: known[name].to_pylist() for name in ORDERS}, ORDERS)


class Products:
    """Words for product codes and ids, from the product table. Row i of everything is the product with code i."""

    def __init__(self, items: Path, corpus: Corpus) -> None:
        ids = corpus.tokenizer.items.ids.ids
        table = pq.read_table(items)
        place = pc.index_in(ids, value_set=table["product_id"].combine_chunks())
        table = table.take(place)
        self._place = {id_: code for code, id_ in enumerate(ids.to_pylist(), start=2)}
        self.names = ["", "", *_names(table)]
        self.departments = ["", "", *(_words(name or "unknown") for name in table["department"].to_pylist())]

    def name(self, product_id: int) -> str:
        """What to call a product."""
        return self.names[self._place[product_id]] if product_id in self._place else f"product {product_id}"


def _names(table: pa.Table) -> list[str]:
    kinds = pc.coalesce(table["product_type"], table["product_category"], table["department"], pa.scalar("product"))
    sizes = table["package_size"].to_pylist()
    return [
        _words(kind) + (f" ({size.strip().lower()})" if size and size.strip() else "")
        for kind, size in zip(kinds.to_pylist(), sizes, strict=True)
    ]


def _words(shout: str) -> str:
    return shout.strip().replace("/", " / ").replace("  ", " ").capitalize()
