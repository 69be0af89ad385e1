"""Three households up close: what they bought, what is recommended, and which past events weigh most in it."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import torch

from foundation.explanation import occlusion
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training.holdout import Columns, Requests, hold_out
from training.metrics import Floats, top_k
from training.report import Basket, Reason, Recommendation, Story
from training.rows import list_values
from training.scorers import inputs
from userfm.demo.households import Products

BASKETS, LINES = 3, 8
RECOMMENDED = 5
REASONS = 6
EXPLAINED = 32
"""Latest events that are left out one by one."""


def stories(corpus: Corpus, subgraph: Subgraph, products: Products, count: int = 3) -> list[Story]:
    """Judged households with short, middling and long histories (quantiles of length; nobody picked them)."""
    held = hold_out(corpus.tokens(), Columns.of(corpus.tokenizer), corpus.split)
    by_length = np.argsort(held.asked.known, kind="stable")
    picked = by_length[((np.arange(count) + 0.5) / count * len(by_length)).astype(np.int64)]
    return [
        _story(corpus, subgraph, products, held.requests(row, row + 1), held.truth.slice(row, row + 1).codes)
        for row in picked.tolist()
    ]


def _story(corpus: Corpus, subgraph: Subgraph, products: Products, asked: Requests, truth: np.ndarray) -> Story:
    batch, at_B, context_BC = inputs(subgraph, asked)
    with torch.inference_mode():
        score_BV = subgraph.score(batch, at_B, context_BC).numpy()
    codes = top_k(score_BV, RECOMMENDED)[0].tolist()
    tables = [
        occlusion(subgraph, asked.history, code, float(asked.at[0]), context_BC[0], last=EXPLAINED) for code in codes
    ]
    words = _EventWords(corpus, products, asked.history)
    recommended = [
        Recommendation(
            item=products.names[code],
            note=f"most because of {words.of(table['position'][0].as_py())}" if table.num_rows else "",
            hit=code in truth,
        )
        for code, table in zip(codes, tables, strict=True)
    ]
    household, when = asked.user_ids[0].as_py(), words.day(asked.at[0])
    return Story(
        user=f"Household {household}, {batch.tokens:,} tokens of history, asked on {when}",
        baskets=words.baskets(),
        recommendations=recommended,
        reasons=_reasons(tables, words),
    )


def _reasons(tables: list[pa.Table], words: _EventWords) -> list[Reason]:
    """The events whose absence changes the scores of all recommendations most, on average."""
    position = np.sort(tables[0]["position"].to_numpy())
    weight: Floats = np.zeros(len(position))
    for table in tables:
        order = np.argsort(table["position"].to_numpy())
        weight += table["weight"].to_numpy()[order] / len(tables)
    most = np.argsort(-np.abs(weight), kind="stable")[:REASONS]
    return [Reason(event=words.of(int(position[row])), weight=float(weight[row])) for row in most]


class _EventWords:
    """One row of the token table in words."""

    def __init__(self, corpus: Corpus, products: Products, history: pa.Table) -> None:
        tokenizer = corpus.tokenizer
        self._products = products
        self._zone = ZoneInfo(tokenizer.schema.time.zone if tokenizer.schema.time else "UTC")
        self._time, _ = list_values(history["time"])
        self._group, _ = list_values(history["group"])
        self._item, _ = list_values(history[tokenizer.schema.candidates])
        action, _ = list_values(history["action"])
        self._action = tokenizer.vocabularies["action"].decode(action).to_pylist()
        store, _ = list_values(history["store"])
        self._store = tokenizer.vocabularies["store"].decode(store).to_pylist()

    def day(self, seconds: float) -> str:
        return datetime.fromtimestamp(seconds, self._zone).strftime("%-d %b %Y, %H:%M")

    def of(self, token: int) -> str:
        """One token: what, and when."""
        what = self._products.names[self._item[token]] if self._item[token] > 1 else f"a {self._action[token]}"
        return f"{what}, {self.day(self._time[token])}"

    def baskets(self) -> list[Basket]:
        """The latest groups with products, newest first."""
        bought = np.flatnonzero(self._item > 1)
        groups = np.unique(self._group[bought])[::-1][:BASKETS]
        return [self._basket(bought[self._group[bought] == group]) for group in groups]

    def _basket(self, tokens: np.ndarray) -> Basket:
        items = [self._products.names[code] for code in self._item[tokens[:LINES]].tolist()]
        more = [f"and {len(tokens) - LINES} more"] if len(tokens) > LINES else []
        return Basket(
            when=self.day(self._time[tokens[0]]), where=f"store {self._store[tokens[0]]}", items=[*items, *more]
        )
