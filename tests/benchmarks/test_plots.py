from __future__ import annotations

from pathlib import Path

from benchmarks.plots import Line, lines


def test_the_same_figures_give_the_same_picture_with_every_label(tmp_path: Path) -> None:
    named = {"one": Line([1.0, 2.0], [0.5, 1.5], [1.5, 2.5]), "other": Line([2.0, 1.0], [1.5, 0.5], [2.5, 1.5])}
    for name in ("a.svg", "b.svg"):
        lines(tmp_path / "deep" / name, [0, 7], named, "days", "NDCG", "What waiting costs")
    first, second = ((tmp_path / "deep" / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert first == second
    assert first.startswith(b"<?xml")
    assert all(label in first.decode() for label in ("one", "other", "days", "NDCG", "What waiting costs"))
