from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.semantic_ids import _bars, _flat, movies
from tokenization.items.semantic_ids import ResidualKMeans
from tokenization.items.semantic_quality import quality
from training.verdicts import Outcome


def test_movies_with_one_text_count_once_and_those_without_any_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ml-1m").mkdir()
    table = pa.table(
        {
            "title": ["Heat (1995)", "Heat (1995)", None, "Babe (1995)"],
            "plot": ["Al Pacino", "Al Pacino", None, None],
            "genres": [["Action", "Crime"], ["Drama"], ["War"], []],
        }
    )
    pq.write_table(table, tmp_path / "ml-1m" / "items.parquet")
    monkeypatch.setenv("USERFM_DATA", str(tmp_path))
    found = movies()
    assert found is not None
    assert found.vectors.shape == (2, 256)
    assert found.categories["genres"].tolist() == [0, 3]
    assert found.categories["first_genre"].tolist() == [0, -1]


def test_what_is_absent_is_skipped_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USERFM_DATA", str(tmp_path))
    assert movies() is None
    told = " ".join(capsys.readouterr().err.split())
    assert "skipped: MovieLens 1M is not in" in told
    assert "set USERFM_DATA to its folder" in told


def test_figures_and_bars_are_named_by_catalogue_category_and_length() -> None:
    draw = np.random.default_rng(0)
    shelf = draw.integers(0, 8, 400)
    vectors = (5 * np.eye(8)[shelf] + draw.normal(size=(400, 8))).astype(np.float32)
    told = quality(ResidualKMeans.fit(vectors, 2, 8), vectors, {"shelf": shelf})
    figures = _flat(told)
    assert {"colliding", "perplexity_2", "left_2", "shelf.same_1", "shelf.by_chance_2", "shelf.clusters_1"} <= set(
        figures
    )
    chance, clusters = _bars("shop.residual_kmeans", told)
    assert chance.name == "shop.residual_kmeans.shelf.times_chance_1"
    assert chance.value == pytest.approx(figures["shelf.same_1"] / figures["shelf.by_chance_1"])
    assert (chance.verdict, clusters.bar) == (Outcome.MET, 0.95)
