"""Semantic IDs of real catalogues: how alike items with the same first codes are, beside chance and plain clusters.

Products of Complete Journey, told by type, brand and size; their department and category, which the codes never see,
say what is alike. Movies of MovieLens 1M (research terms, so only where `USERFM_DATA` or ../shared/data has it), told
by title and plot, judged by their genres. Items with one text count once: they have the same codes anyway.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.measure import Bar, Estimate, Measured, at_least
from tokenization.arrays import Vectors
from tokenization.items.content import TextEncoder
from tokenization.items.rq_vae import RqVae
from tokenization.items.semantic_ids import ResidualKMeans
from tokenization.items.semantic_quality import Quality, quality
from userfm import complete_journey

LEVELS, CODES, SEED = 3, 256, 0
CHANCE = 1.0
"""Items with the same first code are to be more alike than chance has it,"""
CLUSTERS = 0.95
"""and nearly as alike as those of a plain cluster."""
_METHODS: Mapping[str, Callable[..., ResidualKMeans | RqVae]] = {
    "residual_kmeans": ResidualKMeans.fit,
    "rq_vae": RqVae.fit,
}


@dataclass(frozen=True)
class Catalogue:
    """Items whose texts differ: vectors [n, w], and by name the category of each [n], negative where it has none."""

    name: str
    vectors: Vectors
    categories: Mapping[str, NDArray[np.int64]]


def run(progress: Callable[[str, int, int], None]) -> Measured:
    """Figures by catalogue, method and what was measured; bars: how many times as alike as chance."""
    figures: dict[str, float] = {}
    bars: tuple[Bar, ...] = ()
    found = [catalogue for catalogue in (products(), movies()) if catalogue is not None]
    for place, catalogue in enumerate(found):
        figures[f"{catalogue.name}.items"] = len(catalogue.vectors)
        for turn, (method, fit) in enumerate(_METHODS.items()):
            progress("fits", place * len(_METHODS) + turn, len(found) * len(_METHODS))
            prefix = f"{catalogue.name}.{method}"
            start = time.perf_counter()
            quantizer = fit(catalogue.vectors, LEVELS, CODES, SEED)
            figures[f"{prefix}.fit_seconds"] = time.perf_counter() - start
            told = quality(quantizer, catalogue.vectors, catalogue.categories, SEED)
            figures |= {f"{prefix}.{name}": value for name, value in _flat(told).items()}
            bars = (*bars, *_bars(prefix, told))
    figures |= {bar.name: bar.value for bar in bars}
    return Measured(figures, bars)


def products() -> Catalogue:
    """Complete Journey's."""
    table = pq.read_table(complete_journey.data_dir() / "products.parquet")
    return _catalogue(
        "complete_journey",
        _text(table, ("product_type", "brand", "package_size")),
        {name: table[name] for name in ("department", "product_category")},
    )


def movies() -> Catalogue | None:
    """MovieLens 1M's; None, said aloud, where it is absent."""
    home = Path(os.environ.get("USERFM_DATA", Path(__file__).parents[2] / "shared" / "data")) / "ml-1m"
    if not (home / "items.parquet").exists():
        Console(stderr=True).print(f"[yellow]skipped: MovieLens 1M is not in {home}; set USERFM_DATA to its folder")
        return None
    table = pq.read_table(home / "items.parquet")
    genres = table["genres"].combine_chunks()
    return _catalogue(
        "ml_1m",
        _text(table, ("title", "plot")),
        {
            "first_genre": pc.list_element(pc.if_else(pc.equal(pc.list_value_length(genres), 0), None, genres), 0),
            "genres": pc.binary_join(genres, "|"),
        },
    )


def _text(table: pa.Table, columns: tuple[str, ...]) -> pa.Array:
    parts = [table[name].cast(pa.string()).fill_null("") for name in columns]
    return pc.utf8_trim_whitespace(pc.binary_join_element_wise(*parts, " ")).combine_chunks()


def _catalogue(name: str, text: pa.Array, categories: Mapping[str, pa.Array | pa.ChunkedArray]) -> Catalogue:
    """The first item with each text that says anything."""
    vectors = TextEncoder().encode(text.to_pylist())
    seen = np.unique(pc.dictionary_encode(text).indices.to_numpy(), return_index=True)[1]
    kept = seen[vectors[seen].any(axis=1)]
    return Catalogue(name, vectors[kept], {key: _numbers(column)[kept] for key, column in categories.items()})


def _numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    coded = pc.dictionary_encode(array).indices.cast(pa.int64())
    numbers: NDArray[np.int64] = coded.fill_null(-1).to_numpy()
    return numbers


def _bars(prefix: str, told: Quality) -> Iterator[Bar]:
    """How many times as alike as by chance, and as in plain clusters. All is seeded, so there is no interval."""
    for category, (first, *_) in told.alike.items():
        for name, beside, bar in (("chance", first.by_chance, CHANCE), ("clusters", first.clusters, CLUSTERS)):
            times = first.same / beside
            yield at_least(f"{prefix}.{category}.times_{name}_1", Estimate(times, times, times), bar)


def _flat(told: Quality) -> dict[str, float]:
    figures: dict[str, float] = {"colliding": told.colliding, "most_with_one_id": told.most}
    for number, level in enumerate(told.levels, 1):
        figures |= {
            f"used_{number}": level.used,
            f"perplexity_{number}": level.perplexity,
            f"left_{number}": level.left,
        }
    for category, by_length in told.alike.items():
        for likeness in by_length:
            for what in ("same", "by_chance", "clusters"):
                figures[f"{category}.{what}_{likeness.length}"] = getattr(likeness, what)
    return figures
