"""Made corpus_1.parquet/ and corpus_1.lance/ with the code that wrote corpus format 1; kept to say what was in them.

    python tests/tokenization/golden/make_corpus_1.py

Later code writes a later format, so running it again makes no such folder: never do, unless at that commit.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from tokenization.corpus.corpus import write_corpus
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer

SCHEMA = {
    "schema": 1,
    "name": "shop",
    "user": "user",
    "time": {"column": "at"},
    "entities": {"product": {"column": "sku", "candidates": True}},
    "outcome": {"quantity": {"kind": "number"}},
    "split": {"time": "2024-04-01"},
}
LOG = {
    "user": ["ann", "ann", "bob", "cem", "cem"],
    "at": ["2024-03-01", "2024-03-09T23:30:00", "2024-02-28", "2024-03-27", "2024-03-28"],
    "sku": ["tea", "soap", "milk", "rope", "tea"],
    "quantity": [2.0, None, 1.0, 5.0, 1.0],
}

if __name__ == "__main__":
    tokenizer = Tokenizer.fit(EventSchema.from_dict(SCHEMA), pa.table(LOG))
    refused = pa.table({"user": [None], "at": ["2024-03-01"], "reason": ["user is missing"]})
    for format in ("parquet", "lance"):
        folder = Path(__file__).parent / f"corpus_1.{format}"
        write_corpus(folder, [tokenizer.transform(pa.table(LOG))], tokenizer, {"events": 6}, format, refused)
